"""A credential whose token changes while it serves. What a request pays for is one comparison."""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Protocol

from core.clock import Clock
from core.secret import Secret
from core.tasks import Tasks
from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable, LoginAwaited, NeedsLogin
from credentials.tokens import TokenSet

_log = logging.getLogger("sluice.credentials")

FIRST_BACKOFF_SECONDS = 5.0
LONGEST_BACKOFF_SECONDS = 300.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""A server that asks for more is asked again after this."""
REJECTED_AGAIN_SECONDS = 60.0
"""A token that was had because one was rejected, and is rejected within this, is not exchanged once more."""
SHORTEST_LIFE_SECONDS = 1.0
"""Tokens are not refreshed unasked sooner than this after they were given, however soon they end."""
_SPREAD = 0.25
"""By so much, relatively, many gateways that have the same credential differ in when they do what."""
_NONE = -math.inf


class Wanted:
    """What an exchange is begun for."""

    __slots__ = ("_clock", "_rejected", "_seen", "force")

    def __init__(self, clock: Clock, seen: str, rejected: str | None, *, force: bool) -> None:
        """``seen``: the token that served as it began. ``rejected``: one that the provider refuses. ``force``: an operator
        wants it, whatever is known."""
        self._clock = clock
        self._seen = seen
        self._rejected = rejected
        self.force = force

    def stale(self, tokens: TokenSet) -> bool:
        """Whether ``tokens``, which are there by now, have to be exchanged still."""
        token = tokens.access_token.reveal()
        if not tokens.fresh(self._clock.time()) or token == self._rejected:
            return True
        # Another one than was seen is newer: it was exchanged meanwhile.
        return token == self._seen and (self.force or self._rejected is None)


class Obtain(Protocol):
    """Gets tokens for a live credential."""

    async def __call__(self, wanted: Wanted) -> bool:
        """See that the credential has taken tokens (:meth:`LiveCredential.take`) that are not stale. Whether they were
        exchanged for that; False: they were there by now, through another process.

        Raises:
            CredentialFault: there are none.
        """
        ...


class Listener(Protocol):
    """Told what becomes of a live credential."""

    def renewed(self, live: "LiveCredential") -> None:
        """It serves by another token from now on, wherever that comes from."""
        ...

    def refreshed(self, live: "LiveCredential", *, exchanged: bool, recovers: bool) -> None:
        """``recovers``: the time before, it had failed."""
        ...

    def failed(self, live: "LiveCredential", fault: CredentialFault, *, begins: bool) -> None:
        """``begins``: the time before, it had not failed, or for less."""
        ...


class LiveCredential:
    """Fulfils :class:`credentials.members.Live`: a token, its end, and at most one exchange at a time."""

    __slots__ = (
        "_again_at",
        "_clock",
        "_ends",
        "_failures",
        "_flight",
        "_flights",
        "_forced_at",
        "_jitter",
        "_listener",
        "_random",
        "_token",
        "_told",
        "fault",
        "kind",
        "name",
        "obtain",
        "provider",
        "secret",
        "tokens",
        "usable",
    )

    def __init__(
        self,
        provider: str,
        name: str,
        kind: str,
        listener: Listener,
        *,
        clock: Clock,
        random: Callable[[], float],
        flights: Tasks,
    ) -> None:
        """``flights``: where exchanges run. None is cancelled with a request that waits for it: a refresh token may be
        good for one use, and what was given for it must not be lost.
        """
        self.provider = provider
        self.name = name
        self.kind = kind
        self._listener = listener
        self._clock = clock
        self._random = random
        self._flights = flights
        self._flight: asyncio.Task[CredentialFault | None] | None = None
        self._token = ""
        self._ends = _NONE
        self._jitter = random()
        self._failures = 0
        self._again_at = _NONE
        self._forced_at = _NONE
        self.obtain: Obtain = _nothing
        """Set by whoever made it."""
        self.tokens: TokenSet | None = None
        self._told: type[CredentialFault] | None = None
        """What was told of, as long as it lasts."""
        self.fault: CredentialFault | None = None
        """Why the last exchange failed; None: it did not."""
        self.usable = True
        """Whether it may be chosen: it has a token, or may get one without a person."""
        self.secret = Secret(lambda: self._token, f"credential {provider}/{name}")
        """Reveals the present token; empty while there is none."""

    @property
    def ends(self) -> float:
        """When its token ends, in seconds since the Unix epoch; -inf: it has none, inf: never."""
        return self._ends

    @property
    def flies(self) -> bool:
        """Whether an exchange is under way."""
        return self._flight is not None

    def fresh(self, now: float) -> bool:
        """Whether it has a token that has not ended at ``now``, in seconds since the Unix epoch."""
        return now < self._ends

    async def freshen(self, rejected: str | None = None) -> None:
        """As :meth:`credentials.members.Live.freshen`."""
        while not self._good(rejected):
            flight = self._flight
            ours = flight is None
            if flight is None:
                self._check_worth(rejected)
                flight = self.begin(rejected=rejected)
            await _landed(flight)
            if ours and not self._good(rejected):
                raise CredentialUnavailable(f"{self.called}: the token that was given for it is of no use already")

    async def refresh(self) -> None:
        """Exchange the token, whatever its end and whatever failed before. Raises CredentialFault."""
        self._check_exchangeable()
        seen = self._token
        while True:
            flight = self._flight
            ours = flight is None
            await _landed(self.begin(force=True))
            if ours or seen != self._token:
                return

    def begin(self, *, force: bool = False, rejected: str | None = None) -> asyncio.Task[CredentialFault | None]:
        """Start an exchange, where none is under way. Its task gives the fault, and raises nothing."""
        if self._flight is None:
            self._flight = self._flights.spawn(self._fly(force, rejected), f"refresh of {self.provider}/{self.name}")
        return self._flight

    def look(self) -> asyncio.Task[CredentialFault | None] | None:
        """It is due (:meth:`due_at`): what has begun."""
        self.judge()
        return None if self._again_at == math.inf else self.begin()

    def take(self, tokens: TokenSet | None) -> None:
        """Serve by ``tokens`` from now on; None: there are none."""
        self.tokens = tokens
        self._jitter = self._random()
        self._token = "" if tokens is None else tokens.access_token.reveal()
        if tokens is None:
            self._ends = _NONE
        else:
            self._ends = math.inf if tokens.expires_at is None else tokens.expires_at
            self._listener.renewed(self)
        self.judge()

    def recovered(self) -> None:
        """What failed before counts no more."""
        self.fault = None
        self._told = None
        self._failures = 0
        self._again_at = _NONE
        self.judge()

    def hasten(self) -> None:
        """What it failed for may be over: it is tried again at once."""
        self._again_at = _NONE

    def give_up(self, message: str) -> None:
        """Only a person can mend it, as another process has found, or an earlier run."""
        self.fault = LoginAwaited(message)
        self._again_at = math.inf
        self.judge()

    def judge(self) -> None:
        """Whether it is usable still: a token serves to its end, whatever became of the refresh."""
        self.usable = self._again_at != math.inf or self.fresh(self._clock.time())

    def due_at(self, ahead_seconds: float) -> float | None:
        """When there is something to do unasked, in seconds since the Unix epoch; None: never, as things are."""
        now = self._clock.time()
        if self._again_at == math.inf:
            # Then it is usable no more.
            return self._ends if now < self._ends < math.inf else None
        if self.fault is not None:
            return now + max(0.0, self._again_at - self._clock.monotonic())
        if self.tokens is None:
            return now
        if not self._exchangeable:
            return None if self._ends == math.inf else self._ends
        return due_at(self.tokens, ahead_seconds, self._jitter)

    @property
    def called(self) -> str:
        """As messages name it."""
        return f"credential `{self.provider}/{self.name}`"

    def __repr__(self) -> str:
        return f"LiveCredential({self.provider!r}, {self.name!r}, kind={self.kind!r}, ends={self._ends!r})"

    def _good(self, rejected: str | None) -> bool:
        return self._clock.time() < self._ends and self._token != rejected

    def _check_worth(self, rejected: str | None) -> None:
        """Requests do not press a server that is failing, nor one whose tokens are rejected however fresh they are."""
        now = self._clock.monotonic()
        if self.fault is not None and now < self._again_at:
            raise _like(self.fault, None if self._again_at == math.inf else self._again_at - now)
        if rejected is None:
            return
        self._check_exchangeable()
        if now < self._forced_at + REJECTED_AGAIN_SECONDS:
            raise CredentialRefused(f"{self.called}: the provider has rejected a token that was given for it just now")

    @property
    def _exchangeable(self) -> bool:
        return self.kind != "oauth" or self.tokens is None or self.tokens.refresh_token is not None

    def _check_exchangeable(self) -> None:
        if not self._exchangeable:
            raise CredentialRefused(
                f"{self.called} has no refresh token, so there is nothing to exchange: sign in again if its token is refused"
            )

    async def _fly(self, force: bool, rejected: str | None) -> CredentialFault | None:
        fault: CredentialFault | None = None
        seen, exchanged = self._token, False
        try:
            exchanged = await self.obtain(Wanted(self._clock, seen, rejected, force=force))
            if not self.fresh(self._clock.time()):
                fault = CredentialUnavailable(f"{self.called}: the token that was given for it has ended already")
        except CredentialFault as raised:
            fault = raised
        except Exception:
            # A fault of ours: whatever it is, requests are answered, and it is tried again.
            _log.exception("%s could not be refreshed", self.called)
            fault = CredentialUnavailable(
                f"{self.called} cannot be refreshed, by a fault of the gateway's: see its log"
            )
        finally:
            self._flight = None
        if seen != self._token and self.fresh(self._clock.time()):
            # Somebody has signed in meanwhile: what became of the former token is of no account.
            fault = None
        if fault is None:
            if rejected is not None:
                self._forced_at = self._clock.monotonic()
            recovers = self.fault is not None
            self.recovered()
            self._listener.refreshed(self, exchanged=exchanged, recovers=recovers)
        else:
            begins = self._begins(fault)
            self._back_off(fault)
            self._listener.failed(self, fault, begins=begins)
        return fault

    def _begins(self, fault: CredentialFault) -> bool:
        """Whether nobody has been told of it, or of less."""
        if isinstance(fault, LoginAwaited):
            return False
        needs_login = isinstance(fault, NeedsLogin)
        begins = self._told is None or (needs_login and self._told is not NeedsLogin)
        if begins:
            self._told = NeedsLogin if needs_login else CredentialFault
        return begins

    def _back_off(self, fault: CredentialFault) -> None:
        # Without its traceback, which would keep alive whoever asked.
        self.fault = _like(fault, fault.retry_after_seconds)
        if isinstance(fault, NeedsLogin) and self.kind == "oauth":
            self._again_at = math.inf
        else:
            seconds = backoff_seconds(self._failures, fault, self._random())
            self._failures += 1
            self._again_at = self._clock.monotonic() + seconds
        self.judge()


def due_at(tokens: TokenSet, ahead_seconds: float, jitter: float) -> float | None:
    """When ``tokens`` are to be exchanged: some time before their end, of which short-lived ones have less."""
    if tokens.expires_at is None:
        return None
    life = tokens.expires_at - tokens.issued_at
    ahead = min(ahead_seconds, life / 2) * (1 + _SPREAD * jitter)
    return max(tokens.expires_at - ahead, tokens.issued_at + SHORTEST_LIFE_SECONDS)


def backoff_seconds(failures: int, fault: CredentialFault, jitter: float) -> float:
    """How long nothing is tried after ``fault``, before which there were ``failures`` in a row."""
    longest = LONGEST_BACKOFF_SECONDS / (1 + _SPREAD)
    if isinstance(fault, CredentialUnavailable):
        seconds = min(longest, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10))
    else:
        seconds = longest
    asked = min(fault.retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    return max(seconds, asked) * (1 + _SPREAD * jitter)


async def _nothing(wanted: Wanted) -> bool:  # noqa: ARG001  until it is known who gets tokens
    raise CredentialUnavailable("nobody is asked for tokens yet")


async def _landed(flight: "asyncio.Task[CredentialFault | None]") -> None:
    """Wait for ``flight``, which goes on without whoever waits. Raises its fault."""
    try:
        fault = await asyncio.shield(flight)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if flight.cancelled() and task is not None and not task.cancelling():
            raise CredentialUnavailable("the gateway is stopping: nothing is refreshed any more") from None
        raise
    if fault is not None:
        raise _like(fault, fault.retry_after_seconds)


def _like(fault: CredentialFault, retry_after_seconds: float | None) -> CredentialFault:
    """One that can be raised: each time another, since raising leaves traces in it."""
    return type(fault)(str(fault), retry_after_seconds=retry_after_seconds)
