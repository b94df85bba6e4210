import asyncio
import logging
import math
from typing import Any

import hypothesis.strategies as some
import pytest
from hypothesis import given

from core.secret import Secret
from core.tasks import Tasks
from credentials.errors import (
    CredentialFault,
    CredentialRefused,
    CredentialUnavailable,
    LoginAwaited,
    NeedsLogin,
)
from credentials.live import (
    LONGEST_BACKOFF_SECONDS,
    REJECTED_AGAIN_SECONDS,
    LiveCredential,
    Wanted,
    backoff_seconds,
    due_at,
)
from credentials.tokens import TokenSet
from tests import virtual_time
from tests.conftest import ExpectLog
from tests.virtual_time import VirtualClock

LIFE_SECONDS = 100.0


class Source:
    """Gives tokens to one credential, and is told what becomes of it."""

    def __init__(self, kind: str = "client_credentials") -> None:
        self.flights = Tasks()
        self.clock = VirtualClock()
        self.asked = 0
        self.fault: Exception | None = None
        self.takes_seconds = 1.0
        self.life_seconds = LIFE_SECONDS
        self.told: list[str] = []
        self.renewals: list[str] = []
        self.live = LiveCredential(
            "openai", "main", kind, self, clock=self.clock, random=lambda: 0.0, flights=self.flights
        )
        self.live.obtain = self.obtain

    def give(self, number: int, refresh_token: str | None = "refresh") -> None:
        now = self.clock.time()
        self.live.take(
            TokenSet(
                access_token=Secret.literal(f"token-{number}"),
                refresh_token=None if refresh_token is None else Secret.literal(refresh_token),
                issued_at=now,
                expires_at=now + self.life_seconds,
            )
        )

    async def obtain(self, wanted: Wanted) -> bool:
        if self.live.tokens is not None and not wanted.stale(self.live.tokens):
            return False
        self.asked += 1
        await asyncio.sleep(self.takes_seconds)
        if self.fault is not None:
            raise self.fault
        self.give(self.asked)
        return True

    def renewed(self, live: LiveCredential) -> None:
        self.renewals.append(live.secret.reveal())

    def refreshed(self, live: LiveCredential, *, exchanged: bool, recovers: bool) -> None:
        self.told.append("recovered" if recovers else "refreshed")

    def failed(self, live: LiveCredential, fault: CredentialFault, *, begins: bool) -> None:
        self.told.append(f"{fault.reason}{'' if begins else ' still'}")


def live(test: Any) -> Any:
    """The test in virtual time."""

    def run() -> None:
        virtual_time.run(test())

    run.__name__ = test.__name__
    return run


@live
async def test_however_many_wait_one_asks() -> None:
    source = Source()

    await asyncio.gather(*(source.live.freshen() for _ in range(100)))

    assert 1 == source.asked
    assert "token-1" == source.live.secret.reveal()
    assert source.live.fresh(source.clock.time() + LIFE_SECONDS - 1.5)
    assert not source.live.fresh(source.clock.time() + LIFE_SECONDS)


@live
async def test_each_other_token_is_told_of_wherever_it_comes_from() -> None:
    source = Source()
    source.live.take(None)
    assert [] == source.renewals
    source.give(7)
    await source.live.refresh()
    assert ["token-7", "token-1"] == source.renewals


async def test_who_leaves_takes_nothing_from_those_who_wait() -> None:
    source = Source()
    first = asyncio.ensure_future(source.live.freshen())
    await asyncio.sleep(0.5)
    second = asyncio.ensure_future(source.live.freshen())
    await asyncio.sleep(0)

    first.cancel()
    await second

    assert first.cancelled()
    assert 1 == source.asked


@live
async def test_a_rejected_token_is_exchanged_once_and_what_was_given_for_it_is_not() -> None:
    source = Source()
    source.give(0)

    await asyncio.gather(*(source.live.freshen("token-0") for _ in range(10)))
    assert 1 == source.asked
    await source.live.freshen("token-0")
    assert 1 == source.asked
    with pytest.raises(CredentialRefused, match="the provider has rejected a token that was given for it just now"):
        await source.live.freshen("token-1")
    assert 1 == source.asked

    await asyncio.sleep(REJECTED_AGAIN_SECONDS)
    await source.live.freshen("token-1")
    assert 2 == source.asked


@live
async def test_a_token_that_cannot_be_exchanged_serves_to_its_end_and_no_401_changes_that() -> None:
    source = Source("oauth")
    source.give(0, refresh_token=None)

    for ask in (source.live.freshen("token-0"), source.live.refresh()):
        with pytest.raises(CredentialRefused, match="has no refresh token"):
            await ask

    assert 0 == source.asked
    assert source.live.usable
    assert source.live.fault is None
    assert source.clock.time() + LIFE_SECONDS == source.live.due_at(30.0)


@live
async def test_while_a_server_fails_it_is_asked_seldom_and_the_present_token_serves() -> None:
    source = Source()
    source.give(0)
    source.fault = CredentialUnavailable("the server answers 503")

    with pytest.raises(CredentialUnavailable):
        await source.live.freshen("token-0")
    await source.live.freshen()
    for _ in range(5):
        with pytest.raises(CredentialUnavailable, match="503") as refused:
            await source.live.freshen("token-0")
        assert 5.0 == refused.value.retry_after_seconds
    assert 1 == source.asked
    assert source.live.usable

    now = source.clock.time()
    assert now + 5.0 == source.live.due_at(30.0)
    for seconds in (10.0, 20.0):
        await asyncio.sleep((source.live.due_at(30.0) or 0.0) - source.clock.time())
        assert await source.live.begin()
        assert source.clock.time() + seconds == source.live.due_at(30.0)
    source.fault = None
    await source.live.refresh()
    assert ["unavailable", "unavailable still", "unavailable still", "recovered"] == source.told


@live
async def test_a_server_that_says_when_is_not_asked_before() -> None:
    source = Source()
    source.fault = CredentialUnavailable("the server answers 429", retry_after_seconds=120.0)

    assert await source.live.begin()

    assert source.clock.time() + 120.0 == source.live.due_at(30.0)


@live
async def test_after_its_refresh_has_failed_for_good_a_token_serves_to_its_end_and_no_longer() -> None:
    source = Source("oauth")
    source.give(0)
    source.fault = NeedsLogin("the server says `invalid_grant`")

    fault = await source.live.begin()
    assert isinstance(fault, NeedsLogin)
    await source.live.freshen()
    assert (True, source.live.ends) == (source.live.usable, source.live.due_at(30.0))

    await asyncio.sleep(LIFE_SECONDS)
    assert source.live.look() is None
    assert (False, None) == (source.live.usable, source.live.due_at(30.0))
    with pytest.raises(NeedsLogin):
        await source.live.freshen()
    assert 1 == source.asked
    # An operator may try all the same.
    source.fault = None
    await source.live.refresh()
    assert source.live.usable
    assert ["needs_login", "recovered"] == source.told


@live
async def test_a_failure_is_told_as_it_begins_and_as_it_gets_worse() -> None:
    source = Source("oauth")
    source.give(0)
    faults: list[CredentialFault] = [
        CredentialUnavailable("503"),
        CredentialRefused("invalid_client"),
        NeedsLogin("invalid_grant"),
        NeedsLogin("invalid_grant"),
        LoginAwaited("invalid_grant"),
    ]
    for fault in faults:
        source.fault = fault
        assert await source.live.begin()

    assert ["unavailable", "refused still", "needs_login", "needs_login still", "needs_login still"] == source.told


@live
async def test_a_token_that_has_ended_as_it_is_given_is_no_token() -> None:
    source = Source()
    source.life_seconds = 0.0

    with pytest.raises(CredentialUnavailable, match="has ended already"):
        await source.live.freshen()
    assert ["unavailable"] == source.told


@live
async def test_what_fails_for_a_token_that_was_replaced_meanwhile_is_of_no_account() -> None:
    source = Source()
    source.give(0)
    source.fault = CredentialUnavailable("503")
    flight = source.live.begin()
    await asyncio.sleep(0.5)
    source.give(7)

    assert await flight is None
    assert source.live.fault is None


@live
async def test_when_the_gateway_stops_whoever_waits_is_told() -> None:
    source = Source()
    waiting = asyncio.ensure_future(source.live.freshen())
    await asyncio.sleep(0.5)

    await source.flights.cancel()

    with pytest.raises(CredentialUnavailable, match="the gateway is stopping"):
        await waiting


def test_a_fault_of_ours_is_logged_and_answered(expect_log: ExpectLog) -> None:
    async def broken() -> None:
        source = Source()
        source.fault = ZeroDivisionError()
        with pytest.raises(CredentialUnavailable, match="a fault of the gateway's"):
            await source.live.freshen()

    with expect_log("(?s)openai/main` could not be refreshed.*ZeroDivisionError", logging.ERROR):
        virtual_time.run(broken())


def test_no_rendering_shows_the_token() -> None:
    async def shown() -> str:
        source = Source()
        source.give(0)
        return repr(source.live) + repr(source.live.secret) + repr(source.live.tokens)

    assert "token-0" not in virtual_time.run(shown())


@given(
    life=some.floats(0.0, 1e7),
    ahead=some.floats(0.1, 1e6),
    jitter=some.floats(0.0, 1.0, exclude_max=True),
)
def test_tokens_are_refreshed_before_they_end_and_not_at_once(life: float, ahead: float, jitter: float) -> None:
    tokens = TokenSet(access_token=Secret.literal("x"), issued_at=1000.0, expires_at=1000.0 + life)

    due = due_at(tokens, ahead, jitter)

    assert due is not None
    assert due >= 1000.0 + min(1.0, life / 4)
    assert due <= max(1000.0 + life, 1001.0)
    if life > max(4 * ahead, 8.0):
        assert due <= 1000.0 + life - ahead


def test_tokens_that_do_not_end_are_not_refreshed() -> None:
    assert due_at(TokenSet(access_token=Secret.literal("x"), issued_at=0.0, expires_at=None), 300.0, 0.0) is None


@given(failures=some.integers(0, 10_000), jitter=some.floats(0.0, 1.0, exclude_max=True))
def test_backoff_grows_from_5_seconds_to_5_minutes(failures: int, jitter: float) -> None:
    seconds = backoff_seconds(failures, CredentialUnavailable("503"), jitter)

    assert 5.0 <= seconds <= LONGEST_BACKOFF_SECONDS
    assert seconds <= 6.25 * 2.0 ** min(failures, 10)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (CredentialUnavailable("429", retry_after_seconds=90.0), 90.0),
        (CredentialUnavailable("429", retry_after_seconds=math.inf), 3600.0),
        (CredentialUnavailable("429", retry_after_seconds=-1.0), 5.0),
        (CredentialRefused("invalid_client"), 240.0),
    ],
)
def test_what_a_server_asks_for_counts_within_an_hour(fault: CredentialFault, expected: float) -> None:
    assert expected == backoff_seconds(0, fault, 0.0)
