"""Whether each provider serves: by what requests meet, and by a probe that costs nothing where there are no requests.

Decisions alone stand in :class:`Health`: it is told of what happened and says who is to be asked, by a clock and numbers
that are passed in. :class:`Monitor` waits and asks.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, Protocol

import msgspec

from core.clock import Clock
from core.errors import CredentialNotReady, TargetLimited, UpstreamError
from core.events import AttemptFailed, Events, ProviderDown, ProviderRecovered, RequestCompleted, RequestFailed
from core.tasks import Tasks

DOWN_AFTER = 3
"""Failures in a row. One success is enough for the way back."""
MOST_PAUSE_SECONDS = 600.0
"""Between two probes of a provider that is down, unless `probe_seconds` is longer."""
PROBES_AT_ONCE = 4

_SPREAD = 0.2
_LEAST_WAIT_SECONDS = 0.05

SIGNS_OF_LIFE = frozenset(
    {
        "upstream_rejected",
        "context_length_exceeded",
        "content_policy_violation",
        "upstream_credentials_rejected",
        "rate_limit_exceeded",
    }
)
"""Codes of failures in which the provider answered in good order: the request, the credential or its use was at fault."""
FAULTS = frozenset(
    {
        "upstream_unreachable",
        "upstream_address_refused",
        "upstream_timeout",
        "upstream_disconnected",
        "upstream_malformed",
        "upstream_unavailable",
        "upstream_error",
    }
)
"""Codes of failures that are the provider's own, or those of the way to it."""

NOT_SENT = frozenset({TargetLimited.code, CredentialNotReady.code})
"""Codes of attempts that a limit of ours, or the want of a token, kept from the provider: of it they say nothing."""

_HEAD_WAS_SENT = 400
"""A request that failed with a status below had been answered already when it broke; what broke before is an attempt's."""


class Entry(msgspec.Struct, frozen=True):
    """A provider of the configuration, as far as it matters here."""

    address: str
    """Where it is: what is known of one address says nothing of another."""
    probe_seconds: float | None
    """None: it is never asked."""


class Outcome(Protocol):
    """What came of a probe; fits :class:`proxy.probe.Probed`."""

    @property
    def error(self) -> UpstreamError | None: ...
    @property
    def seconds(self) -> float: ...


class Watched:
    """What is known of one provider. Times are readings of the monotonic clock."""

    __slots__ = (
        "address",
        "error_code",
        "failed_at",
        "failed_probes",
        "failures",
        "heard_at",
        "latency",
        "name",
        "pause",
        "probe_seconds",
        "probing",
        "since",
        "succeeded_at",
        "up",
    )

    def __init__(self, name: str, address: str, now: float) -> None:
        self.name = name
        self.address = address
        self.up: bool | None = None
        """None: nothing is known yet."""
        self.since: float | None = None
        self.succeeded_at: float | None = None
        self.failed_at: float | None = None
        self.error_code: str | None = None
        self.failures = 0
        self.failed_probes = 0
        """In a row, since it is down."""
        self.latency: float | None = None
        self.heard_at = now
        """When something was last heard of it, or it was first looked at."""
        self.probe_seconds: float | None = None
        self.pause: float | None = None
        """How long after ``heard_at`` it is asked; None: never."""
        self.probing = False

    @property
    def due_at(self) -> float | None:
        """When it will be asked unless something is heard of it before."""
        return None if self.pause is None else self.heard_at + self.pause


class Health:
    """The state of every provider. Nothing here waits."""

    def __init__(
        self,
        events: Events,
        clock: Clock,
        random: Callable[[], float],
        changed: Callable[[str, bool | None], None] = lambda _name, _up: None,
    ) -> None:
        """``random`` gives numbers in [0, 1). ``changed`` is told of each new state; None: the provider is forgotten."""
        self._events = events
        self._clock = clock
        self._random = random
        self._changed = changed
        self._watched: dict[str | None, Watched] = {}

    def subscribe(self) -> None:
        """Hear what requests meet."""
        self._events.subscribe(self._request_completed, RequestCompleted)
        self._events.subscribe(self._request_failed, RequestFailed)
        self._events.subscribe(self._attempt_failed, AttemptFailed)

    def follow(self, providers: Mapping[str, Entry]) -> None:
        """These there are now, by their names. Those that are gone, or have moved, are forgotten."""
        now = self._clock.monotonic()
        for watched in tuple(self._watched.values()):
            entry = providers.get(watched.name)
            if entry is None or entry.address != watched.address:
                del self._watched[watched.name]
                if watched.up is not None:
                    self._changed(watched.name, None)
        for name, entry in providers.items():
            known = self._watched.get(name)
            if known is None:
                known = self._watched[name] = Watched(name, entry.address, now)
            elif known.probe_seconds == entry.probe_seconds:
                continue
            known.probe_seconds = entry.probe_seconds
            self._plan(known)

    def of(self, name: str) -> Watched:
        """What is known of a provider; raises KeyError where there is none."""
        return self._watched[name]

    def due(self) -> tuple[str, ...]:
        """Those to be asked now. Each is under way from here on, until :meth:`probed`."""
        now = self._clock.monotonic()
        found = [each for each in self._watched.values() if _is_due(each, now)]
        for watched in found:
            watched.probing = True
        return tuple(watched.name for watched in found)

    def wait_seconds(self) -> float | None:
        """How long nobody will be due, if nothing changes; None: nobody ever will."""
        times = [at for each in self._watched.values() if not each.probing and (at := each.due_at) is not None]
        return max(min(times) - self._clock.monotonic(), _LEAST_WAIT_SECONDS) if times else None

    def probed(self, name: str, outcome: Outcome) -> None:
        """A probe has come to its end; one that was no fault of the provider's counts as answered."""
        watched = self._watched.get(name)
        if watched is None:
            return
        if _not_sent(outcome):
            self.not_probed(name)
            return
        watched.probing = False
        self.observed(name, outcome)
        if watched.up is False:
            watched.failed_probes += 1
        self._plan(watched)

    def not_probed(self, name: str) -> None:
        """A probe that was due did not take place."""
        watched = self._watched.get(name)
        if watched is not None:
            watched.probing = False
            watched.heard_at = self._clock.monotonic()

    def observed(self, name: str, outcome: Outcome) -> None:
        """The same of a question that somebody else has asked."""
        watched = self._watched.get(name)
        if watched is None or _not_sent(outcome):
            return
        code = None if outcome.error is None else outcome.error.client_code
        if code is None or code in SIGNS_OF_LIFE:
            watched.latency = outcome.seconds
        self._heard(watched, code)

    # Called for each request: a look into a dictionary and two values kept.
    def _request_completed(self, event: RequestCompleted) -> None:
        watched = self._watched.get(event.provider)
        if watched is None:
            return
        watched.heard_at = watched.succeeded_at = self._clock.monotonic()
        if watched.failures or not watched.up:
            self._answered(watched)

    def _request_failed(self, event: RequestFailed) -> None:
        watched = self._watched.get(event.provider)
        if watched is not None and event.status < _HEAD_WAS_SENT and event.error_code in FAULTS:
            self._heard(watched, event.error_code)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        watched = self._watched.get(event.provider)
        if watched is not None and event.error_code not in NOT_SENT:
            self._heard(watched, event.error_code)

    def _heard(self, watched: Watched, code: str | None) -> None:
        now = watched.heard_at = self._clock.monotonic()
        if code is None:
            watched.succeeded_at = now
            self._answered(watched)
            return
        watched.failed_at, watched.error_code = now, code
        if code in SIGNS_OF_LIFE:
            self._answered(watched)
            return
        watched.failures += 1
        if watched.failures >= DOWN_AFTER and watched.up is not False:
            watched.up, watched.since = False, now
            self._changed(watched.name, False)
            self._events.emit(ProviderDown(provider=watched.name, reason=code, failures=watched.failures))

    def _answered(self, watched: Watched) -> None:
        watched.failures = watched.failed_probes = 0
        if watched.up:
            return
        was_down, since, now = watched.up is False, watched.since, watched.heard_at
        watched.up, watched.since = True, now
        self._changed(watched.name, True)
        if was_down and since is not None:
            self._plan(watched)
            self._events.emit(ProviderRecovered(provider=watched.name, down_seconds=now - since))

    def _plan(self, watched: Watched) -> None:
        """When it is asked next. Not at the same times as others are, nor as other workers ask it."""
        seconds = watched.probe_seconds
        if seconds is None:
            watched.pause = None
            return
        if watched.up is False:
            seconds = max(seconds, min(seconds * 2.0 ** min(watched.failed_probes, 32), MOST_PAUSE_SECONDS))
        watched.pause = seconds * (1 - _SPREAD + 2 * _SPREAD * self._random())


def _not_sent(outcome: Outcome) -> bool:
    return outcome.error is not None and outcome.error.client_code in NOT_SENT


def _is_due(watched: Watched, now: float) -> bool:
    at = watched.due_at
    return at is not None and not watched.probing and at <= now


class Monitor:
    """Asks those that are due, a few at a time and none twice at once."""

    def __init__(self, health: Health, knock: Callable[[str], Awaitable[Outcome]], events: Events) -> None:
        """``knock`` asks a provider; it raises KeyError where there is none of that name any more."""
        self._health = health
        self._knock = knock
        self._turns = asyncio.Semaphore(PROBES_AT_ONCE)
        self._look = asyncio.Event()
        # Its pause is shorter from now on.
        events.subscribe(lambda _: self._look.set(), ProviderRecovered)

    def follow(self, providers: Mapping[str, Entry]) -> None:
        """See :meth:`Health.follow`."""
        self._health.follow(providers)
        self._look.set()

    async def run(self) -> NoReturn:
        """Until cancelled."""
        probes = Tasks()
        try:
            while True:
                self._look.clear()
                for name in self._health.due():
                    probes.spawn(self._probe(name), f"probe of {name}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._health.wait_seconds()):
                        await self._look.wait()
        finally:
            await probes.cancel()

    async def _probe(self, name: str) -> None:
        outcome: Outcome | None = None
        try:
            async with self._turns:
                with contextlib.suppress(KeyError):
                    outcome = await self._knock(name)
        finally:
            if outcome is None:
                self._health.not_probed(name)
            else:
                self._health.probed(name, outcome)
            self._look.set()
