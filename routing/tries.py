"""The attempts at one request, as a pure state machine: no clock, no IO; time and randomness are passed in.

::

    next(now) ──► Attempt ──► succeeded(attempt, now)                            the end
        ▲                └──► failed(attempt, error, now, resendable) ──► GIVE_UP    the end
        └───────────────────────────────────── RETRY | FALLBACK ◄──┘

What follows a failure, by the error's scope (:class:`core.errors.RetryScope`):

=================  ==============================================================================================
NEVER              give up; but `fallbacks.context` or `fallbacks.content`, if it is configured, for its own error
OTHER_CREDENTIAL   the same target with another credential; another target; the next group;
                   last the same again, if the provider named a time that we can wait out
SAME_TARGET        a target of the group not tried yet; one tried before, after a pause; the next group;
                   last one tried before, though its failures have taken it out of rotation meanwhile
OTHER_TARGET       the same, but never this target again
=================  ==============================================================================================

A group takes at most `retry.attempts` attempts and is entered at most once: there are never more than attempts × groups.
"""

from collections.abc import Callable, Collection
from enum import Enum
from math import inf

import msgspec

from core.errors import (
    CredentialsRejected,
    Delivered,
    RetryScope,
    UpstreamError,
)
from routing.cooldown import Cooldowns, Reason
from routing.plan import CredentialPools, Group, Plan, Random, Target
from routing.rests import pool_rest, reason_of, soonest
from routing.strategies import STRATEGIES

_Key = tuple[str, str | None]
# `now + (until - now)` need not be `until` in floating point.
_ROUNDING = 1e-6


class Verdict(Enum):
    """What follows a failed attempt."""

    RETRY = "retry"
    """Again within the group: call ``next``."""
    FALLBACK = "fallback"
    """On to another group: call ``next``."""
    GIVE_UP = "give_up"
    """The error is the answer."""


class Attempt(msgspec.Struct, frozen=True):
    """One try."""

    number: int
    """From 1, over all groups."""
    target: Target
    credential: str
    wait_seconds: float
    """How long to wait before it is made."""
    group: int
    """0: the plan's first; fallback groups count on from 1 in the order in which they are entered or passed over."""
    probe: bool = False
    """Whether the target is cooling, and is tried because there is no other."""


class Tries:
    """The attempts at one request: ``next`` and then exactly one of ``succeeded`` and ``failed``, until the end."""

    __slots__ = (
        "_at",
        "_backoffs",
        "_barred",
        "_cooldowns",
        "_current",
        "_group",
        "_in_group",
        "_kinds",
        "_last",
        "_maybe_delivered",
        "_number",
        "_pending",
        "_place",
        "_plan",
        "_pools",
        "_queue",
        "_random",
        "_ready",
        "_spent",
        "_tried",
    )

    def __init__(
        self, plan: Plan, cooldowns: Cooldowns, credentials: CredentialPools, random: Random, *, maybe_delivered: bool
    ) -> None:
        """``maybe_delivered``: whether a request that a provider may have begun is tried again."""
        self._plan = plan
        self._cooldowns = cooldowns
        self._pools = credentials
        self._random = random
        self._maybe_delivered = maybe_delivered
        self._group = plan.first
        self._place = 0  # of the group in the order of entering
        self._in_group = 0  # attempts begun in it
        self._queue: tuple[Group, ...] = plan.fallbacks.error
        self._kinds = {"error"}  # kinds of fallback whose groups have been queued
        self._number = self._backoffs = 0
        self._current: Attempt | None = None
        self._pending: Attempt | None = None
        self._tried: set[_Key] = set()
        self._barred: set[_Key] = set()
        self._ready: dict[_Key, float] = {}  # when a target may be tried again, as it asked itself
        self._spent: dict[tuple[str, str], float] = {}  # refused credentials, and until when
        self._last = "not begun"
        self._at: Target | None = None

    def next(self, now: float) -> Attempt:
        """The attempt to make, after its wait.

        When every target cools, the one that does so for the shortest time is tried all the same: a cooldown is a guess,
        and no guess of ours may be an outage. Targets whose provider limited the rate and named a time are no guess.

        Raises:
            TargetsRateLimited: every target is rate-limited until a time that its provider named;
                ``retry_after_seconds`` is the soonest.
            NoTargetAvailable: no target has a credential that can be used.
            RuntimeError: not the time to call: an attempt is under way, or it was given up.
        """
        if self._number == 0:
            attempt = self._begin(now)
        elif self._pending is not None:
            attempt = self._pending
        else:
            raise RuntimeError(f"no attempt is due: {self!r}")
        self._pending = None
        self._current = attempt
        self._number = attempt.number
        self._in_group += 1
        self._tried.add(attempt.target.key)
        targets = self._group.targets
        self._group.rotation.last = targets.index(attempt.target) if len(targets) > 1 else 0
        self._last, self._at = "trying", attempt.target
        return attempt

    def succeeded(self, attempt: Attempt, now: float) -> None:
        """The attempt gave its first real output: from here on nothing is tried again."""
        self._end(attempt)
        key = attempt.target.key
        self._cooldowns.succeeded(*key)
        if attempt.probe:
            self._cooldowns.restore(*key)
        self._last, self._at = "succeeded at", attempt.target

    def failed(self, attempt: Attempt, error: UpstreamError, now: float, resendable: bool) -> Verdict:
        """Count the failure, cool down what is at fault and decide what follows.

        ``resendable``: whether the request's body can be sent once more (a streamed one cannot, once it is begun).
        """
        self._end(attempt)
        other = self._cool(attempt, error, now)
        self._note(attempt, error, now)
        self._last, self._at = f"{error.code} from", attempt.target
        if not resendable or (error.delivered is Delivered.MAYBE and not self._maybe_delivered):
            return Verdict.GIVE_UP
        place = self._place
        self._pending = self._follow(attempt, error, other, now)
        if self._pending is None:
            return Verdict.GIVE_UP
        return Verdict.RETRY if self._place == place else Verdict.FALLBACK

    def _end(self, attempt: Attempt) -> None:
        if attempt is not self._current:
            raise RuntimeError(f"attempt {attempt.number} is not under way: {self!r}")
        self._current = None

    # What a failure leaves behind

    def _cool(self, attempt: Attempt, error: UpstreamError, now: float) -> str | None:
        """Take what is at fault out of rotation. Gives the credential to go on with, where that is at fault."""
        target = attempt.target
        asked = error.retry_after_seconds
        credential: str | None = None
        if error.retry is RetryScope.OTHER_CREDENTIAL:
            exclude = {*self._excluded(target.provider, now), attempt.credential}
            credential = self._pools.choose(target.provider, exclude, now, self._random, target.model, target.prefix)
        if not error.cools_down:
            return credential
        rules = self._plan.cooldown
        seconds = min(rules.seconds if asked is None else asked, rules.max_seconds)
        if error.retry is RetryScope.OTHER_CREDENTIAL:
            reason = reason_of(error)
            several = len(self._pools.names(target.provider)) > 1
            if several:
                self._cooldowns.cool_credential(
                    target.provider,
                    attempt.credential,
                    reason=reason,
                    seconds=seconds,
                    now=now,
                    asked=asked is not None,
                )
            if credential is not None or (several and target.prefix is not None):
                # Without the prefix others may serve the target.
                return credential
            seconds = min(seconds, pool_rest(self._cooldowns, self._pools, target, now, seconds))
        elif asked:
            reason = Reason.RETRY_AFTER
        else:
            reason = Reason.FAILURES
            if self._cooldowns.count_failure(*target.key) < rules.after_failures:
                return None
            seconds = min(rules.seconds, rules.max_seconds)
        self._cooldowns.cool_target(
            *target.key, label=target.label, reason=reason, seconds=seconds, now=now, asked=asked is not None
        )
        return credential

    def _note(self, attempt: Attempt, error: UpstreamError, now: float) -> None:
        """Remember, for this exchange, what may not be tried again, or not yet."""
        key, asked = attempt.target.key, error.retry_after_seconds
        too_long = asked is not None and asked > self._plan.retry.max_backoff_seconds
        if error.retry in (RetryScope.NEVER, RetryScope.OTHER_TARGET):
            self._barred.add(key)
        elif error.retry is RetryScope.OTHER_CREDENTIAL:
            again = inf if asked is None or too_long or isinstance(error, CredentialsRejected) else now + asked
            self._spent[attempt.target.provider, attempt.credential] = again
            if again != inf:
                self._ready[key] = again
        elif too_long:
            self._barred.add(key)
        elif asked:
            self._ready[key] = now + asked

    def _excluded(self, provider: str, when: float) -> set[str]:
        return {credential for (owner, credential), until in self._spent.items() if owner == provider and until > when}

    # What comes next

    def _follow(self, attempt: Attempt, error: UpstreamError, other: str | None, now: float) -> Attempt | None:
        if error.retry is RetryScope.NEVER:
            return self._follow_kind(error.fallback, now)
        left = self._in_group < self._plan.retry.attempts

        def here(find: Callable[[Group, float], Attempt | None]) -> Attempt | None:
            return find(self._group, now) if left else None

        if error.retry is RetryScope.OTHER_CREDENTIAL:
            if left and other is not None and self._cooldowns.target(*attempt.target.key, now) is None:
                return self._attempt(attempt.target, other, 0.0)
            return here(self._untried) or self._enter(now) or here(self._again)
        return here(self._untried) or here(self._again) or self._enter(now) or here(self._again_though_cooling)

    def _follow_kind(self, kind: str, now: float) -> Attempt | None:
        """On to the groups for errors of ``kind``, or further along them."""
        if kind == "error":
            return None
        groups = self._plan.fallbacks.of(kind)
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._queue = groups
        elif not any(self._group is group for group in groups):
            return None  # they have been left again
        return self._enter(now)

    def _enter(self, now: float) -> Attempt | None:
        """Go on to the first group of the queue that has a target to offer."""
        for passed, group in enumerate(self._queue, 1):
            attempt = self._untried(group, now) or self._again(group, now)
            if attempt is not None:
                return self._into(passed, attempt)
        return None

    def _into(self, passed: int, attempt: Attempt) -> Attempt:
        """Make the ``passed``-th group of the queue the current one."""
        self._group = self._queue[passed - 1]
        self._queue = self._queue[passed:]
        self._place += passed
        self._in_group = 0
        return msgspec.structs.replace(attempt, group=self._place)

    def _begin(self, now: float) -> Attempt:
        target = self._group.targets[0]
        if (
            len(self._group.targets) == 1  # the usual case: nothing to choose among
            and self._cooldowns.target(*target.key, now) is None
            and (credential := self._credential(target, now)) is not None
        ):
            return self._attempt(target, credential, 0.0)
        return self._untried(self._group, now) or self._enter(now) or self._probe(now)

    def _untried(self, group: Group, now: float) -> Attempt | None:
        """A target that this exchange has not tried and that is in rotation, at once."""
        positions = [
            position
            for position, target in enumerate(group.targets)
            if target.key not in self._tried and self._cooldowns.target(*target.key, now) is None
        ]
        return self._choose(group, positions, now, 0.0)

    def _again(self, group: Group, now: float) -> Attempt | None:
        """A target that has been tried, after a pause, unless it cools for longer than it asked this exchange to wait."""
        ready = {
            position: max(now, self._ready.get(target.key, now))
            for position, target in enumerate(group.targets)
            if target.key in self._tried and target.key not in self._barred
        }
        for position in list(ready):
            cooled = self._cooldowns.target(*group.targets[position].key, now)
            if cooled is not None and cooled.until > ready[position] + _ROUNDING:
                del ready[position]
        return self._pause(group, ready, now)

    def _again_though_cooling(self, group: Group, now: float) -> Attempt | None:
        """The last resort: the next request would try a target that our own guess took out, so this one may, too."""
        ready: dict[int, float] = {}
        for position, target in enumerate(group.targets):
            cooled = self._cooldowns.target(*target.key, now)
            if cooled is not None and cooled.reason is Reason.FAILURES and target.key in self._tried - self._barred:
                ready[position] = now
        attempt = self._pause(group, ready, now)
        return attempt and msgspec.structs.replace(attempt, probe=True)

    def _pause(self, group: Group, ready: dict[int, float], now: float) -> Attempt | None:
        """One of the positions that are ready soonest, after what the provider asked for or backoff with full jitter.

        Backoff: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        """
        if not ready:
            return None
        retry = self._plan.retry
        soonest = min(ready.values())
        bound = min(retry.max_backoff_seconds, retry.backoff_seconds * 2.0**self._backoffs)
        # `soonest - now` is within the maximum but for a last binary digit.
        wait = min(retry.max_backoff_seconds, max(soonest - now, self._random() * bound))
        positions = [position for position, when in ready.items() if when == soonest]
        attempt = self._choose(group, positions, max(soonest, now + wait), wait)
        self._backoffs += attempt is not None
        return attempt

    def _choose(self, group: Group, positions: list[int], when: float, wait: float) -> Attempt | None:
        """The strategy's choice among those ``positions`` that have a credential at the time of dialling."""
        strategy = STRATEGIES[group.strategy]
        while positions:
            position = strategy(positions, group.weights, group.rotation.last, self._random)
            target = group.targets[position]
            credential = self._credential(target, when)
            if credential is not None:
                return self._attempt(target, credential, wait)
            positions = [other for other in positions if other != position]
        return None

    def _credential(self, target: Target, when: float) -> str | None:
        exclude: Collection[str] = self._excluded(target.provider, when) if self._spent else ()
        return self._pools.choose(target.provider, exclude, when, self._random, target.model, target.prefix)

    def _attempt(self, target: Target, credential: str, wait: float) -> Attempt:
        return Attempt(self._number + 1, target, credential, wait, self._place)

    def _probe(self, now: float) -> Attempt:
        """Nothing is in rotation at the start: the target that will be soonest."""
        rest = soonest(self._cooldowns, self._pools, (self._group, *self._queue), now)
        target = rest.target
        credential = self._pools.choose(target.provider, (), rest.until, self._random, target.model, target.prefix)
        if credential is None:  # a pool cools for longer than its target
            credential = self._pools.candidates(target.provider, target.model, target.prefix)[0]
        attempt = msgspec.structs.replace(self._attempt(target, credential, 0.0), probe=True)
        return attempt if rest.place == 0 else self._into(rest.place, attempt)

    def __repr__(self) -> str:
        due = self._pending
        then = f"; next {due.target} in {due.wait_seconds:g} s" if due is not None else ""
        last = self._last if self._at is None else f"{self._last} {self._at}"
        tried = ", ".join(sorted("/".join(filter(None, key)) for key in self._tried)) or "nothing"
        return (
            f"<Tries: {last}{then}; attempt {self._number}, {self._in_group} of {self._plan.retry.attempts} "
            f"in group {self._place}, {len(self._queue)} groups left; tried {tried}>"
        )
