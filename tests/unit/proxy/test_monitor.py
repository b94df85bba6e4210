"""The health of providers, as transcripts over a clock that is moved by hand."""

import asyncio
from collections.abc import Callable, Iterator

import msgspec
import pytest

import core.errors
from core.clock import ManualClock, SystemClock
from core.errors import ConnectFailed, CredentialNotReady, UpstreamError, UpstreamRejected, UpstreamTimeout
from core.events import AttemptFailed, Event, Events, ProviderDown, ProviderRecovered, RequestCompleted, RequestFailed
from core.tasks import Tasks
from proxy.monitor import FAULTS, NOT_SENT, PROBES_AT_ONCE, SIGNS_OF_LIFE, Entry, Health, Monitor


class Outcome(msgspec.Struct, frozen=True):
    error: UpstreamError | None = None
    seconds: float = 0.25


FINE = Outcome()
REFUSED = Outcome(ConnectFailed("The provider refused the connection."))
NO_LIST = Outcome(UpstreamRejected("The provider rejected the request (404).", upstream_status=404))


class Scene:
    """Health with what it was told and what it has told."""

    def __init__(self, *names: str, probe_seconds: float | None = 60.0) -> None:
        self.clock = ManualClock()
        self.events = Events()
        self.told: list[object] = []
        self.random = 0.5
        self.health = Health(self.events, self.clock, lambda: self.random, self.changed)
        self.health.subscribe()
        self.events.subscribe(self.hear, ProviderDown, ProviderRecovered)
        self.health.follow({name: Entry("somewhere", probe_seconds) for name in names})

    def changed(self, name: str, up: bool | None) -> None:
        self.told.append((name, up))

    def hear(self, event: Event) -> None:
        self.told.append(event)

    def after(self, seconds: float) -> "Scene":
        self.clock.advance(seconds)
        return self

    def failed(self, name: str, code: str = "upstream_timeout") -> "Scene":
        self.events.emit(
            AttemptFailed(
                request_id="r",
                provider=name,
                model_label="m",
                credential=None,
                number=1,
                error_code=code,
                delivered="no",
                next="retry",
            )
        )
        return self

    def completed(self, name: str | None) -> "Scene":
        self.events.emit(ended(RequestCompleted, name, 200, None))
        return self

    def broke(self, name: str, status: int, code: str) -> "Scene":
        self.events.emit(ended(RequestFailed, name, status, code))
        return self

    def probed(self, name: str, outcome: Outcome) -> "Scene":
        assert (name,) == self.health.due()
        self.health.probed(name, outcome)
        return self

    def state(self, name: str) -> tuple[bool | None, int]:
        watched = self.health.of(name)
        return watched.up, watched.failures

    def due_in(self, name: str) -> float | None:
        due_at = self.health.of(name).due_at
        return None if due_at is None else round(due_at - self.clock.monotonic(), 6)


def ended(
    kind: type[RequestCompleted] | type[RequestFailed], provider: str | None, status: int, code: str | None
) -> Event:
    return kind(
        request_id="r",
        client_request_id=None,
        method="POST",
        endpoint="chat",
        dialect="openai-chat",
        status=status,
        token="t",
        token_id=None,
        owner=None,
        remote_ip="192.0.2.1",
        requested_model="m",
        route=None,
        provider=provider,
        model="m",
        model_label="m",
        credential=None,
        stream=False,
        attempts=1,
        duration_seconds=1.0,
        overhead_seconds=0.1,
        ttft_seconds=None,
        upstream_seconds=0.9,
        usage=None,
        cost_nano_usd=None,
        revision="rev",
        bytes_in=1,
        bytes_out=1,
        error_code=code,
    )


def test_a_provider_is_down_after_three_failures_and_up_after_a_success() -> None:
    scene = Scene("a")
    assert (None, 0) == scene.state("a")
    scene.failed("a").failed("a")
    assert (None, 2) == scene.state("a")
    scene.failed("a", "upstream_unavailable")
    assert (False, 3) == scene.state("a")
    scene.failed("a").after(90).completed("a").completed("a")
    assert (True, 0) == scene.state("a")
    assert [
        ("a", False),
        ProviderDown(provider="a", reason="upstream_unavailable", failures=3),
        ("a", True),
        ProviderRecovered(provider="a", down_seconds=90.0),
    ] == scene.told


def test_failures_that_are_not_in_a_row_are_none() -> None:
    scene = Scene("a")
    for _ in range(5):
        scene.failed("a").failed("a").completed("a")
    assert (True, 0) == scene.state("a")
    assert [("a", True)] == scene.told


@pytest.mark.parametrize("code", sorted(SIGNS_OF_LIFE))
def test_a_refusal_in_good_order_shows_that_the_provider_is_there(code: str) -> None:
    scene = Scene("a").failed("a").failed("a").failed("a").failed("a", code)
    assert (True, 0) == scene.state("a")
    assert code == scene.health.of("a").error_code
    assert scene.health.of("a").succeeded_at is None


def _codes(of: type[UpstreamError]) -> Iterator[str]:
    for kind in of.__subclasses__():
        yield kind.code
        yield from _codes(kind)


def test_every_way_in_which_an_attempt_fails_has_its_meaning() -> None:
    unspecific = {core.errors.UpstreamAnswered.code}
    assert FAULTS | SIGNS_OF_LIFE | NOT_SENT == {*_codes(UpstreamError)} | unspecific
    assert not FAULTS & SIGNS_OF_LIFE


@pytest.mark.parametrize("code", sorted(NOT_SENT))
def test_what_was_kept_back_says_nothing_of_the_provider(code: str) -> None:
    scene = Scene("a")
    for _ in range(5):
        scene.failed("a", code)
    assert (None, 0) == scene.state("a")


def test_a_probe_that_found_no_token_says_nothing_and_another_is_due() -> None:
    scene = Scene("a").after(61)
    scene.probed("a", Outcome(CredentialNotReady("nobody has signed in")))
    assert ((None, 0), None) == (scene.state("a"), scene.health.of("a").latency)
    assert (("a",), 0) == (scene.after(61).health.due(), len(scene.told))


@pytest.mark.parametrize(
    ("status", "code", "failures"),
    [
        (200, "upstream_disconnected", 1),
        (200, "upstream_timeout", 1),
        (200, "client_closed", 0),
        (499, "client_closed", 0),
        # An attempt has told these already.
        (502, "upstream_disconnected", 0),
        (504, "upstream_timeout", 0),
        (503, "no_target_available", 0),
    ],
)
def test_an_answer_that_breaks_half_way_is_the_providers_failure(status: int, code: str, failures: int) -> None:
    assert (None, failures) == Scene("a").broke("a", status, code).state("a")


def test_requests_to_no_provider_or_one_that_is_gone_are_passed_over() -> None:
    scene = Scene("a")
    scene.completed(None).completed("gone").failed("gone").broke("gone", 200, "upstream_timeout")
    scene.health.probed("gone", REFUSED)
    scene.health.observed("gone", REFUSED)
    scene.health.not_probed("gone")
    assert ((None, 0), []) == (scene.state("a"), scene.told)


def test_only_an_idle_provider_is_asked() -> None:
    scene = Scene("a", "b")
    assert () == scene.after(59.9).health.due()
    scene.completed("b")
    assert ("a",) == scene.after(0.2).health.due()
    # It is under way: nobody asks a second time.
    assert () == scene.after(30).health.due()
    assert 29.8 == pytest.approx(scene.health.wait_seconds() or 0)
    scene.health.probed("a", FINE)
    assert (True, 0.25) == (scene.health.of("a").up, scene.health.of("a").latency)
    assert 60.0 == scene.due_in("a")


def test_probes_are_spread_by_a_fifth_to_both_sides() -> None:
    found = []
    for number in (0.0, 0.5, 0.9999999):
        scene = Scene()
        scene.random = number
        scene.health.follow({"a": Entry("somewhere", 100.0)})
        found.append(scene.due_in("a"))
    assert [80.0, 100.0, pytest.approx(120.0, abs=0.01)] == found


def test_a_provider_that_is_down_is_asked_less_and_less_often() -> None:
    scene = Scene("a")
    pauses = []
    for _ in range(9):
        pause = scene.due_in("a")
        assert pause is not None
        pauses.append(pause)
        scene.after(pause).probed("a", REFUSED)
    assert [60, 60, 60, 120, 240, 480, 600, 600, 600] == pauses
    scene.after(600).probed("a", NO_LIST)
    assert (True, 60.0) == (scene.health.of("a").up, scene.due_in("a"))
    assert ProviderRecovered(provider="a", down_seconds=3240.0) == scene.told[-1]


def test_a_success_of_requests_brings_the_usual_pause_back() -> None:
    scene = Scene("a")
    for _ in range(5):
        scene.after(scene.due_in("a") or 0).probed("a", REFUSED)
    assert 480.0 == scene.due_in("a")
    assert 60.0 == scene.completed("a").due_in("a")


def test_a_pause_is_never_shorter_than_the_configured_one() -> None:
    scene = Scene("a", probe_seconds=3600.0)
    for _ in range(4):
        scene.after(3600).probed("a", REFUSED)
    assert 3600.0 == scene.due_in("a")


def test_without_probe_seconds_requests_alone_tell() -> None:
    scene = Scene("a", probe_seconds=None)
    assert ((), None) == (scene.after(1e6).health.due(), scene.health.wait_seconds())
    assert None is scene.failed("a").failed("a").failed("a").due_in("a")
    assert (False, 3) == scene.state("a")


def test_providers_that_go_or_move_are_forgotten() -> None:
    scene = Scene("stays", "moves", "goes", "unheard")
    for name in ("stays", "moves", "goes"):
        scene.completed(name)
    scene.told.clear()
    scene.after(30)
    here = Entry("somewhere", 60.0)
    scene.health.follow({"stays": here, "moves": Entry("elsewhere", 60.0), "comes": here})
    assert [("moves", None), ("goes", None)] == scene.told
    assert [True, None, None] == [scene.health.of(name).up for name in ("stays", "moves", "comes")]
    assert [30.0, 60.0, 60.0] == [scene.due_in(name) for name in ("stays", "moves", "comes")]
    with pytest.raises(KeyError):
        scene.health.of("goes")


def test_another_probe_seconds_counts_from_what_was_heard_last() -> None:
    scene = Scene("a").after(10)
    scene.health.follow({"a": Entry("somewhere", 40.0)})
    assert 30.0 == scene.due_in("a")


class Knocks:
    """Providers that answer when they are told to."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[Outcome]] = {}
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Outcome:
        assert name not in self.waiting, "it is asked already"
        self.asked.append(name)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting[name] = answer
        try:
            return await answer
        finally:
            del self.waiting[name]


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.005)


async def test_a_few_are_asked_at_a_time_and_none_twice_at_once() -> None:
    events, knocks, tasks = Events(), Knocks(), Tasks()
    health = Health(events, SystemClock(), lambda: 0.5)
    monitor = Monitor(health, knocks, events)
    names = [f"p{number}" for number in range(PROBES_AT_ONCE + 2)]
    tasks.spawn(monitor.run(), "monitor")
    await asyncio.sleep(0)
    monitor.follow({name: Entry("somewhere", 0.05) for name in names})
    await until(lambda: len(knocks.waiting) == PROBES_AT_ONCE)
    await asyncio.sleep(0.2)
    assert names[:PROBES_AT_ONCE] == knocks.asked
    knocks.waiting["p0"].set_result(FINE)
    knocks.waiting["p1"].set_result(REFUSED)
    await until(lambda: {"p4", "p5"} <= knocks.waiting.keys())
    assert (True, None, 1) == (health.of("p0").up, health.of("p1").up, health.of("p1").failures)
    # Cancelled, it leaves nothing behind.
    await tasks.cancel()


async def test_a_provider_that_goes_while_it_is_asked_is_no_failure(expect_log: Callable[..., object]) -> None:
    events, tasks = Events(), Tasks()
    health = Health(events, SystemClock(), lambda: 0.5)
    asked: list[str] = []

    async def knock(name: str) -> Outcome:
        asked.append(name)
        if name == "broken":
            raise RuntimeError("a fault of ours")
        raise KeyError(name)

    monitor = Monitor(health, knock, events)
    monitor.follow({"gone": Entry("somewhere", 0.02)})
    tasks.spawn(monitor.run(), "monitor")
    await until(lambda: asked.count("gone") > 2)
    assert (None, 0) == (health.of("gone").up, health.of("gone").failures)
    with expect_log("probe of broken failed(.|\n)*a fault of ours"):  # type: ignore[attr-defined]  # a context manager
        monitor.follow({"broken": Entry("somewhere", 0.02)})
        await until(lambda: asked.count("broken") > 2)
    await tasks.cancel()


async def test_a_recovery_is_noticed_by_whoever_waits_for_a_probe() -> None:
    scene = Scene("a", probe_seconds=0.05)
    scene.health = Health(scene.events, SystemClock(), lambda: 0.5)
    scene.health.subscribe()
    asked: list[str] = []

    async def knock(name: str) -> Outcome:
        asked.append(name)
        return Outcome(UpstreamTimeout("silent"))

    monitor, tasks = Monitor(scene.health, knock, scene.events), Tasks()
    monitor.follow({"a": Entry("somewhere", 0.03)})
    for _ in range(20):
        scene.health.probed("a", Outcome(UpstreamTimeout("silent")))
    # Far longer than it is waited for here.
    assert 500 < (scene.health.of("a").pause or 0)
    tasks.spawn(monitor.run(), "monitor")
    await asyncio.sleep(0.1)
    assert [] == asked
    scene.completed("a")
    await until(lambda: bool(asked))
    await tasks.cancel()
