"""What comes of asking whether a request may go: a lease, a refusal that says why, or that nobody can tell."""

from collections.abc import Iterator, Sequence
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


class Lease(msgspec.Struct):
    """The admission of one request: what is reserved, and where. Ended by the store's ``settle`` or ``release``."""

    limits: Limits
    reserved: Amounts
    keys: Sequence[str]
    """Of the counters that were charged, for each of the limits' checks."""
    ends: Sequence[int]
    """When the windows end that were charged, in Unix milliseconds; 0 for concurrency."""
    used: Sequence[int]
    """What the counters stand at since."""
    now: int
    """When it was admitted, in Unix milliseconds, by the store's clock."""
    open: bool = True

    def standings(self) -> Iterator[Standing]:
        """Of every limit, those in shadow too, as the request was admitted."""
        return _standings(self.limits, self.used, self.ends, self.now)


class Refused(msgspec.Struct, frozen=True):
    """A limit does not allow the request. Nothing was counted."""

    limit: Limit
    """The one that holds longest."""
    used: int
    reset_seconds: float
    """Until its window ends."""
    retry_after_seconds: float | None
    """When it is worth asking again; None: never, as the request alone is more than the limit's amount."""
    standings: tuple[Standing, ...]

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


def refused(limits: Limits, charges: Amounts, used: Sequence[int], ends: Sequence[int], now: int) -> Refused:
    """Why a request is refused whose counters stand at ``used``, the one reason that holds longest."""
    standings = tuple(_standings(limits, used, ends, now))
    chosen: Standing | None = None
    longest = -1.0
    for standing in standings:
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
    return Refused(chosen.limit, chosen.used, chosen.reset_seconds, retry, standings)


def _standings(limits: Limits, used: Sequence[int], ends: Sequence[int], now: int) -> Iterator[Standing]:
    for limit, place in zip(limits.all, limits.places, strict=True):
        yield Standing(limit, used[place], max(ends[place] - now, 0) / 1000)
