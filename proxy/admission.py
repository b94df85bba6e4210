"""Whether a request may go, and what it has used in the end: by the limits of its caller, and of each target that it is sent to.

A lease is asked for as the request comes, and one for each attempt; each ends once, whatever becomes of the exchange.
"""

from collections import defaultdict
from collections.abc import Awaitable
from math import ceil
from typing import Protocol

from access.quotas.amounts import NOTHING, ONE, Amounts, Metric, used
from access.quotas.headers import rate_limit_headers
from access.quotas.limits import Limits, ScopeKind
from access.quotas.outcomes import Admission, Lease, Refused, Unavailable
from access.quotas.rules import Subject
from access.quotas.waiting import WaitingStore
from core.clock import Clock
from core.errors import (
    CallerError,
    CredentialLimited,
    Delivered,
    LimitExceeded,
    QuotasUnavailable,
    TargetLimited,
    UpstreamError,
    UpstreamRejected,
)
from core.events import Events
from core.identity import ApiToken
from proxy.dataplane import DataPlane
from proxy.endpoints import Endpoint
from proxy.estimates import TEXT_BYTES, asked_output, estimated_input
from proxy.intake import Inbound
from proxy.limit_news import LimitNews
from proxy.record import Record
from routing.plan import Target

_ONE_USED = used()
_SHORT_BYTES = 4096
_WHOSE = {
    ScopeKind.TOKEN: "this token",
    ScopeKind.OWNER: "its owner",
    ScopeKind.MODEL: "this model",
    ScopeKind.PATH: "this path",
}


class Tally(Protocol):
    """What is counted for a metric."""

    total: int


class Tallies(Protocol):
    """Where decisions are counted; :class:`telemetry.quota_series.QuotaSeries` is one."""

    def quota_decisions(self, result: str) -> Tally:
        """Decisions that came to ``result``."""
        ...

    def quota_refusals(self, metric: str, scope: str) -> Tally:
        """Refusals by limits of ``metric`` for a ``scope`` of this kind."""
        ...


class _Count:
    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


class Counted:
    """:class:`Tallies` that nobody shows."""

    def __init__(self) -> None:
        self.decisions: defaultdict[str, _Count] = defaultdict(_Count)
        self.refusals: defaultdict[tuple[str, str], _Count] = defaultdict(_Count)

    def quota_decisions(self, result: str) -> Tally:
        return self.decisions[result]

    def quota_refusals(self, metric: str, scope: str) -> Tally:
        return self.refusals[metric, scope]


class Quotas:
    """Asks the store, and tells what comes of it: for all requests of a process."""

    __slots__ = (
        "_clock",
        "_news",
        "_store",
        "_tallies",
        "admitted",
        "decide",
        "decide_at_once",
        "settle",
        "settle_at_once",
    )

    def __init__(self, store: WaitingStore, events: Events, clock: Clock, tallies: Tallies | None = None) -> None:
        self._store = store
        # Bound here: each request asks for them.
        self.decide = store.decide
        self.decide_at_once = store.inner.decide
        """For limits of which none lets requests wait, as nobody waits for what a lease of them gives back."""
        self.settle = store.settle
        self.settle_at_once = store.inner.settle
        self._clock = clock
        self._tallies = tallies if tallies is not None else Counted()
        self.admitted = self._tallies.quota_decisions("admitted")
        """Admissions of which nothing is to be told."""
        self._news = LimitNews(events.emit)

    async def wait(self, limits: Limits, charges: Amounts, record: Record) -> Admission:
        """What the store says, where it cannot tell at once."""
        began = self._clock.monotonic()
        outcome = await self._store.admit(limits, charges)
        if limits.patient and record.first_attempt_at is None:
            record.held_up_seconds += self._clock.monotonic() - began
        return outcome

    def tell(self, outcome: Admission, token: ApiToken) -> None:
        """Count it, and tell who observes."""
        tallies = self._tallies
        if isinstance(outcome, Lease):
            shadow = outcome.notable and self._news.admitted(outcome, token)
            result = "waited" if outcome.waited else "shadow" if shadow else "admitted"
        elif isinstance(outcome, Refused):
            result = "refused"
            limit = outcome.limit
            tallies.quota_refusals(limit.metric.word, limit.scope.kinds).total += 1
            self._news.refused(outcome, token)
        else:
            result = "unavailable"
        tallies.quota_decisions(result).total += 1


class Leases:
    """What one exchange is admitted with."""

    _at_target: Lease | None = None
    _size: tuple[int, int] | None = None
    _soonest: float | None = None
    _unavailable: float | None = None

    def __init__(
        self,
        quotas: Quotas,
        plane: DataPlane,
        record: Record,
        token: ApiToken,
        path: str,
        endpoint: Endpoint,
        inbound: Inbound,
    ) -> None:
        self._quotas = quotas
        self._plane = plane
        self._record = record
        self._token = token
        self._path = path
        self._endpoint = endpoint
        self._inbound = inbound

    def admit(self, target: Target) -> Awaitable[None] | None:
        """Before anything is sent; ``target`` is the one that it most likely goes to, whose price is reserved.

        Gives what has to be waited for; both it and this raise.

        Raises:
            LimitExceeded: a limit does not allow it.
            QuotasUnavailable: nobody can tell.
        """
        token, rules = self._token, self._plane.rules
        if not (token.limits or rules.on_requests):
            return None
        if rules.on_requests:
            subject = Subject(token.name, token.owner, self._inbound.model, self._path)
            limits = rules.for_request(subject, token.limits, token.counted_as)
        else:
            limits = rules.of_token(token.limits, token.counted_as)
        if not limits.checks:
            return None
        charges = self._charges(limits, target) if limits.sized else ONE
        quotas = self._quotas
        outcome = (quotas.decide if limits.patient else quotas.decide_at_once)(limits, charges)
        if isinstance(outcome, Lease) and not outcome.notable:
            self._record.lease = outcome
            quotas.admitted.total += 1
            return None
        if outcome is None:
            return self._wait(limits, charges)
        self._take(outcome)
        return None

    async def _wait(self, limits: Limits, charges: Amounts) -> None:
        self._take(await self._quotas.wait(limits, charges, self._record))

    def _take(self, outcome: Admission) -> None:
        if isinstance(outcome, Lease):
            self._record.lease = outcome
        self._quotas.tell(outcome, self._token)
        if isinstance(outcome, Refused):
            raise _exceeded(outcome)
        if isinstance(outcome, Unavailable):
            raise _unavailable(outcome.retry_after_seconds)

    def admit_at(self, target: Target, credential: str) -> Awaitable[None] | None:
        """Before an attempt. Gives what has to be waited for; both it and this raise.

        Raises:
            TargetLimited: a limit on the target does not allow it, or nobody can tell.
        """
        token, rules = self._token, self._plane.rules
        if rules.ruled_by_target:
            inbound = self._inbound
            subject = Subject(token.name, token.owner, inbound.model, self._path, target.provider, credential)
            limits = rules.for_target(subject)
        else:
            limits = rules.of_target(target.provider, credential)
        if not limits.checks:
            return None
        charges = self._charges(limits, target) if limits.sized else ONE
        quotas = self._quotas
        outcome = (quotas.decide if limits.patient else quotas.decide_at_once)(limits, charges)
        if isinstance(outcome, Lease) and not outcome.notable:
            self._at_target = outcome
            quotas.admitted.total += 1
            return None
        if outcome is None:
            return self._wait_at(limits, charges)
        self._take_at(outcome)
        return None

    async def _wait_at(self, limits: Limits, charges: Amounts) -> None:
        self._take_at(await self._quotas.wait(limits, charges, self._record))

    def _take_at(self, outcome: Admission) -> None:
        if isinstance(outcome, Lease):
            self._at_target = outcome
        self._quotas.tell(outcome, self._token)
        if isinstance(outcome, Refused):
            retry = outcome.retry_after_seconds
            if retry is not None and (self._soonest is None or retry < self._soonest):
                self._soonest = retry
            limited = CredentialLimited if outcome.limit.scope.has(ScopeKind.CREDENTIAL) else TargetLimited
            raise limited(f"the target's limit is reached: {outcome.limit.terms}")
        if isinstance(outcome, Unavailable):
            self._unavailable = outcome.retry_after_seconds
            raise TargetLimited("the limits of the target cannot be told at the moment")

    def _charges(self, limits: Limits, target: Target) -> Amounts:
        if self._size is None:
            self._size = self._measured()
        input_tokens, output_tokens = self._size
        nano_usd = 0
        if limits.priced:
            nano_usd = self._plane.prices.quote(target.provider, target.model, input_tokens, output_tokens)
        return used(input_tokens, output_tokens, nano_usd, 1)

    def _measured(self) -> tuple[int, int]:
        """How many tokens are reserved, of input and of output."""
        inbound = self._inbound
        document = inbound.document
        if document is None:
            return 0, 0
        data = document.data
        short = len(data) <= _SHORT_BYTES
        # What is reserved is given back soon: of a short request it may be a little more.
        taken = len(data) // TEXT_BYTES if short else estimated_input(inbound)
        if not self._endpoint.writes:
            return taken, 0
        asked = None if short and b"max_" not in data else asked_output(inbound)
        return taken, self._plane.assumed_output_tokens if asked is None else asked

    def attempt_failed(self, error: UpstreamError) -> None:
        """The attempt is over without output. What may have reached the provider counts there as a request."""
        lease, self._at_target = self._at_target, None
        if lease is not None:
            self._end(lease, NOTHING if error.delivered is Delivered.NO else _ONE_USED)

    def give_up(self, error: UpstreamError) -> None:
        """No attempt is left. Where limits held back the last target the client is told when to come again.

        Raises:
            LimitExceeded, QuotasUnavailable: that.
        """
        if not isinstance(error, TargetLimited):
            return
        if self._unavailable is not None:
            raise _unavailable(self._unavailable) from None
        soonest = self._soonest
        message = "the limits of every target that could answer are reached"
        raise LimitExceeded(f"{message}{_when(soonest)}", retry_after_seconds=soonest) from None

    def settle(self) -> None:
        """The exchange is over: its leases end."""
        record = self._record
        own, at_target, usage = record.lease, self._at_target, record.usage
        actual = _ONE_USED
        if usage is not None:
            actual = used(usage.input_tokens, usage.output_tokens, record.cost_nano_usd or 0)
        elif record.cost_nano_usd:
            actual = used(nano_usd=record.cost_nano_usd)
        if own is not None:
            self._end(own, actual if usage is not None or _counts(record) else NOTHING)
        if at_target is not None:
            # It was under way.
            self._end(at_target, actual)

    def _end(self, lease: Lease, actual: Amounts) -> None:
        (self._quotas.settle if lease.limits.patient else self._quotas.settle_at_once)(lease, actual)


def _counts(record: Record) -> bool:
    """Whether a request without usage is one for its caller: it was answered, or it is by its caller's doing that it was not.

    Were those given back, who sends what providers refuse, or leaves before the answer, would have no limit.
    """
    if record.first_byte_at is not None or isinstance(record.error, UpstreamRejected | CallerError):
        return True
    return record.attempts > 0 and (record.client_gone or record.exchange.closed)


def _exceeded(refused: Refused) -> LimitExceeded:
    limit = refused.limit
    words = " and ".join(_WHOSE[kind] for kind, _ in limit.scope.named if kind in _WHOSE)
    terms = f"{limit.terms} for {words}" if words else str(limit.terms)
    retry = refused.retry_after_seconds
    if retry is None:
        message = f"the request needs more than a limit allows at all ({terms}): send less, or ask for fewer tokens"
    else:
        message = f"a limit is reached ({terms}){_when(retry)}"
    return LimitExceeded(
        message,
        retry_after_seconds=retry,
        spent=limit.metric is Metric.USD,
        headers=tuple(rate_limit_headers(refused)),
    )


def _when(seconds: float | None) -> str:
    return "" if seconds is None else f": try again in {max(ceil(seconds), 1)} s"


def _unavailable(seconds: float) -> QuotasUnavailable:
    return QuotasUnavailable(
        "limits cannot be counted at the moment: try again in a moment", retry_after_seconds=max(seconds, 1.0)
    )
