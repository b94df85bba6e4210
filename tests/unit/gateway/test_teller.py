"""Which of several workers tells a fact: each is told once, whoever comes to know of it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from core.events import (
    EVENTS,
    AddressLockedOut,
    ConfigApplied,
    ConfigRejected,
    ConfigRolledBack,
    Event,
    Events,
    GatewayStarted,
    GatewayStopping,
    ProviderDown,
    RequestCompleted,
    RequestStarted,
    SecretRotated,
    TokenRevoked,
)
from core.secret import Secret
from gateway import teller as teller_module
from gateway.teller import Teller
from webhooks.delivery import Limits
from webhooks.endpoint import Endpoint
from webhooks.service import Webhooks
from webhooks.subscriptions import Subscription, Subscriptions

STARTED = GatewayStarted(address="a", revision="one")
STOPPING = GatewayStopping(reason="signal")


class Offered:
    """Stands for the outbox: keeps what it is offered. What is under test is who offers."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def follow(self, endpoints: Sequence[Endpoint], limits: Limits) -> frozenset[type[Event]]:
        return Subscriptions(endpoint.subscription for endpoint in endpoints).kinds

    def offer(self, event: Event) -> None:
        self.got.append(event)

    async def commit_now(self) -> bool:
        await asyncio.Event().wait()
        return True


class Process:
    """One worker, or the one process."""

    def __init__(self, worker: str | None, *globs: str) -> None:
        self.events = Events()
        self.offered = Offered()
        self.teller = Teller(self.events, worker, lambda: cast(Webhooks, self.offered))
        self.follow(*globs or ("*",))

    def follow(self, *globs: str) -> None:
        endpoint = Endpoint(
            name="ops",
            url="https://h",
            secrets=(Secret.literal("x"),),
            subscription=Subscription(webhook="ops", events=globs),
        )
        self.teller.follow([endpoint] if globs != ("",) else [], Limits())

    def emit(self, *events: Event) -> None:
        for event in events:
            self.events.emit(event)

    @property
    def told(self) -> list[Event]:
        return self.offered.got


def begun(worker: str | None, *globs: str) -> Process:
    process = Process(worker, *globs)
    process.teller.begin()
    return process


def applied(trigger: str, revision: str = "one") -> ConfigApplied:
    return ConfigApplied(revision=revision, trigger=trigger, duration_seconds=0.1)


def rejected(trigger: str) -> ConfigRejected:
    return ConfigRejected(trigger=trigger, faults=("x",))


ROLLED_BACK = ConfigRolledBack(revision="two", restored="one", reason="asked")
LOCKED_OUT = AddressLockedOut(address="192.0.2.1", seconds=60)
REVOKED = TokenRevoked(token_id="tok_1", token="t", by="admin")
DOWN = ProviderDown(provider="p", reason="r", failures=3)
ROTATED = SecretRotated(reference="${vault:a#b}")
WORKERS = (None, "0.0", "0.1", "1.0", "1.1")


@pytest.mark.parametrize(
    ("event", "tellers"),
    [
        (STARTED, {None, "0.0"}),
        (STOPPING, {None, "0.0", "0.1"}),
        (ROTATED, {None, "0.0", "0.1"}),
        (rejected("watch"), {None, "0.0", "0.1"}),
        (rejected("signal"), {None, "0.0", "0.1"}),
        (applied("api"), set(WORKERS)),
        (applied("restore"), set(WORKERS)),
        (applied("rollback"), set(WORKERS)),
        (rejected("api"), set(WORKERS)),
        (ROLLED_BACK, set(WORKERS)),
        (REVOKED, set(WORKERS)),
        (LOCKED_OUT, set(WORKERS)),
        (DOWN, set(WORKERS)),
    ],
    ids=lambda value: f"{value.name} {getattr(value, 'trigger', '')}".strip() if isinstance(value, Event) else None,
)
async def test_who_tells(event: Event, tellers: set[str | None]) -> None:
    told = set()
    for worker in WORKERS:
        process = begun(worker)
        assert (worker in tellers) is process.teller.tells(event)
        process.emit(event)
        if [event] == process.told:
            told.add(worker)
        else:
            assert [] == process.told
    assert tellers == told


@pytest.mark.parametrize("worker", ["0.0", "1.0"])
async def test_what_a_worker_does_for_another_is_the_others_to_tell(worker: str) -> None:
    process = begun(worker)

    async def task() -> None:
        with process.teller.following():
            await asyncio.sleep(0)
            assert not process.teller.tells(applied("api"))
            process.emit(applied("api"), rejected("api"))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(task())
        # Meanwhile it is asked for something itself.
        process.emit(applied("restore", "two"))
    assert [applied("restore", "two")] == process.told


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Waits until what is held has been told."""
    monkeypatch.setattr(teller_module, "SETTLE_SECONDS", 0.05)
    return lambda: asyncio.sleep(0.1)


async def test_the_first_worker_tells_of_a_file_once_no_other_can_have_written_it(settle: Callable[[], Any]) -> None:
    first, second = begun("0.0"), begun("1.0")
    for process in (first, second):
        process.emit(applied("watch"))
        assert [] == process.told
    await settle()
    assert [applied("watch")] == first.told
    assert [] == second.told


async def test_a_file_that_another_worker_has_written_is_told_by_that_one_alone(settle: Callable[[], Any]) -> None:
    process = begun("0.0")
    process.emit(applied("watch", "theirs"), applied("watch", "ours"))
    process.teller.known("theirs")
    await settle()
    assert [applied("watch", "ours")] == process.told
    process.emit(applied("watch", "theirs"))
    with process.teller.following():
        process.emit(applied("api", "theirs"))
    await settle()
    assert [applied("watch", "ours")] == process.told


async def test_what_is_held_is_told_before_the_end_and_nothing_after_it() -> None:
    process = begun("0.0")
    process.emit(applied("watch"), applied("signal"))
    assert [applied("watch")] == process.told
    process.teller.close()
    process.emit(DOWN, applied("api"), STOPPING)
    assert [applied("watch"), applied("signal")] == process.told


async def test_before_the_beginning_nothing_is_told_but_what_was_put_in_force() -> None:
    for worker, expected in {None: [applied("start")], "0.0": [applied("start")], "0.1": [], "1.0": []}.items():
        process = Process(worker)
        process.emit(applied("start"), DOWN, STARTED)
        assert ([], 0) == (process.told, process.offered.started)
        process.teller.begin()
        assert (expected, 1) == (process.told, process.offered.started)
        process.emit(DOWN)
        assert [*expected, DOWN] == process.told


async def test_events_that_nobody_wants_have_no_observer() -> None:
    process = begun(None, "config.*", "credential.*")

    def observed() -> set[str]:
        return {kind.name for kind in EVENTS if process.events._observers.get(kind)}

    assert {"config", "credential"} == {name.partition(".")[0] for name in observed()}
    process.follow("request.completed", "config.applied")
    assert {RequestCompleted.name, ConfigApplied.name} == observed()
    process.emit(RequestStarted(endpoint="x"), rejected("api"), applied("api"))
    assert [applied("api")] == process.told
    process.follow("")
    assert set() == observed()


async def test_no_answer_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller_module, "MOST_SECONDS", 0.01)
    assert await Process(None).teller.settle() is True
    assert await begun(None).teller.settle() is False
