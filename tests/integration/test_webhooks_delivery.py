"""The delivery of events to real endpoints: fast, slow, failing, redirecting, gone, and none at all."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.clock import ManualClock, SystemClock
from core.events import (
    ConfigApplied,
    Event,
    Events,
    GatewayStopping,
    ProviderDown,
    RequestStarted,
)
from core.secret import Secret
from core.tasks import Tasks
from storage.database import Database
from storage.errors import NotFound
from storage.records import Page
from storage.webhook_records import OutboxEvent, StoredDelivery
from storage.webhooks import WebhookStore
from tests.authority import Authority
from tests.conftest import ExpectLog
from tests.databases import PostgreSQL
from tests.integration.conftest import NewDatabase, NewUrl
from tests.planted import place_of_secrets
from tests.ports import closed_port
from tests.provider import Call
from tests.webhook_receiver import SECRET, Receiver, cut, first, receiver, silent, slow, status
from transport.client import HttpClient
from transport.messages import ConnectionOptions
from webhooks.delivery import Limits
from webhooks.endpoint import Endpoint
from webhooks.observer import Observer, Shed
from webhooks.schedule import Outcome
from webhooks.service import WebhookDisabled, Webhooks
from webhooks.signing import new_secret


class Told(Observer):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.of_shed: dict[tuple[str, str], int] = {}
        self.outcomes: list[tuple[str, Outcome]] = []
        self.dead: dict[tuple[str, str], int] = {}
        self.writes: dict[str, int] = {}
        self.waiting: dict[str, int] = {}

    def written(self, event_name: str, count: int) -> None:
        self.writes[event_name] = self.writes.get(event_name, 0) + count

    def shed(self, event_name: str, why: Shed, count: int) -> None:
        key = event_name, why.value
        self.of_shed[key] = self.of_shed.get(key, 0) + count

    def tried(self, webhook: str, outcome: Outcome) -> None:
        self.outcomes.append((webhook, outcome))

    def given_up(self, webhook: str, failure: str, count: int) -> None:
        self.dead[webhook, failure] = self.dead.get((webhook, failure), 0) + count

    def pending(self, webhook: str, count: int) -> None:
        self.waiting[webhook] = count


class Running:
    """Webhooks at work."""

    def __init__(
        self,
        made: Webhooks,
        database: Database,
        told: Told,
        clock: ManualClock | SystemClock,
        log: pytest.LogCaptureFixture,
    ) -> None:
        self.webhooks = made
        self.store = WebhookStore(database)
        self.database = database
        self.told = told
        self.clock = clock
        self._log = log
        self.events = Events()
        self.events.subscribe(made.offer)

    def emit(self, *events: Event) -> None:
        for event in events:
            self.events.emit(event)

    def advance(self, seconds: float) -> None:
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)
        self.webhooks.deliverer.look()

    async def listed(self, name: str = "ops") -> tuple[StoredDelivery, ...]:
        found: Page[StoredDelivery] = await self.webhooks.deliveries(name, limit=1000)
        return found.entries

    async def states(self, name: str = "ops") -> list[str]:
        return sorted(one.state for one in await self.listed(name))

    async def until_logged(self, text: str) -> None:
        """The log has been told it, which is the last thing of all that becomes of a delivery."""
        await self.until(lambda: any(text in record.getMessage() for record in self._log.records))

    async def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_tried(self) -> None:
        """Its one delivery has been tried, and the database knows."""
        await self.until_tries(1)

    async def until_tries(self, count: int) -> None:
        """So many tries have ended, and the database knows of all."""
        async with asyncio.timeout(60):
            while count > sum([one.attempts for one in await self.listed()]):
                await asyncio.sleep(0.01)

    async def until_failures(self, expected: set[str | None], name: str) -> None:
        """The database knows why deliveries to this one have failed."""
        async with asyncio.timeout(60):
            while expected != {one.failure for one in await self.listed(name)}:
                await asyncio.sleep(0.01)

    async def until_states(self, expected: list[str], name: str = "ops", seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while expected != (found := await self.states(name)):
                await asyncio.sleep(0.02)
                assert isinstance(found, list)


Start = Callable[..., Running]


@pytest.fixture
async def start(
    new_url: NewUrl, new_database: NewDatabase, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Start]:
    """``start(*endpoints)``: webhooks on a new database, whose clock stands still unless it is told."""
    async with contextlib.AsyncExitStack() as running:

        def begin(
            *endpoints: Endpoint, kind: str = "sqlite", database: Database | None = None, **options: Any
        ) -> Running:
            used = database or new_database(kind)
            store = WebhookStore(used)

            async def opened() -> WebhookStore:
                return store

            client = HttpClient()
            running.push_async_callback(client.close)
            told = Told()
            # Receivers look at the time that is signed.
            clock.advance(SystemClock().time() - clock.time())
            made = Webhooks(opened, lambda: True, tmp_path / "spool", client, clock, lambda: 0.0, told, **options)
            running.push_async_callback(made.close)
            made.start()
            made.follow(endpoints)
            return Running(made, used, told, clock, caplog)

        yield begin


def numbered(count: int) -> list[Event]:
    return [GatewayStopping(reason=str(number)) for number in range(count)]


async def test_an_event_comes_to_the_endpoint_as_it_happened_and_signed(start: Start, kind: str) -> None:
    async with receiver() as hook:
        running = start(hook.endpoint(), kind=kind)
        running.emit(ProviderDown(provider="openai", reason="upstream_timeout", failures=3))
        await running.until_states(["delivered"])
        ((event_id, payload),) = hook.got
        assert {"provider": "openai", "reason": "upstream_timeout", "failures": 3} == payload["data"]
        assert ("provider.down", "evt_", 28) == (payload["type"], event_id[:4], len(event_id))
        (call,) = hook.calls
        assert ("POST", "/hook", "application/json", "sluice-webhooks") == (
            call.method,
            call.path,
            call.headers["content-type"],
            call.headers["user-agent"],
        )
        (shown,) = await running.listed()
        assert (event_id, 204, 1, None) == (shown.event_id, shown.status, shown.attempts, shown.failure)
        assert {"provider.down": 1} == running.told.writes


async def test_each_endpoint_is_told_what_it_wants_and_no_more(start: Start) -> None:
    async with receiver() as one, receiver() as other:
        running = start(
            one.endpoint("one", events=("config.*",)),
            other.endpoint("other", events=("*",), match={"reason": ("1?",)}),
        )
        running.emit(
            *numbered(20),
            ConfigApplied(revision="ab", trigger="api", duration_seconds=0.1),
            RequestStarted(endpoint="x"),
        )
        await running.until(lambda: 10 == len(other.got) and 1 == len(one.got))
        assert {str(number) for number in range(10, 20)} == {payload["data"]["reason"] for _, payload in other.got}
        assert {"gateway.stopping": 10, "config.applied": 1} == running.told.writes


async def test_of_endpoints_that_are_fast_slow_failing_redirecting_and_gone_each_gets_what_it_can(
    start: Start, kind: str, expect_log: ExpectLog
) -> None:
    count = 200
    released = asyncio.Event()

    async def slow_until_released(hook: Receiver, call: Call) -> None:
        await released.wait()
        await status(204)(hook, call)

    async with contextlib.AsyncExitStack() as hooks:
        made = {
            "fast": status(200),
            "slow": slow_until_released,
            "flaky": first([status(500), cut, status(503, {"retry-after": "0"})], then=status(204)),
            "failing": status(500),
            "redirecting": status(307, {"location": "http://127.0.0.1:1/"}),
            "gone": status(410),
        }
        receivers = {name: await hooks.enter_async_context(receiver(answer)) for name, answer in made.items()}
        nowhere = receivers["fast"].endpoint("nowhere", port=hooks.enter_context(closed_port()))
        endpoints = [hook.endpoint(name, timeout_seconds=120.0) for name, hook in receivers.items()]
        running = start(*endpoints, nowhere, kind=kind)
        with (
            expect_log("webhook `failing` keeps failing"),
            expect_log("webhook `nowhere` keeps failing"),
            expect_log("webhook `gone` answered 410"),
            expect_log(r"dead letters: .* of webhook `gone` \(gone\)"),
        ):
            running.emit(*numbered(count))
            # Nothing waits for the slow one, which takes none meanwhile.
            await running.until(lambda: count == len(receivers["fast"].taken))
            await running.until_states(["dead"] * count, "gone")
            await running.until(lambda: count == len(receivers["redirecting"].got))
            await running.until(lambda: count - 3 == len(receivers["flaky"].taken))
            # The first of the gone ones and those that were under way with it.
            assert 2 >= len(receivers["gone"].got)
            assert 20 > len(receivers["failing"].got)
            for name in ("failing", "nowhere"):
                await running.until_logged(f"webhook `{name}` keeps failing")
            await running.until_failures({None, "unreachable"}, "nowhere")
            assert 0 == len(receivers["slow"].taken)
            released.set()
            running.advance(6)
            await running.until(lambda: count == len(receivers["flaky"].taken))
            await running.until(lambda: count == len(receivers["slow"].taken))
        for name in ("fast", "slow", "flaky"):
            await running.until_states(["delivered"] * count, name)
            assert {event_id for event_id, _ in receivers[name].got} == set(receivers[name].taken)
        # One that is asked again is sent the same: what was verified is what is compared.
        for hook in receivers.values():
            assert len({event_id for event_id, _ in hook.got}) == len({str(got) for got in hook.got})
        await running.until_failures({"redirected"}, "redirecting")
        await running.until_failures({"gone", "disabled"}, "gone")
        # What is shed for an endpoint that is gone is counted, by name.
        running.emit(GatewayStopping(reason="after"))
        await running.until(lambda: count + 1 == len(receivers["fast"].taken))
        assert {("gateway.stopping", "disabled"): 1} == running.told.of_shed
        # The log is told of dead letters once in a while.
        with expect_log(r"dead letters: .* of webhook `gone` \(disabled\)"):
            await running.webhooks.close()


async def test_a_failed_delivery_is_tried_on_its_schedule_with_the_same_id_and_given_up_at_its_end(
    start: Start, expect_log: ExpectLog
) -> None:
    async with receiver(status(404)) as hook:
        running = start(hook.endpoint())
        running.emit(GatewayStopping(reason="x"))
        await running.until(lambda: hook.got)
        delays = []
        with expect_log(r"dead letters: 1 of webhook `ops` \(status\)"):
            for attempts in range(1, 11):
                async with asyncio.timeout(60):
                    while (shown := (await running.listed())[0]).attempts < attempts:
                        await asyncio.sleep(0.01)
                if shown.state == "dead":
                    break
                assert shown.attempted_at is not None
                delays.append((shown.state_at - shown.attempted_at) / 1_000_000)
                # Receivers take no signature of another day: it is this clock that goes on, and the schedule that is short of it.
                async with running.database.transaction() as connection:
                    await connection.execute(text("UPDATE webhook_deliveries SET state_at = 0"))
                running.webhooks.deliverer.look()
            await running.until_logged("1 of webhook `ops` (status)")
        assert [5, 60, 300, 1800, 3600, 7200, 14400, 21600, 28800] == delays
        assert ("dead", 10, 404, "status") == (shown.state, shown.attempts, shown.status, shown.failure)
        assert 10 == len(hook.got)
        assert 1 == len(set(hook.ids))
        assert {("ops", "status"): 1} == running.told.dead
        # Asked for again, it begins anew.
        hook.answer = status(200)
        assert 1 == await running.webhooks.redeliver_dead("ops", 0)
        await running.until_states(["delivered"])
        assert 1 == len(set(hook.ids))


async def test_an_endpoint_that_is_silent_delays_only_itself(start: Start, expect_log: ExpectLog) -> None:
    async with receiver(silent) as mute, receiver() as hook:
        running = start(mute.endpoint("mute", timeout_seconds=0.2), hook.endpoint())
        with expect_log(r"webhook `mute` keeps failing \(timeout\)"):
            running.emit(*numbered(50))
            await running.until_states(["delivered"] * 50)
            async with asyncio.timeout(60):
                # The log is told before the database is.
                while 5 > sum(one.failure == "timeout" for one in await running.listed("mute")):
                    await asyncio.sleep(0.01)
        assert not running.webhooks.state("ops").failing
        assert 6 >= len(mute.got)
        mute.answer = status(200)
        running.webhooks.follow([mute.endpoint("mute"), hook.endpoint()])
        running.advance(6)
        await running.until_states(["delivered"] * 50, "mute")
        assert not running.webhooks.state("mute").failing


async def test_no_more_are_under_way_than_may_and_connections_are_kept(start: Start) -> None:
    async def three_together(hook: Receiver, call: Call) -> None:
        while hook.most_under_way < 3:
            await asyncio.sleep(0.01)
        await slow(0.01)(hook, call)

    async with receiver(three_together) as hook:
        running = start(hook.endpoint(concurrency=3, timeout_seconds=120.0))
        running.emit(*numbered(60))
        await running.until_states(["delivered"] * 60)
        assert 3 == hook.most_under_way
        assert 3 >= len(hook.connections)


async def test_many_at_a_time_are_begun_one_by_one_so_that_nothing_else_waits_for_them(start: Start) -> None:
    count, turns = 50, 0
    begun: list[int] = []

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def read() -> str:
        begun.append(turns)
        return SECRET

    async def all_together(hook: Receiver, call: Call) -> None:
        while hook.most_under_way < count:
            await asyncio.sleep(0.01)
        await status(204)(hook, call)

    tasks = Tasks()
    async with receiver(all_together) as hook:
        tasks.spawn(turn(), "turns")
        running = start(hook.endpoint(concurrency=count, secrets=(Secret(read, "counted"),)))
        running.emit(*numbered(count))
        await running.until_states(["delivered"] * count)
        await tasks.cancel()
    assert count == len(set(begun)) == len(begun)


async def test_an_answers_body_is_not_read_to_its_end_and_changes_nothing(start: Start) -> None:
    async def endless(hook: Receiver, call: Any) -> None:
        await call.stream()
        hook.taken[call.headers["webhook-id"]] += 1
        with contextlib.suppress(OSError):
            while True:
                await call.event(b"x" * 65536)

    async with receiver(endless) as hook:
        running = start(hook.endpoint())
        running.emit(*numbered(3))
        await running.until_states(["delivered"] * 3)
        assert 3 == len(hook.taken)


async def test_a_private_address_is_refused_where_it_is_forbidden(start: Start) -> None:
    async with receiver() as hook:
        running = start(hook.endpoint(options=ConnectionOptions(allow_private=False)))
        running.emit(GatewayStopping(reason="x"))
        await running.until_tried()
        assert "private_address" == (await running.listed())[0].failure
        assert [] == hook.got


async def test_a_certificate_that_is_not_to_be_trusted_ends_it_before_anything_is_sent(
    start: Start, tmp_path: Path
) -> None:
    authority = Authority()
    certificate, trusted = place_of_secrets(tmp_path / "server.pem"), tmp_path / "authority.pem"
    certificate.write_bytes(authority.issue("127.0.0.1"))
    trusted.write_bytes(authority.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with receiver(tls=tls) as hook:
        running = start(hook.endpoint())
        running.emit(GatewayStopping(reason="x"))
        await running.until_tried()
        assert "tls" == (await running.listed())[0].failure
        assert [] == hook.got
        running.webhooks.follow([hook.endpoint(options=ConnectionOptions(ca_file=str(trusted)))])
        running.advance(6)
        await running.until_states(["delivered"])


async def test_a_secret_that_cannot_be_had_sends_nothing_and_is_not_shown(
    start: Start, expect_log: ExpectLog, planted_secret: str
) -> None:
    def fail() -> str:
        raise RuntimeError(planted_secret)

    async with receiver() as hook:
        good = hook.endpoint()
        bad = Endpoint(name="ops", url=good.url, secrets=(Secret(fail, "vault"),), subscription=good.subscription)
        running = start(bad)
        with expect_log("webhook `ops` cannot be signed for: RuntimeError", level=40):
            running.emit(GatewayStopping(reason="x"))
            await running.until_tried()
        assert [] == hook.got
        # Mended, it goes with the next try.
        running.webhooks.follow([good])
        running.advance(6)
        await running.until_states(["delivered"])


async def test_after_a_change_of_secret_both_are_signed_with(start: Start) -> None:
    async with receiver() as hook:
        endpoint = hook.endpoint()
        new = (Secret.literal(new_secret()), *endpoint.secrets)
        running = start(Endpoint(name="ops", url=endpoint.url, secrets=new, subscription=endpoint.subscription))
        running.emit(GatewayStopping(reason="x"))
        await running.until_states(["delivered"])
        assert 2 == len(hook.calls[0].headers["webhook-signature"].split(" "))


async def test_an_endpoint_that_was_gone_is_told_again_at_another_url(start: Start, expect_log: ExpectLog) -> None:
    async with receiver(status(410)) as gone, receiver() as hook:
        running = start(gone.endpoint())
        with expect_log("webhook `ops` answered 410"), expect_log(r"1 of webhook `ops` \(gone\)"):
            running.emit(GatewayStopping(reason="x"))
            await running.until_logged("webhook `ops` answered 410")
        running.emit(GatewayStopping(reason="unheard"))
        # What was on its way into the outbox is not sent either.
        late = OutboxEvent(id="evt_late", type="x", at=running.database.now(), payload="{}", webhooks=("ops",))
        await running.store.add([late])
        running.webhooks.deliverer.wake(["ops"])
        await running.until_states(["dead"] * 2)
        assert 1 == len(gone.got)
        # The same again is no other one.
        running.webhooks.follow([gone.endpoint()])
        await asyncio.sleep(0.1)
        assert running.webhooks.state("ops").disabled_since
        running.webhooks.follow([hook.endpoint()])
        await running.until(lambda: running.webhooks.state("ops").disabled_since is None)
        running.emit(GatewayStopping(reason="heard"))
        await running.until(lambda: hook.got)
        assert ["heard"] == [payload["data"]["reason"] for _, payload in hook.got]
        with expect_log(r"1 of webhook `ops` \(disabled\)"):
            await running.webhooks.close()


async def test_an_endpoint_that_was_gone_before_the_start_is_not_asked_again(
    start: Start, expect_log: ExpectLog, database: Database
) -> None:
    event = OutboxEvent(id="evt_waits", type="gateway.stopping", at=1, payload="{}", webhooks=("ops",))
    async with receiver() as hook:
        endpoint = hook.endpoint()
        store = WebhookStore(database)
        await store.disable("ops", endpoint.address)
        await store.add((event,))
        with expect_log(r"1 of webhook `ops` \(disabled\)"):
            running = start(endpoint, database=database)
            # What comes at once does not wait for the first look at what is due.
            running.webhooks.deliverer.wake(("ops",))
            await running.until_states(["dead"])
            await running.until_logged("1 of webhook `ops` (disabled)")
        assert [] == hook.got


async def test_a_test_tells_what_came_of_it_and_enables_an_endpoint_that_takes_it(
    start: Start, expect_log: ExpectLog
) -> None:
    async with receiver(status(410)) as hook:
        running = start(hook.endpoint())
        with expect_log("webhook `ops` answered 410"), expect_log(r"1 of webhook `ops` \(gone\)"):
            running.emit(GatewayStopping(reason="x"))
            await running.until_logged("webhook `ops` answered 410")
        failed = await running.webhooks.test("ops")
        assert ("webhook.test", "dead", 410, "gone", 1) == (
            failed.type,
            failed.state,
            failed.status,
            failed.failure,
            failed.attempts,
        )
        assert running.webhooks.state("ops").disabled_since
        with pytest.raises(WebhookDisabled, match="`ops` has answered 410: change its url, or test it"):
            await running.webhooks.redeliver("ops", [failed.event_id])
        with pytest.raises(WebhookDisabled):
            await running.webhooks.redeliver_dead("ops", 0)
        hook.answer = status(200)
        made = await running.webhooks.test("ops")
        assert ("delivered", 200, None) == (made.state, made.status, made.failure)
        assert None is running.webhooks.state("ops").disabled_since
        assert {"webhook": "ops"} == hook.got[-1][1]["data"]
        shown, payload = await running.webhooks.delivery("ops", made.event_id)
        assert (made, True) == (shown, '"webhook.test"' in payload)
        running.emit(GatewayStopping(reason="again"))
        assert 2 == await running.webhooks.redeliver_dead("ops", 0)
        await running.until(lambda: 6 == len(hook.got))
        with pytest.raises(NotFound, match="no webhook `other`"):
            await running.webhooks.test("other")
        with pytest.raises(NotFound, match="no delivery of `evt_x`"):
            await running.webhooks.delivery("ops", "evt_x")


async def test_what_waits_for_over_a_day_for_an_endpoint_that_keeps_failing_is_given_up(
    start: Start, expect_log: ExpectLog
) -> None:
    async with receiver(status(503)) as hook:
        running = start(hook.endpoint())
        with expect_log("keeps failing"), expect_log(r"dead letters: 30 of webhook `ops` \(overdue\)"):
            running.emit(*numbered(30))
            await running.until_logged("webhook `ops` keeps failing")
            # From the last try on it is left alone, by a clock that stands still until all are noted.
            await running.until_tries(len(hook.got))
            async with running.database.transaction() as connection:
                from sqlalchemy import text  # noqa: PLC0415  large

                await connection.execute(text("UPDATE webhook_deliveries SET at = at - 86401000000"))
            running.advance(2)
            await running.until_states(["dead"] * 30)
            await running.until_logged("30 of webhook `ops` (overdue)")
        assert 7 >= len(hook.got)
        hook.answer = status(200)
        assert 30 == await running.webhooks.redeliver_dead("ops", 0)
        running.advance(5)
        await running.until_states(["delivered"] * 30)


async def test_beyond_a_backlog_events_are_shed_by_name_but_not_those_that_must_be_kept(
    start: Start, expect_log: ExpectLog
) -> None:
    async with receiver(status(404)) as hook:
        running = start(hook.endpoint(), limits=Limits(pending=10))
        running.emit(*numbered(11))
        with expect_log("webhook `ops`: 11 deliveries wait for it"), expect_log(r"3 of gateway\.stopping \(backlog\)"):
            await running.until(lambda: 11 == len(hook.got))
            running.webhooks.deliverer.look()
            await running.until(lambda: running.webhooks.deliverer.refused)
            running.emit(*numbered(3), ConfigApplied(revision="ab", trigger="api", duration_seconds=0.1))
            await running.until(lambda: 12 == len(hook.got))
        assert {("gateway.stopping", "backlog"): 3} == running.told.of_shed
        # From each try on it is five seconds to the next, by a clock that stands still until all are noted.
        async with asyncio.timeout(60):
            while not all(one.attempts for one in await running.listed()):
                await asyncio.sleep(0.02)
        hook.answer = status(200)
        running.advance(6)
        await running.until_states(["delivered"] * 12)
        running.webhooks.deliverer.look()
        await running.until(lambda: not running.webhooks.deliverer.refused)


async def test_the_queue_of_a_webhook_that_was_taken_out_waits_for_it_and_is_then_given_up(
    start: Start, expect_log: ExpectLog
) -> None:
    async with receiver(status(404)) as hook:
        running = start(hook.endpoint(), hook.endpoint("other", events=("config.*",)))
        running.emit(*numbered(2))
        await running.until(lambda: 2 == len(hook.got))
        running.webhooks.follow([hook.endpoint("other")])
        running.advance(61)
        await asyncio.sleep(0.2)
        assert ["pending"] * 2 == await running.states()
        with expect_log(r"dead letters: 2 of webhook `ops` \(removed\)"):
            running.advance(86400)
            await running.until_states(["dead"] * 2)
            await running.until_logged("2 of webhook `ops` (removed)")


async def test_several_processes_share_the_work_and_none_is_delivered_twice(
    start: Start, kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind)
    async with receiver() as hook:
        all_running = [start(hook.endpoint(), database=new_database(kind, url=url)) for _ in range(3)]
        for each in all_running:
            each.emit(*numbered(100))
        await all_running[0].until_states(["delivered"] * 300)
        assert 300 == len(hook.got) == len(set(hook.ids))


async def test_a_shutdown_lets_what_is_under_way_end_and_leaves_the_rest_for_the_next(
    start: Start, new_database: NewDatabase, new_url: NewUrl
) -> None:
    url = new_url("sqlite")
    async with receiver(slow(0.1)) as hook:
        first_one = start(hook.endpoint(concurrency=1), database=new_database("sqlite", url=url))
        first_one.emit(*numbered(10))
        await first_one.until(lambda: hook.got)
        await first_one.webhooks.close()
        assert 0 == hook.under_way
        assert len(hook.got) == (await first_one.states()).count("delivered")
        hook.answer = status(200)
        second = start(hook.endpoint(), database=new_database("sqlite", url=url))
        await second.until_states(["delivered"] * 10)
        assert 10 == len(hook.got)


async def garbage(hook: Receiver, call: Any) -> None:
    await call.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    call.close()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (status(500), "status"),
        (status(302, {"location": "/elsewhere"}), "redirected"),
        (cut, "disconnected"),
        (garbage, "malformed"),
        (silent, "timeout"),
    ],
)
async def test_a_try_that_fails_says_in_a_word_why(start: Start, answer: Any, failure: str) -> None:
    async with receiver(answer) as hook:
        running = start(hook.endpoint(timeout_seconds=0.2 if answer is silent else 60.0))
        running.emit(GatewayStopping(reason="x"))
        await running.until_tried()
        (shown,) = await running.listed()
        assert ("pending", failure, 1) == (shown.state, shown.failure, shown.attempts)
        assert running.webhooks.failure_words(failure)
        # It is a try though the time was over before it came.
        assert 1 == len(hook.got) or (answer is silent and not hook.got)


async def test_what_a_process_does_not_come_to_in_its_time_it_gives_back(start: Start) -> None:
    async with receiver() as hook:
        running = start(hook.endpoint(concurrency=1))
        running.emit(*numbered(40))

        async def long(made: Receiver, call: Any) -> None:
            if 10 == len(made.got):
                # Others might take what it has taken, by now.
                running.advance(50)
            await status(204)(made, call)

        hook.answer = long
        await running.until_states(["delivered"] * 40)
        assert 40 == len(hook.got)


async def test_while_the_database_is_down_nothing_is_lost_and_what_was_told_of_is_not_sent_again(
    start: Start, new_database: NewDatabase, postgresql_server: PostgreSQL, expect_log: ExpectLog
) -> None:
    async with receiver(slow(0.02)) as hook:
        running = start(hook.endpoint(), database=new_database("postgresql"))
        running.emit(*numbered(60))
        with expect_log("webhooks wait for the database"):
            await running.until(lambda: 10 < len(hook.got))
            with postgresql_server.stopped():
                running.webhooks.deliverer.look()
                await running.until(lambda: running.webhooks.deliverer.trouble)
            running.webhooks.deliverer.look()
            async with asyncio.timeout(60):
                while ["delivered"] * 60 != await running.states():
                    running.webhooks.deliverer.look()
                    await asyncio.sleep(0.05)
        assert 60 == len(set(hook.ids)) == len(hook.got)
