"""What comes of asking whether a request may go: a lease, a refusal that says why, or that nobody can tell."""

from collections.abc import Iterator, Sequence
from copy import copy
from math import inf

import msgspec

from access.quotas.amounts import Amounts, Metric
from access.quotas.limits import Limit, Limits

HELD_RETRY_SECONDS = 1.0
"""What is told where requests under way must end first, as nobody knows when they do."""


class Standing(msgspec.Struct, frozen=True):
    """How one limit stands."""

    limit: Limit
    used: int
    """With what is reserved; it may be above the amount: requests may use more than they were expected to."""
    reset_seconds: float
    """Until its window ends; 0 where there is none."""

    @property
    def remaining(self) -> int:
        return max(self.limit.amount - self.used, 0)

    @property
    def exceeded(self) -> bool:
        """Whether more is used than the limit allows, as may be with one in shadow."""
        return self.used > self.limit.amount


class Counter(msgspec.Struct, gc=False):
    """What is used in a window, or is under way."""

    key: str
    end: int
    """The first moment after the window, in Unix milliseconds; 0: there is none, or none has begun."""
    used: int
    made_up: bool = False
    """Whether it is of a name that a client chose."""


class Lease(msgspec.Struct, gc=False):
    """The admission of one request: what is reserved, and where. Ended by the store's ``settle`` or ``release``."""

    limits: Limits
    reserved: Amounts
    counters: Sequence[Counter]
    """Those that were charged, for each of the limits' checks: as they were then or, where they are in memory, are now."""
    now: int
    """When it was admitted, in Unix milliseconds, by the store's clock."""
    notable: bool = False
    """Whether a counter is as high as is worth telling."""
    open: bool = True
    waited: bool = False
    """Whether the request had to wait for it."""

    def standings(self) -> Iterator[Standing]:
        """Of every limit, those in shadow too."""
        return _standings(self.limits, self.counters, self.now)


class Refused(msgspec.Struct, frozen=True):
    """A limit does not allow the request. Nothing was counted."""

    limit: Limit
    """The one that holds longest."""
    used: int
    reset_seconds: float
    """Until its window ends."""
    retry_after_seconds: float | None
    """When it is worth asking again; None: never, as the request alone is more than the limit's amount."""
    limits: Limits
    counters: Sequence[Counter]
    """For each of the limits' checks, as they were then."""
    now: int
    """When it was refused, in Unix milliseconds, by the store's clock."""

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Of every limit, those in shadow too."""
        return tuple(_standings(self.limits, self.counters, self.now))

    @property
    def remaining(self) -> int:
        return max(self.limit.amount - self.used, 0)

    def __str__(self) -> str:
        if self.retry_after_seconds is None:
            return f"the request needs more than {self.limit.terms} allows at all"
        return f"{self.limit.terms}: used up"


class Unavailable(msgspec.Struct, frozen=True):
    """The store of the counters does not answer, and the configuration says to refuse then."""

    retry_after_seconds: float


Admission = Lease | Refused | Unavailable


def refused(limits: Limits, charges: Amounts, counters: Sequence[Counter], now: int) -> Refused:
    """Why a request is refused whose ``counters`` stand so, the one reason that holds longest."""
    chosen: Standing | None = None
    longest = -1.0
    for standing in _standings(limits, counters, now):
        limit = standing.limit
        charge = charges[limit.metric]
        if limit.shadow or standing.used + (charge or 1) <= limit.amount:
            continue
        if limit.metric is Metric.CONCURRENCY:
            wait = HELD_RETRY_SECONDS
        elif charge > limit.amount:
            wait = inf
        else:
            wait = standing.reset_seconds
        if wait > longest:
            chosen, longest = standing, wait
    assert chosen is not None, "nothing refuses"
    retry = None if longest == inf else longest
    kept = tuple(map(copy, counters))  # in memory they go on
    return Refused(chosen.limit, chosen.used, chosen.reset_seconds, retry, limits, kept, now)


def _standings(limits: Limits, counters: Sequence[Counter], now: int) -> Iterator[Standing]:
    for limit, place in zip(limits.all, limits.places, strict=True):
        counter = counters[place]
        yield Standing(limit, counter.used, max(counter.end - now, 0) / 1000)
