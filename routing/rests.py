"""What is out of rotation for a request, and until when; what can serve it not at all, and why."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from core.errors import (
    CredentialNotReady,
    NoTargetAvailable,
    TargetsRateLimited,
    UpstreamError,
    UpstreamRateLimited,
)
from routing.cooldown import Cooldowns, Reason
from routing.plan import CredentialPools, Group, Target


class Rest(NamedTuple):
    """A target that cools, or whose credentials all do."""

    until: float
    """Monotonic seconds."""
    limited: bool
    """Whether that is a rate limit's own word."""
    place: int
    """Of its group."""
    target: Target


def reason_of(error: UpstreamError) -> Reason:
    """Why a credential cools that ``error`` is the fault of."""
    if isinstance(error, UpstreamRateLimited):
        return Reason.RATE_LIMITED
    return Reason.CREDENTIAL_NOT_READY if isinstance(error, CredentialNotReady) else Reason.CREDENTIAL_REFUSED


def pool_rest(cooldowns: Cooldowns, pools: CredentialPools, target: Target, now: float, seconds: float) -> float:
    """How long until any credential of an exhausted pool is back; ``seconds`` where that is not known."""
    names = pools.candidates(target.provider, target.model, target.prefix)
    cooled = [cooldowns.credential(target.provider, name, now) for name in names]
    return min((each.until - now for each in cooled if each is not None), default=seconds)


def soonest(cooldowns: Cooldowns, pools: CredentialPools, groups: Iterable[Group], now: float) -> Rest:
    """Of targets that are all out of rotation at ``now``, the one to try all the same: a cooldown is a guess, and no guess
    of ours may be an outage. What a provider's rate limit says is none.

    Raises:
        TargetsRateLimited: of every target a rate limit says it; ``retry_after_seconds`` is the soonest.
        NoTargetAvailable: no target has a credential that can be used.
    """
    known = tuple(groups)
    rests = list(_rests(cooldowns, pools, known, now))
    if not rests:
        raise NoTargetAvailable(_lack(pools, known))
    guessed = [rest for rest in rests if not rest.limited]
    if not guessed:
        seconds = min(rest.until for rest in rests) - now
        raise TargetsRateLimited("every target is rate-limited by its provider", retry_after_seconds=seconds)
    return min(guessed, key=lambda rest: rest.until)


def _rests(cooldowns: Cooldowns, pools: CredentialPools, groups: Iterable[Group], now: float) -> Iterator[Rest]:
    for place, group in enumerate(groups):
        for target in group.targets:
            names = pools.candidates(target.provider, target.model, target.prefix)
            if not names:
                continue
            cooled = cooldowns.target(*target.key, now)
            if cooled is None:
                pool = [cooldowns.credential(target.provider, name, now) for name in names]
                cooled = min((each for each in pool if each is not None), key=lambda each: each.until)
            yield Rest(cooled.until, cooled.asked and cooled.reason is Reason.RATE_LIMITED, place, target)


def _lack(pools: CredentialPools, groups: Iterable[Group]) -> str:
    targets = (target for group in groups for target in group.targets)
    lacks = dict.fromkeys(pools.lack(target.provider, target.model, target.prefix) for target in targets)
    return "no target can be used: " + "; ".join(lacks)
