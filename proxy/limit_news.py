"""What of limits is worth telling, each once: that so much of one is used, and that one is used up."""

from collections.abc import Callable
from typing import Any

from access.quotas.amounts import Metric
from access.quotas.limits import Limit, Scope, ScopeKind
from access.quotas.outcomes import Counter, Lease, Refused
from core.events import BudgetThreshold, Event, QuotaExceeded, QuotaThreshold
from core.identity import ApiToken

_MOST_REMEMBERED = 10_000
_SILENCE_MS = 60_000
"""What has no window is told again after this."""
_EXCEEDED = 1.0


class LimitNews:
    """Tells observers. Remembers what it has told of windows that last, of a bounded number of them."""

    __slots__ = ("_emit", "_told")

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._told: dict[tuple[str, int, float], int] = {}
        """Until when, in Unix milliseconds, by counter, amount and share."""

    def admitted(self, lease: Lease, token: ApiToken) -> bool:
        """Look at a request's counters. Gives whether a limit in shadow would have refused it."""
        exceeded = False
        limits = lease.limits
        for limit, place in zip(limits.all, limits.places, strict=True):
            counter = lease.counters[place]
            if limit.shadow and counter.used > limit.amount:
                exceeded = True
                self._tell(limit, counter, _EXCEEDED, lease.now, token)
            if limit.window is not None:
                for share in limits.thresholds:
                    if counter.used < share * limit.amount:
                        break
                    self._tell(limit, counter, share, lease.now, token)
        return exceeded

    def refused(self, refused: Refused, token: ApiToken) -> None:
        """A limit has refused a request."""
        counter = Counter(refused.limit.key, refused.now + int(refused.reset_seconds * 1000), refused.used)
        self._tell(refused.limit, counter, _EXCEEDED, refused.now, token)

    def _tell(self, limit: Limit, counter: Counter, share: float, now: int, token: ApiToken) -> None:
        key = (counter.key, limit.amount, share)
        if self._told.get(key, 0) > now:
            return
        if len(self._told) >= _MOST_REMEMBERED:
            self._told = {each: until for each, until in self._told.items() if until > now}
        if len(self._told) >= _MOST_REMEMBERED:
            self._told.clear()  # rather told twice than not at all
        self._told[key] = counter.end if counter.end > now else now + _SILENCE_MS
        self._emit(_event(limit, counter, share, now, token))


def _event(limit: Limit, counter: Counter, share: float, now: int, token: ApiToken) -> Event:
    scope = _named(limit.scope, token)
    names = {kind.value: name for kind, name in scope.named}
    facts: dict[str, Any] = {
        "limit": str(limit.terms),
        "metric": limit.metric.word,
        "per": limit.window.word if limit.window is not None else None,
        "amount": limit.amount,
        "used": counter.used,
        "scope": str(scope),
        "token": names.get("token"),
        "owner": names.get("owner"),
        "provider": names.get("provider"),
        "credential": names.get("credential"),
        "reset_seconds": max(counter.end - now, 0) / 1000,
        "shadow": limit.shadow,
    }
    if share == _EXCEEDED:
        return QuotaExceeded(**facts)
    kind = BudgetThreshold if limit.metric is Metric.USD else QuotaThreshold
    return kind(share=share, **facts)


def _named(scope: Scope, token: ApiToken) -> Scope:
    """A token's own limits are counted under another name than it has."""
    own = (ScopeKind.TOKEN, token.counted_as)
    return Scope(((ScopeKind.TOKEN, token.name),)) if scope.named == (own,) else scope
