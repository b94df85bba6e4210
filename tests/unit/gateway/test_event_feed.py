import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.clock import SystemClock
from core.events import Events, GatewayStopping, TokenRevoked
from core.tasks import Tasks
from gateway import event_feed, event_ring
from gateway.control import TASK_SECONDS, Answered, Task
from gateway.event_feed import MOST_OF_ONE, GatewayEvents, parse_places, render_places
from gateway.others import TaskFailed
from gateway.teller import Teller
from management.event_feed import FeedEnds, Listening, Told, TooManyListeners, Wanted

WANTED = Wanted(names=(TokenRevoked.name, GatewayStopping.name))


def no_webhooks() -> Any:
    raise AssertionError


@dataclass
class Process:
    """One worker, as far as events are concerned; the others are asked at once, in place of a supervisor's relay."""

    folder: Path | None = None
    worker: str = "0.0"
    others: "list[Process]" = field(default_factory=list)
    answers: bool = True

    def __post_init__(self) -> None:
        self.events = Events()
        self.tasks = Tasks()
        self.handlers: dict[type, Callable[[Any], Awaitable[None]]] = {}
        teller = Teller(self.events, None, no_webhooks)
        self.feed = GatewayEvents(self.events, SystemClock(), self.tasks, teller)
        if self.folder is not None:
            self.feed.link(self, self.folder, self.worker)

    def on(self, kind: type, handler: Callable[[Any], Awaitable[None]]) -> None:
        self.handlers[kind] = handler

    async def ask(self, task: Task, timeout_seconds: float = TASK_SECONDS) -> Answered:
        failed = silent = 0
        for other in self.others:
            try:
                if other.answers:
                    await other.handlers[type(task)](task)
                else:
                    silent += 1
            except TaskFailed:
                failed += 1
        return Answered(len(self.others), failed, silent)

    def emit(self, name: str) -> None:
        self.events.emit(TokenRevoked(token_id="tok_1", token=name, by="test"))

    async def listen(self, last_id: str | None = None, caller: str = "ann") -> Listening:
        return await self.feed.listen(WANTED, last_id, caller)

    async def close(self) -> None:
        await self.tasks.cancel()
        self.feed.close()


@contextlib.asynccontextmanager
async def closing(*processes: Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for process in processes:
            await process.close()


@pytest.fixture
async def alone() -> AsyncIterator[Process]:
    process = Process()
    async with closing(process):
        yield process


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Process, Process]]:
    one, other = Process(tmp_path, "0.0"), Process(tmp_path, "1.0")
    one.others.append(other)
    other.others.append(one)
    async with closing(one, other):
        yield one, other


def said(told: Told) -> str:
    """The token that was revoked, or why there is a gap."""
    data = msgspec.json.decode(told.data)["data"]
    return str(data.get("token") or data.get("reason"))


async def collect(listening: Listening, count: int) -> list[Told]:
    """The next ``count``, and what comes with them."""
    found: list[Told] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await listening.next(1.0) or ()
    return found


def places() -> dict[str, int]:
    return {"0a1b2c3d": 17, "ffffffff": 0}


def test_an_id_is_read_as_it_was_written() -> None:
    assert "evt_0a1b2c3d11-ffffffff0" == render_places(places())
    assert places() == parse_places(render_places(places()))


@pytest.mark.parametrize("text", ["", "evt_", "evt_xyz", "evt_0a1b2c3d", "17", "evt_0a1b2c3d1-", "evt_0a1b2c3d1" * 999])
def test_what_is_no_id_of_ours_is_none(text: str) -> None:
    assert parse_places(text) is None


async def test_what_happened_while_a_client_was_away_comes_once(alone: Process) -> None:
    first = await alone.listen()
    alone.emit("a")
    got = await collect(first, 1)
    await first.close()
    alone.emit("b")
    second = await alone.listen(got[-1].id)
    alone.emit("c")
    assert ["b", "c"] == [said(each) for each in await collect(second, 2)]
    await second.close()
    # Also one who came before anything had happened.
    third = await alone.listen(second.place)
    alone.emit("d")
    assert ["d"] == [said(each) for each in await collect(third, 1)]
    await third.close()


@pytest.mark.parametrize("last_id", ["nonsense", "evt_0a1b2c3d5"])
async def test_an_id_that_nobody_knows_begins_with_a_gap(alone: Process, last_id: str) -> None:
    listening = await alone.listen(last_id)
    alone.emit("a")
    assert ["unknown_id", "a"] == [said(each) for each in await collect(listening, 2)]
    await listening.close()


async def test_an_id_that_is_kept_no_more_begins_with_a_gap(alone: Process) -> None:
    first = await alone.listen()
    place = first.place
    await first.close()
    alone.feed.ring.close()
    second = await alone.listen(place)
    assert ["too_old"] == [said(each) for each in await collect(second, 1)]
    await second.close()


async def test_a_slow_listener_misses_events_and_is_told_so_while_others_miss_none(
    alone: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_ring, "MOST_EVENTS", 5)
    slow, quick = await alone.listen(), await alone.listen()
    got: list[Told] = []
    for number in range(12):
        alone.emit(str(number))
        alone.feed.ring.settle()
        got += await collect(quick, 1)
    assert [str(number) for number in range(12)] == [said(each) for each in got]
    gap, *rest = await collect(slow, 6)
    assert {"reason": "too_slow", "events": 7} == msgspec.json.decode(gap.data)["data"]
    assert [str(number) for number in range(7, 12)] == [said(each) for each in rest]
    await slow.close()
    await quick.close()


async def test_there_is_a_bound_of_listeners(alone: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "MOST_LISTENERS", MOST_OF_ONE + 1)
    several = [await alone.listen() for _ in range(MOST_OF_ONE)]
    with pytest.raises(TooManyListeners, match="You have 8"):
        await alone.listen()
    several.append(await alone.listen(caller="bob"))
    with pytest.raises(TooManyListeners, match="try again"):
        await alone.listen(caller="eve")
    for each in several:
        await each.close()
    await (await alone.listen()).close()


async def test_a_process_that_ends_says_so_and_takes_no_other(alone: Process) -> None:
    listening = await alone.listen()
    alone.events.emit(GatewayStopping(reason="signal"))
    last = await listening.next(60)
    assert last is not None
    assert ["signal"] == [said(each) for each in last]
    assert None is await listening.next(60)
    with pytest.raises(FeedEnds):
        await alone.listen()
    await listening.close()


async def test_who_waits_is_woken_when_asked_to(alone: Process) -> None:
    listening = await alone.listen()
    waiting = alone.tasks.spawn(listening.next(1000), "waiting")
    await asyncio.sleep(0)
    listening.end()
    assert () == await waiting
    assert () == await listening.next(0.01)
    await listening.close()


async def test_a_listener_is_told_of_all_workers_and_resumes_at_any(pair: tuple[Process, Process]) -> None:
    one, other = pair
    first = await one.listen()
    one.emit("a1")
    other.emit("a2")
    got = await collect(first, 2)
    assert ["a1", "a2"] == sorted(map(said, got))
    await first.close()
    for process, name in ((one, "b1"), (other, "b2")):
        process.emit(name)
    second = await other.listen(got[-1].id)
    for process, name in ((one, "c1"), (other, "c2")):
        process.emit(name)
    found = [said(each) for each in await collect(second, 4)]
    assert ["b1", "b2", "c1", "c2"] == sorted(found)
    assert found.index("b1") < found.index("c1")
    # What was cut in the middle goes on in the middle, at each of them.
    third = await one.listen(got[0].id)
    left = [said(each) for each in await collect(third, 5)]
    assert sorted(["b1", "b2", "c1", "c2", said(got[1])]) == sorted(left)
    await second.close()
    await third.close()


async def test_a_worker_that_does_not_answer_is_a_gap(pair: tuple[Process, Process]) -> None:
    one, other = pair
    other.answers = False
    listening = await one.listen()
    assert ["other_workers"] == [said(each) for each in await collect(listening, 1)]
    await listening.close()


async def test_a_worker_that_takes_anothers_place_is_found_with_all_that_it_has_seen(
    pair: tuple[Process, Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "LINK_SECONDS", 0.05)
    one, other = pair
    listening = await one.listen()
    other.emit("a")
    got = await collect(listening, 1)
    # As by SIGKILL: no farewell.
    for task in asyncio.all_tasks():
        if task.get_name() == "events of another worker":
            task.cancel()
    got += await collect(listening, 1)
    assert ["a", "worker_lost"] == [said(each) for each in got]
    one.others.clear()
    successor = Process(tmp_path, "1.1")
    successor.emit("b")
    one.others.append(successor)
    async with closing(successor):
        assert ["b"] == [said(each) for each in await collect(listening, 1)]
    await listening.close()


async def test_a_worker_that_ends_tells_all_before(pair: tuple[Process, Process]) -> None:
    one, other = pair
    listening = await one.listen()
    other.emit("a")
    await other.close()
    assert ["a"] == [said(each) for each in await collect(listening, 1)]
    one.emit("b")
    assert ["b"] == [said(each) for each in await collect(listening, 1)]
    assert 1 == len(parse_places(listening.place) or {})
    await listening.close()
