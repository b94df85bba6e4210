"""Tries keeps its bounds, whatever fails in whatever way."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from config.schema import Cooldown, Credential, Provider, Retry
from core.errors import (
    ConnectFailed,
    ContentRefused,
    ContextExceeded,
    CredentialsRejected,
    Delivered,
    RetryScope,
    TargetsRateLimited,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from core.secret import Secret
from credentials.pool import Pools
from routing.cooldown import Cooldowns
from routing.plan import Fallbacks, Group, Plan, PlanTimeouts, Step, Target
from routing.strategies import STRATEGIES
from routing.tries import Attempt, Tries, Verdict


class Misplaced(UpstreamError):
    retry = RetryScope.OTHER_TARGET


waits = st.none() | st.sampled_from([0.0, 0.1, 1.0, 7.9, 8.0, 8.1, 1000.0])
errors: st.SearchStrategy[UpstreamError] = st.one_of(
    st.just(ConnectFailed("e", delivered=Delivered.NO)),
    st.just(Misplaced("e")),
    waits.map(lambda wait: UpstreamUnavailable("e", upstream_status=503, retry_after_seconds=wait)),
    waits.map(lambda wait: UpstreamRateLimited("e", upstream_status=429, retry_after_seconds=wait)),
    st.just(CredentialsRejected("e", upstream_status=401)),
    st.sampled_from([UpstreamRejected, ContextExceeded, ContentRefused]).map(
        lambda kind: kind("e", upstream_status=400)
    ),
)
targets = st.builds(Target, st.sampled_from("abc"), st.sampled_from(["1", "2", None]), st.just("*"), st.integers(0, 3))
groups = st.builds(Group.of, st.lists(targets, min_size=1, max_size=4).map(tuple), st.sampled_from(sorted(STRATEGIES)))
lists = st.lists(groups, max_size=2).map(tuple)
plans = st.builds(
    Plan,
    st.just("x"),
    st.just("x"),
    st.just("r"),
    st.just(Step.ROUTE),
    groups,
    st.just(dict.fromkeys("abc", PlanTimeouts())),
    fallbacks=st.builds(Fallbacks, lists, lists, lists),
    retry=st.builds(Retry, attempts=st.integers(1, 4), backoff_seconds=st.sampled_from([0.0, 0.25, 100.0])),
    cooldown=st.builds(Cooldown, after_failures=st.integers(1, 3), seconds=st.sampled_from([0.0, 1.0, 10.0])),
)
# What becomes of each attempt: an error (None: success), how long it took, whether the body could be sent again.
outcomes = st.lists(
    st.tuples(st.none() | errors, st.sampled_from([0.0, 0.3, 9.0]), st.booleans()), min_size=30, max_size=40
)


def pools(cooldowns: Cooldowns) -> Pools:
    def provider(name: str, keys: int) -> Provider:
        credentials = tuple(Credential(name=f"k{each}", api_key=Secret.literal("k")) for each in range(keys))
        return Provider(name=name, type="openai", credentials=credentials)

    return Pools([provider("a", 0), provider("b", 1), provider("c", 3)], cooldowns)


def exchange(tries: Tries, script: list[tuple[UpstreamError | None, float, bool]], now: float) -> list[Attempt]:
    """Play one request to its end; ``script`` is used up from its front."""
    attempts: list[Attempt] = []
    while True:
        try:
            attempt = tries.next(now)
        except TargetsRateLimited as refusal:
            soonest = refusal.retry_after_seconds
            break
        attempts.append(attempt)
        now += attempt.wait_seconds
        error, seconds, resendable = script.pop(0) if script else (None, 0.0, True)
        now += seconds
        if error is None:
            tries.succeeded(attempt, now)
            return attempts
        verdict = tries.failed(attempt, error, now, resendable=resendable or len(script) > 20)
        repr(tries)
        if verdict is Verdict.GIVE_UP:
            return attempts
    assert [] == attempts  # only before the first
    assert soonest is not None
    assert soonest > 0
    return attempts


@settings(max_examples=200, deadline=None)
@given(plans, outcomes, st.randoms(use_true_random=False), st.booleans())
def test_tries_never_exceeds_its_bounds(
    plan: Plan, script: list[tuple[UpstreamError | None, float, bool]], random: Random, maybe_delivered: bool
) -> None:
    draw = random.random
    cooldowns = Cooldowns()
    everything = [plan.first, *plan.fallbacks.error, *plan.fallbacks.context, *plan.fallbacks.content]
    now = 1000.0
    for _ in range(3):  # each request meets the cooldowns of those before
        tries = Tries(plan, cooldowns, pools(cooldowns), draw, maybe_delivered=maybe_delivered)
        now += 0.5
        attempts = exchange(tries, script, now)
        assert len(attempts) <= plan.retry.attempts * len(everything)
        assert list(range(1, len(attempts) + 1)) == [attempt.number for attempt in attempts]
        per_group = Counter(attempt.group for attempt in attempts)
        assert all(count <= plan.retry.attempts for count in per_group.values())
        assert [attempt.group for attempt in attempts] == sorted(attempt.group for attempt in attempts)
        assert all(0 <= attempt.wait_seconds <= plan.retry.max_backoff_seconds for attempt in attempts)
        assert all(any(attempt.target in group.targets for group in everything) for attempt in attempts)
        assert all(0 == attempt.wait_seconds for attempt in attempts[:1])


@settings(max_examples=100, deadline=None)
@given(plans, st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_target_that_is_misplaced_is_dialled_once(plan: Plan, count: int, random: Random) -> None:
    cooldowns = Cooldowns()
    tries = Tries(plan, cooldowns, pools(cooldowns), random.random, maybe_delivered=True)
    script: list[tuple[UpstreamError | None, float, bool]] = [(Misplaced("e"), 0.0, True)] * count
    dialled = [attempt.target.key for attempt in exchange(tries, script, 1000.0)]
    assert len(dialled) == len(set(dialled))


@settings(max_examples=100, deadline=None)
@given(plans, st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_refused_credential_is_not_used_again_for_the_request(plan: Plan, count: int, random: Random) -> None:
    cooldowns = Cooldowns()
    tries = Tries(plan, cooldowns, pools(cooldowns), random.random, maybe_delivered=True)
    refusal = CredentialsRejected("e", upstream_status=401)
    script: list[tuple[UpstreamError | None, float, bool]] = [(refusal, 0.0, True)] * count
    used = [(attempt.target.provider, attempt.credential) for attempt in exchange(tries, script, 1000.0)]
    assert len(used) == len(set(used))
