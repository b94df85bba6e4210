"""Many events to endpoints that are fast, slow, flaky, failing, redirecting, gone and dead, from a gateway that is killed in
the middle: a few hundred here, over ten thousand in a soak run (`make soak`)."""

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway_process import Gateway
from tests.integration.conftest import StartGateway
from tests.paced import Answered, ask
from tests.webhook_crowd import FORMER_SECRET, SECRET, Behaviour, Flaky, Hook, Slow, always, hook, takes
from webhooks.observer import Shed
from webhooks.outbox import Bounds
from webhooks.queue import MOST_AT_ONCE
from webhooks.schedule import DELAYS_SECONDS, JITTER

ECHO = "providers: [{name: echo, type: echo}]\n"
TAKE = ("fast", "flaky", "slow")
NEVER_TAKE = ("failing", "redirecting", "dead")
"""What comes for these is pending to the end."""
NAMES = (*TAKE, *NEVER_TAKE, "gone")
EXPECTED_LOG = (
    "keeps failing|answered 410|dead letters: .*`gone`|so further events are shed|that were to go to webhooks are shed"
)
APART, TOLD = 0, 1
"""The gateways that are asked in turn: one without webhooks, and one with them."""


@dataclass(frozen=True)
class Size:
    """How much of it, and how long that may take."""

    events: int
    per_second: float
    slow_seconds: float
    at_once: int
    """Deliveries to each endpoint at a time."""
    flaky_first: int
    """So many tries the flaky endpoint refuses at first."""
    hurries: bool
    """What is due later is made due by the test, and in the end every endpoint that takes anything does so at once."""
    seconds: float
    """For each step."""
    ratio: float
    """What half of the requests may take at most, against a gateway without webhooks."""

    @property
    def max_pending(self) -> int:
        return self.events * 4 // 5


# Whoever waited for the slow endpoint would take hundreds of times as long.
FEW = Size(500, 400, 2.0, 4, 3, hurries=True, seconds=120, ratio=20.0)
TEN_THOUSAND = Size(10_000, 500, 1.0, 100, 8, hurries=False, seconds=300, ratio=2.0)


class Crowd:
    """The endpoints, by name."""

    def __init__(self, size: Size, elsewhere: Hook, hooks: dict[str, Hook], dead_port: int) -> None:
        self.elsewhere = elsewhere
        self.hooks = hooks
        self._size = size
        urls = {name: each.url for name, each in hooks.items()} | {"dead": f"http://127.0.0.1:{dead_port}"}
        self.environment = {f"HOOK_{name.upper()}": url for name, url in urls.items()}
        self.environment |= {"HOOK_SECRET": SECRET, "FORMER_SECRET": FORMER_SECRET}

    def __getitem__(self, name: str) -> Hook:
        return self.hooks[name]

    @property
    def config(self) -> str:
        entries = "".join(
            f"  - {{name: {name}, url: '${{env:HOOK_{name.upper()}}}', secret: '${{env:HOOK_SECRET}}', "
            f"former_secrets: ['${{env:FORMER_SECRET}}'], events: [request.completed, request.failed], "
            f"concurrency: {1 if name == 'gone' else self._size.at_once}}}\n"
            for name in NAMES
        )
        bounds = f"{{max_pending: {self._size.max_pending}, max_delivered: {2 * self._size.events}}}"
        return f"{ECHO}webhook_delivery: {bounds}\nwebhooks:\n{entries}"


@asynccontextmanager
async def crowd(size: Size, slow: Slow, flaky: Flaky) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as opened:
        elsewhere = await opened.enter_async_context(hook(takes))
        behaviours: dict[str, Behaviour] = {
            "fast": takes,
            "slow": slow,
            "flaky": flaky,
            "failing": always(500),
            "redirecting": always(302, elsewhere.url),
            "gone": always(410),
        }
        # By the present secret and by the former one: receivers may know either.
        hooks = {
            name: await opened.enter_async_context(hook(behave, (SECRET, FORMER_SECRET)))
            for name, behave in behaviours.items()
        }
        with socket.socket() as nobody:
            # Bound and never listened on: connections to it are refused.
            nobody.bind(("127.0.0.1", 0))
            yield Crowd(size, elsewhere, hooks, nobody.getsockname()[1])


class Outbox:
    """What the database has of webhooks."""

    def __init__(self, running: Gateway) -> None:
        self._file = running.config.parent / "data/sluice.db"

    @contextlib.contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=60)) as connection, connection:
            yield connection

    def rows(self, sql: str, *values: object) -> list[Any]:
        with self.opened() as connection:
            found: list[Any] = connection.execute(sql, values).fetchall()
        return found

    def ids(self, webhook: str) -> set[str]:
        found = self.rows("SELECT event_id FROM webhook_deliveries WHERE webhook = ?", webhook)
        return {event_id for (event_id,) in found}

    def counts(self) -> Counter[tuple[str, str]]:
        """By webhook and state."""
        found = self.rows("SELECT webhook, state, count(*) FROM webhook_deliveries GROUP BY webhook, state")
        return Counter({(webhook, state): count for webhook, state, count in found})

    def request_ids(self) -> set[str]:
        """Of the requests that it has events of."""
        found = self.rows("SELECT payload FROM webhook_outbox")
        return {json.loads(payload)["data"]["request_id"] for (payload,) in found}

    def by_event(self) -> tuple[Counter[str], Counter[str]]:
        """Events and deliveries, by the event's name."""
        events = self.rows("SELECT type, count(*) FROM webhook_outbox GROUP BY type")
        deliveries = self.rows(
            "SELECT type, count(*) FROM webhook_deliveries JOIN webhook_outbox ON event_id = id GROUP BY type"
        )
        return Counter(dict(events)), Counter(dict(deliveries))

    def all_delivered(self) -> bool:
        counts = self.counts()
        return not any(counts[name, "pending"] for name in TAKE)

    def all_tried(self, webhook: str) -> bool:
        found = self.rows("SELECT count(*) FROM webhook_deliveries WHERE webhook = ? AND attempts = 0", webhook)
        return bool(found == [(0,)])


async def eventually(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until ``condition()``, which is asked in a thread, holds."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:g} s"
        await asyncio.sleep(0.05)


def waiting(running: Gateway) -> int:
    """Events in memory."""
    count: int = running.management("GET", "/api/v1/health").json()["webhooks"]["waiting"]
    return count


def of(gateway: int, answers: Sequence[Answered]) -> list[Answered]:
    return [one for one in answers if one.gateway == gateway]


def figures(answers: Sequence[Answered]) -> str:
    found = sorted(one.seconds * 1000 for one in answers)
    shown = {f"p{round(share * 100)}": found[int(len(found) * share)] for share in (0.5, 0.9, 0.99)}
    return ", ".join(f"{name} {value:.2f}" for name, value in {**shown, "longest": found[-1]}.items())


def check_delivered(hooks: Crowd, outbox: Outbox, committed: dict[str, set[str]], at_once: int) -> None:
    assert [] == [fault for each in hooks.hooks.values() for fault in each.faults]
    for name in TAKE:
        kept = outbox.ids(name)
        assert set() == committed[name] - kept
        assert set() == kept - hooks[name].taken, name
    # Twice no more than what was under way at the kill.
    assert len(hooks["fast"].taken) + max(MOST_AT_ONCE, at_once) >= hooks["fast"].tries.total()
    assert max(hooks["flaky"].tries.values()) > 1
    assert set() == hooks["failing"].taken | hooks["redirecting"].taken
    assert {"gone": 1, "elsewhere": 0} == {
        "gone": hooks["gone"].tries.total(),
        "elsewhere": hooks.elsewhere.tries.total(),
    }


def check_waiting(outbox: Outbox) -> None:
    """What was not taken waits for its next try, as the schedule says; what was for the gone endpoint is dead."""
    states = {(name, state) for name, state in outbox.counts() if name not in TAKE}
    assert {("gone", "dead")} | {(name, "pending") for name in NEVER_TAKE} == states
    rows = outbox.rows(
        "SELECT webhook, attempts, state_at - attempted_at FROM webhook_deliveries "
        "WHERE state = 'pending' AND attempts > 0 AND claim IS NULL"
    )
    for name in NEVER_TAKE:
        waits = [
            microseconds / 1e6 / DELAYS_SECONDS[attempts - 1]
            for webhook, attempts, microseconds in rows
            if webhook == name
        ]
        # One that was due, and given back because the endpoint is left alone, has waited for longer.
        assert 1 <= min(waits) <= 1 + JITTER, name


def check_accounts(
    running: Gateway, outbox: Outbox, answers: Sequence[Answered], before: tuple[Counter[str], Counter[str]]
) -> Counter[str]:
    """Each event is in the outbox for each webhook, or counted as shed, by name; gives the numbers of those by why."""
    names = Counter("request.failed" if one.status == 400 else "request.completed" for one in answers)
    events, deliveries = (now - then for now, then in zip(outbox.by_event(), before, strict=True))
    shed: Counter[str] = Counter()
    for name, count in names.items():
        assert events[name] == running.metric("sluice_webhook_events_total", event=name)
        of_name = Counter(
            {
                reason.value: round(running.metric("sluice_webhook_shed_total", event=name, reason=reason.value))
                for reason in Shed
            }
        )
        assert count * len(NAMES) == deliveries[name] + of_name.total()
        shed += of_name
    return shed


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(FEW, id="few"),
        # The slow endpoint takes its time, and so does what the killed process had in hand.
        pytest.param(TEN_THOUSAND, id="ten-thousand", marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
async def test_each_event_is_delivered_where_it_can_be_and_no_request_waits_for_it(
    start_gateway: StartGateway, size: Size
) -> None:
    slow, flaky = Slow(size.slow_seconds), Flaky(size.flaky_first)
    async with crowd(size, slow, flaky) as hooks:
        extra = hooks.environment
        apart, running = await asyncio.gather(
            asyncio.to_thread(start_gateway, ECHO, measured=True),
            asyncio.to_thread(start_gateway, hooks.config, extra=extra, measured=True),
        )
        running.expect_log(EXPECTED_LOG)
        running.abandon()
        outbox = Outbox(running)
        fast = hooks["fast"].taken

        # Killed in the middle of the load, some time after an endpoint has said that it is gone.
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask([apart, running], size.max_pending, size.per_second))
            await eventually(
                lambda: len(fast) >= size.events // 4 and "answered 410" in running.err, size.seconds, "the first"
            )
            running.signal(signal.SIGKILL)
            await running.ended()
        first = asking.result()
        committed = {name: outbox.ids(name) for name in NAMES}
        at_kill, before = outbox.counts(), outbox.by_event()
        unwritten = {one.request_id for one in of(TOLD, first)} - outbox.request_ids()

        # What was committed is there, and what comes is delivered beside it.
        if size.hurries:
            outbox.rows("UPDATE webhook_deliveries SET state_at = 0, attempts = 0 WHERE state = 'pending'")
            flaky.refuses = False
        later = await asyncio.to_thread(start_gateway, "", config=running.config, extra=extra, measured=True)
        later.expect_log(EXPECTED_LOG)
        # So many that more than `max_pending` wait for those that take nothing.
        second = await ask([apart, later], size.events - len(committed["dead"]), size.per_second)
        await eventually(lambda: outbox.ids("fast") <= fast, size.seconds, "all to the fast endpoint")
        behind = len(hooks["slow"].taken)
        assert behind < len(fast)

        # What comes from then on is shed for them.
        if size.hurries:
            later.signal(signal.SIGHUP)
        await eventually(lambda: "webhook `dead`: " in later.err, size.seconds, "too much for the dead endpoint")
        third = await ask([apart, later], size.events // 20, size.per_second)
        told = of(TOLD, [*second, *third])
        assert size.events + size.events // 20 == len(committed["dead"]) + len(told)
        if size.hurries:
            slow.seconds = 0.0
        began = time.monotonic()
        await eventually(lambda: not waiting(later), size.seconds, "the end of all writing")
        await eventually(outbox.all_delivered, size.seconds, "all to whoever takes it")
        await eventually(lambda: outbox.all_tried("redirecting"), size.seconds, "all to the redirecting endpoint")

        check_delivered(hooks, outbox, committed, size.at_once)
        check_waiting(outbox)
        shed = check_accounts(later, outbox, told, before)
        assert [0, True, True, 0] == [shed["full"], shed["backlog"] > 0, shed["disabled"] > 0, shed["fault"]]

        taken = {
            gateway: [[one for one in of(gateway, some) if one.status == 200] for some in (first, second)]
            for gateway in (TOLD, APART)
        }
        tries = {name: each.tries.total() for name, each in hooks.hooks.items()}
        for words, some in zip(("before the kill", "after it, while all that waits is delivered"), (0, 1), strict=True):
            print(f"\nms {words}: {figures(taken[TOLD][some])}; without webhooks: {figures(taken[APART][some])}")
        print(
            f"killed with {at_kill}, and {len(unwritten)} events in memory\nfast had {len(fast)} when slow had {behind}; the "
            f"rest took {time.monotonic() - began:.0f} s\ntries: {tries}\n{outbox.counts()}\nshed: {dict(shed)}"
        )
        medians = [
            statistics.median(one.seconds for some in taken[gateway] for one in some) for gateway in (TOLD, APART)
        ]
        # The thousandth for what both wait for alike.
        assert medians[0] <= medians[1] * size.ratio + 0.001


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_beyond_what_memory_may_hold_events_are_counted_and_no_request_waits_for_the_database(
    start_gateway: StartGateway,
) -> None:
    most = Bounds().events
    async with hook(takes) as receiver:
        extra = {"HOOK": receiver.url, "HOOK_SECRET": SECRET}
        entry = (
            "{name: ops, url: '${env:HOOK}', secret: '${env:HOOK_SECRET}', concurrency: 20, "
            "events: [request.completed, request.failed]}"
        )
        text = f"{ECHO}usage: {{ledger: false}}\nwebhooks: [{entry}]\n"
        running = await asyncio.to_thread(start_gateway, text, extra=extra, measured=True)
        running.expect_log(
            "wait in memory for the database|webhooks wait for the database|that were to go to webhooks are shed"
        )
        outbox = Outbox(running)
        assert 200 == (await asyncio.to_thread(running.chat, "echo/first")).status
        await eventually(lambda: receiver.taken, 30, "the first")
        began = time.monotonic()
        with outbox.opened() as locked:
            locked.execute("BEGIN IMMEDIATE")
            some = await asyncio.gather(*(ask([running], most * 3 // 5, 10_000) for _ in range(2)))
            locked.rollback()
        answers = [one for each in some for one in each]
        took = time.monotonic() - began
        await eventually(lambda: len(receiver.taken) == len(outbox.ids("ops")) > most, 120, "all that was written")
        written = running.metric("sluice_webhook_events_total")
        shed = running.metric("sluice_webhook_shed_total")
        assert 1 + len(answers) == written + shed
        assert shed == running.metric("sluice_webhook_shed_total", reason="full") > 0
        assert written == len(receiver.taken)
        print(f"\n{len(answers)} requests in {took:.0f} s, ms: {figures(answers)}\nwritten {written:g}, shed {shed:g}")
