"""Tries, as transcripts: what is dialled, how it fails, what follows.

Time stands still unless a script says `later`; every draw is 0.5, so a backoff is half its bound: 0.5, 1, 2, … seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import pytest

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
    UpstreamTimeout,
    UpstreamUnavailable,
)
from core.secret import Secret
from credentials.pool import Pools
from routing.cooldown import Cooldowns, Cooled, Reason
from routing.plan import Fallbacks, Group, Plan, PlanTimeouts, Step, Target
from routing.tries import Attempt, Tries, Verdict

RETRY, FALLBACK, GIVE_UP = Verdict.RETRY, Verdict.FALLBACK, Verdict.GIVE_UP


class Misplaced(UpstreamError):
    """An error after which the target is of no use for this request."""

    retry = RetryScope.OTHER_TARGET
    cools_down = False


def busy(retry_after: float | None = None) -> UpstreamError:
    return UpstreamUnavailable("busy", upstream_status=503, retry_after_seconds=retry_after)


def limited(retry_after: float | None = None) -> UpstreamError:
    return UpstreamRateLimited("slow down", upstream_status=429, retry_after_seconds=retry_after)


def refused() -> UpstreamError:
    return CredentialsRejected("no", upstream_status=401)


def rejected(kind: type[UpstreamRejected] = UpstreamRejected) -> UpstreamError:
    return kind("bad request", upstream_status=400)


class Playbook:
    """One gateway's cooldowns and pools; and a script of one request after another."""

    def __init__(
        self,
        *targets: str,
        error: Sequence[Sequence[str]] = (),
        context: Sequence[Sequence[str]] = (),
        content: Sequence[Sequence[str]] = (),
        strategy: str = "first",
        pools: Mapping[str, Sequence[str]] | None = None,
        retry: Mapping[str, Any] | None = None,
        cooldown: Mapping[str, Any] | None = None,
        maybe_delivered: bool = True,
    ) -> None:
        def groups(lists: Sequence[Sequence[str]]) -> tuple[Group, ...]:
            return tuple(Group.of(tuple(map(target, names)), strategy) for names in lists)

        def target(name: str) -> Target:
            provider, _, model = name.partition("/")
            return Target(provider, model or None, model or "*")

        self.plan = Plan(
            requested_model="x",
            model="x",
            route="r",
            step=Step.ROUTE,
            first=groups([targets])[0],
            timeouts={"a": PlanTimeouts()},
            fallbacks=Fallbacks(groups(error), groups(context), groups(content)),
            retry=Retry(**{"attempts": 3, "backoff_seconds": 1, "max_backoff_seconds": 8, **(retry or {})}),
            cooldown=Cooldown(**{"after_failures": 100, "seconds": 10, "max_seconds": 60, **(cooldown or {})}),
        )
        self.told: list[Cooled] = []
        self.cooldowns = Cooldowns(self.told.append)
        providers = [
            Provider(
                name=name,
                type="openai",
                credentials=tuple(
                    Credential(name=key, api_key=Secret.literal("k")) for key in (pools or {}).get(name, ())
                ),
            )
            for name in "abcd"
        ]
        self.pools = Pools(providers, self.cooldowns)
        self.maybe_delivered = maybe_delivered
        self.now = 1000.0
        self.attempt: Attempt | None = None
        self.again()

    def again(self) -> Self:
        """Another request with the same plan."""
        self.tries = Tries(self.plan, self.cooldowns, self.pools, lambda: 0.5, maybe_delivered=self.maybe_delivered)
        self.number = 0
        return self

    def later(self, seconds: float) -> Self:
        self.now += seconds
        return self

    def dials(
        self, target: str, wait: float = 0.0, credential: str | None = None, group: int = 0, probe: bool = False
    ) -> Self:
        self.attempt = attempt = self.tries.next(self.now)
        self.number += 1
        assert (target, group, probe) == (str(attempt.target), attempt.group, attempt.probe)
        assert self.number == attempt.number
        assert pytest.approx(wait) == attempt.wait_seconds
        if credential is not None:
            assert credential == attempt.credential
        self.now += attempt.wait_seconds
        return self

    def fails(self, error: UpstreamError, then: Verdict, resendable: bool = True) -> Self:
        assert self.attempt is not None
        assert then is self.tries.failed(self.attempt, error, self.now, resendable=resendable)
        return self

    def succeeds(self) -> Self:
        assert self.attempt is not None
        self.tries.succeeded(self.attempt, self.now)
        return self

    def cooling(self) -> list[str]:
        return [
            f"{each.provider}/{each.model or each.credential} {each.reason.value} {each.until - self.now:g}"
            for each in self.cooldowns.current(self.now)
        ]

    def cool(
        self, provider: str, model: str, seconds: float, reason: Reason = Reason.FAILURES, asked: bool = False
    ) -> Self:
        self.cooldowns.cool_target(
            provider, model, label=model, reason=reason, seconds=seconds, now=self.now, asked=asked
        )
        return self


# The same group


def test_a_failed_target_is_left_for_one_not_tried_at_once() -> None:
    Playbook("a/1", "b/1").dials("a/1").fails(busy(), RETRY).dials("b/1").succeeds()


def test_when_all_were_tried_it_goes_back_with_growing_pauses() -> None:
    play = Playbook("a/1", retry={"attempts": 6, "max_backoff_seconds": 3})
    play.dials("a/1").fails(busy(), RETRY).dials("a/1", wait=0.5).fails(busy(), RETRY).dials("a/1", wait=1)
    play.fails(busy(), RETRY).dials("a/1", wait=1.5).fails(busy(), RETRY).dials("a/1", wait=1.5)
    play.fails(busy(), RETRY).dials("a/1", wait=1.5).fails(busy(), GIVE_UP)


def test_a_group_takes_so_many_attempts_and_no_more() -> None:
    play = Playbook("a/1", "b/1", "c/1", "d/1", retry={"attempts": 2})
    play.dials("a/1").fails(busy(), RETRY).dials("b/1").fails(busy(), GIVE_UP)


def test_one_attempt_is_no_retry() -> None:
    Playbook("a/1", retry={"attempts": 1}).dials("a/1").fails(busy(), GIVE_UP)


def test_a_retry_after_is_waited_for() -> None:
    play = Playbook("a/1").dials("a/1").fails(busy(5), RETRY)
    assert ["a/1 retry_after 5"] == play.cooling()
    play.dials("a/1", wait=5).succeeds()


def test_a_retry_after_shorter_than_the_backoff_is_no_shortcut() -> None:
    Playbook("a/1").dials("a/1").fails(busy(0.1), RETRY).dials("a/1", wait=0.5)


def test_the_target_that_is_ready_soonest_is_waited_for() -> None:
    play = Playbook("a/1", "b/1").dials("a/1").fails(busy(7), RETRY).dials("b/1").fails(busy(2), RETRY)
    play.dials("b/1", wait=2)


def test_a_target_that_asks_for_too_long_is_not_tried_again() -> None:
    Playbook("a/1").dials("a/1").fails(busy(8.5), GIVE_UP)
    play = Playbook("a/1", "b/1").dials("a/1").fails(busy(8.5), RETRY).dials("b/1").fails(busy(), RETRY)
    play.dials("b/1", wait=0.5)


def test_other_target_means_never_this_one_again() -> None:
    error = Misplaced("not here")
    Playbook("a/1").dials("a/1").fails(error, GIVE_UP)
    play = Playbook("a/1", "b/1", error=[["a/1", "c/1"]])
    play.dials("a/1").fails(error, RETRY).dials("b/1").fails(error, FALLBACK).dials("c/1", group=1)


def test_a_cooling_target_is_passed_over() -> None:
    play = Playbook("a/1", "b/1").cool("a", "1", 5)
    play.dials("b/1").fails(busy(), RETRY).dials("b/1", wait=0.5).later(5).fails(busy(), RETRY).dials("a/1")


def test_two_models_of_a_provider_are_two_targets() -> None:
    Playbook("a/1", "a/2").dials("a/1").fails(busy(), RETRY).dials("a/2").succeeds()


# Fallback


def test_when_a_group_is_used_up_the_next_has_attempts_of_its_own() -> None:
    play = Playbook("a/1", error=[["b/1"], ["c/1"]], retry={"attempts": 2})
    play.dials("a/1").fails(busy(), RETRY).dials("a/1", wait=0.5).fails(busy(), FALLBACK)
    play.dials("b/1", group=1).fails(busy(), RETRY).dials("b/1", wait=1, group=1).fails(busy(), FALLBACK)
    play.dials("c/1", group=2).fails(busy(), RETRY).dials("c/1", wait=2, group=2).fails(busy(), GIVE_UP)


def test_a_fallback_group_that_cools_is_passed_over() -> None:
    play = Playbook("a/1", error=[["b/1"], ["c/1"]], retry={"attempts": 1}).cool("b", "1", 5)
    play.dials("a/1").fails(busy(), FALLBACK).dials("c/1", group=2)


def test_a_group_that_cools_is_passed_over_before_the_first_attempt() -> None:
    play = Playbook("a/1", error=[["b/1"], ["c/1"]]).cool("a", "1", 5).cool("b", "1", 5)
    play.dials("c/1", group=2).fails(busy(), RETRY)


def test_a_target_of_two_groups_is_waited_for_the_second_time() -> None:
    play = Playbook("a/1", error=[["a/1"]], retry={"attempts": 1})
    play.dials("a/1").fails(busy(), FALLBACK).dials("a/1", wait=0.5, group=1).fails(busy(), GIVE_UP)


@pytest.mark.parametrize("error", [rejected(), rejected(ContextExceeded), rejected(ContentRefused)])
def test_a_rejected_request_is_not_tried_again(error: UpstreamError) -> None:
    play = Playbook("a/1", "b/1", error=[["c/1"]]).dials("a/1").fails(error, GIVE_UP)
    assert [] == play.cooling()


def test_a_prompt_that_is_too_long_goes_to_its_own_groups() -> None:
    play = Playbook("a/1", "b/1", error=[["d/1"]], context=[["a/1", "c/1"], ["c/2"]], retry={"attempts": 1})
    play.dials("a/1").fails(rejected(ContextExceeded), FALLBACK)
    play.dials("c/1", group=1).fails(rejected(ContextExceeded), FALLBACK)
    play.dials("c/2", group=2).fails(busy(), GIVE_UP)


def test_a_refused_content_goes_to_its_own_groups() -> None:
    play = Playbook("a/1", error=[["b/1"]], content=[["c/1"]], retry={"attempts": 1})
    play.dials("a/1").fails(busy(), FALLBACK).dials("b/1", group=1).fails(rejected(ContentRefused), FALLBACK)
    play.dials("c/1", group=2).fails(rejected(ContentRefused), GIVE_UP)


def test_groups_of_a_kind_are_entered_once() -> None:
    play = Playbook("a/1", context=[["b/1"]], content=[["c/1"]])
    play.dials("a/1").fails(rejected(ContextExceeded), FALLBACK).dials("b/1", group=1)
    play.fails(rejected(ContentRefused), FALLBACK).dials("c/1", group=2).fails(rejected(ContextExceeded), GIVE_UP)


# Credentials


def test_a_refused_credential_gives_way_to_another_at_once() -> None:
    play = Playbook("a/1", "b/1", pools={"a": ["k1", "k2"]}, cooldown={"seconds": 7})
    play.dials("a/1", credential="k2").fails(refused(), RETRY).dials("a/1", credential="k1").succeeds()
    assert ["a/k2 credential_refused 7"] == play.cooling()
    play.again().dials("a/1", credential="k1").succeeds()


def test_a_rate_limited_credential_rests_as_long_as_it_was_told() -> None:
    play = Playbook("a/1", pools={"a": ["k1", "k2"]}).dials("a/1").fails(limited(30), RETRY).dials("a/1").succeeds()
    assert ["a/k2 rate_limited 30"] == play.cooling()


def test_when_the_pool_is_exhausted_the_target_cools_until_the_first_credential_is_back() -> None:
    play = Playbook("a/1", "b/1", pools={"a": ["k1", "k2"]})
    play.dials("a/1", credential="k2").fails(limited(30), RETRY).later(1)
    play.dials("a/1", credential="k1").fails(limited(40), RETRY).dials("b/1").succeeds()
    assert ["a/1 rate_limited 29", "a/k2 rate_limited 29", "a/k1 rate_limited 40"] == play.cooling()


def test_a_pool_of_one_cools_as_a_target() -> None:
    play = Playbook("a/1", "b/1", pools={"a": ["k1"]}).dials("a/1").fails(refused(), RETRY).dials("b/1").succeeds()
    assert ["a/1 credential_refused 10"] == play.cooling()


def test_a_refused_pool_is_never_tried_again() -> None:
    Playbook("a/1", cooldown={"seconds": 0}).dials("a/1").fails(refused(), GIVE_UP)
    play = Playbook("a/1", "b/1", cooldown={"seconds": 0}, retry={"attempts": 9})
    play.dials("a/1").fails(refused(), RETRY).dials("b/1").fails(busy(), RETRY).dials("b/1", wait=0.5)


def test_an_exhausted_pool_falls_back_before_it_waits() -> None:
    Playbook("a/1", error=[["b/1"]]).dials("a/1").fails(limited(2), FALLBACK).dials("b/1", group=1)


def test_a_rate_limit_with_nowhere_else_to_go_is_waited_out() -> None:
    play = Playbook("a/1").dials("a/1").fails(limited(2), RETRY).dials("a/1", wait=2, credential="default").succeeds()
    assert [] == play.cooling()
    play = Playbook("a/1", pools={"a": ["k1", "k2"]}).dials("a/1").fails(limited(3), RETRY)
    play.dials("a/1").fails(limited(2), RETRY).dials("a/1", wait=2, credential="k1").succeeds()


@pytest.mark.parametrize("retry_after", [None, 9.0])
def test_a_rate_limit_that_names_no_near_time_ends_the_request(retry_after: float | None) -> None:
    Playbook("a/1").dials("a/1").fails(limited(retry_after), GIVE_UP)


def test_a_target_whose_credentials_all_cool_is_passed_over() -> None:
    play = Playbook("a/1", "b/1", pools={"a": ["k1", "k2"]})
    for key in ("k1", "k2"):
        play.cooldowns.cool_credential("a", key, reason=Reason.RATE_LIMITED, seconds=5, now=play.now)
    play.dials("b/1")


def test_another_credential_does_not_help_where_the_target_itself_cools() -> None:
    play = Playbook("a/1", "b/1", pools={"a": ["k1", "k2"]}).dials("a/1").cool("a", "1", 5)
    play.fails(refused(), RETRY).dials("b/1")


# What may not be sent again


@pytest.mark.parametrize("scope", [busy(), rejected(ContextExceeded), UpstreamTimeout("late")])
def test_what_may_have_been_delivered_is_not_tried_again_where_that_is_forbidden(scope: UpstreamError) -> None:
    play = Playbook("a/1", "b/1", error=[["c/1"]], context=[["c/1"]], maybe_delivered=False)
    play.dials("a/1").fails(scope, GIVE_UP)


@pytest.mark.parametrize("error", [ConnectFailed("no connection"), limited(), refused()])
def test_what_was_never_delivered_is_tried_again_all_the_same(error: UpstreamError) -> None:
    Playbook("a/1", "b/1", maybe_delivered=False).dials("a/1").fails(error, RETRY).dials("b/1")


def test_a_body_that_is_gone_is_not_sent_again() -> None:
    error = ConnectFailed("refused", delivered=Delivered.NO)
    play = Playbook("a/1", "b/1", error=[["c/1"]], cooldown={"after_failures": 1})
    play.dials("a/1").fails(error, GIVE_UP, resendable=False)
    assert ["a/1 failures 10"] == play.cooling()  # the failure counts


# Cooldown


def test_a_target_cools_after_so_many_failures_in_a_row() -> None:
    play = Playbook("a/1", "b/1", cooldown={"after_failures": 2})
    play.dials("a/1").fails(busy(), RETRY).dials("b/1").succeeds()
    play.again().dials("a/1").succeeds()  # which is forgiven
    play.again().dials("a/1").fails(busy(), RETRY).dials("b/1").succeeds()
    assert [] == play.cooling()
    play.again().dials("a/1").fails(busy(), RETRY).dials("b/1").succeeds()
    assert ["a/1 failures 10"] == play.cooling()
    play.again().dials("b/1").succeeds()
    play.later(10).again().dials("a/1").fails(busy(), RETRY)  # one failure more is enough
    assert ["a/1 failures 10"] == play.cooling()


def test_a_cooldown_has_a_ceiling() -> None:
    play = Playbook("a/1", "b/1").dials("a/1").fails(busy(86400), RETRY)
    assert ["a/1 retry_after 60"] == play.cooling()
    assert [("1", 60)] == [(cooled.label, cooled.seconds) for cooled in play.told]


def test_a_rejected_request_says_nothing_against_the_target() -> None:
    play = Playbook("a/1", cooldown={"after_failures": 1}).dials("a/1").fails(rejected(), GIVE_UP)
    assert [] == play.cooling()


def test_a_lone_target_that_cools_on_the_way_is_still_retried() -> None:
    play = Playbook("a/1", cooldown={"after_failures": 1})
    play.dials("a/1").fails(busy(), RETRY).dials("a/1", wait=0.5, probe=True).succeeds()
    assert [] == play.cooling()


def test_a_fallback_comes_before_a_target_that_cools() -> None:
    play = Playbook("a/1", error=[["b/1"]], cooldown={"after_failures": 1})
    play.dials("a/1").fails(busy(), FALLBACK).dials("b/1", group=1)


def test_when_everything_cools_the_soonest_is_dialled_all_the_same() -> None:
    play = Playbook("a/1", "b/1", error=[["c/1"], ["d/1"]])
    play.cool("a", "1", 9).cool("b", "1", 8).cool("c", "1", 3).cool("d", "1", 7)
    play.dials("c/1", group=1, probe=True).succeeds()
    assert ["a/1 failures 9", "b/1 failures 8", "d/1 failures 7"] == play.cooling()


def test_a_failed_probe_ends_the_request_where_all_else_cools() -> None:
    play = Playbook("a/1", "b/1", retry={"attempts": 1}).cool("a", "1", 3).cool("b", "1", 8)
    play.dials("a/1", probe=True).fails(busy(), GIVE_UP)


def test_when_every_provider_has_named_a_time_the_client_is_told_the_soonest() -> None:
    play = Playbook("a/1", error=[["b/1"]])
    play.cool("a", "1", 9, Reason.RATE_LIMITED, asked=True).cool("b", "1", 4, Reason.RATE_LIMITED, asked=True)
    with pytest.raises(TargetsRateLimited) as caught:
        play.dials("a/1")
    assert 4 == caught.value.retry_after_seconds


def test_a_rate_limit_that_was_named_is_kept_where_another_target_cools_by_guess() -> None:
    play = Playbook("a/1", "b/1").cool("a", "1", 1, Reason.RATE_LIMITED, asked=True).cool("b", "1", 9)
    play.dials("b/1", probe=True)


@pytest.mark.parametrize("asked", [True, False])
def test_a_target_that_lacks_only_credentials_counts_as_cooling(asked: bool) -> None:
    play = Playbook("a/1", pools={"a": ["k1", "k2"]})
    for key, seconds in (("k1", 5), ("k2", 3)):
        play.cooldowns.cool_credential("a", key, reason=Reason.RATE_LIMITED, seconds=seconds, now=play.now, asked=asked)
    if asked:
        with pytest.raises(TargetsRateLimited):
            play.dials("a/1")
    else:
        play.dials("a/1", credential="k2", probe=True)


def test_a_probe_without_any_rested_credential_takes_the_first() -> None:
    play = Playbook("a/1", pools={"a": ["k1", "k2"]}).cool("a", "1", 1)
    for key in ("k1", "k2"):
        play.cooldowns.cool_credential("a", key, reason=Reason.CREDENTIAL_REFUSED, seconds=9, now=play.now)
    play.dials("a/1", credential="k1", probe=True)


# The machine itself


def test_round_robin_goes_on_from_where_the_last_request_was() -> None:
    play = (
        Playbook("a/1", "b/1", "c/1", strategy="round_robin").dials("a/1").fails(busy(), RETRY).dials("b/1").succeeds()
    )
    play.again().dials("c/1").succeeds()
    play.again().dials("a/1").succeeds()


def test_it_is_used_in_turns() -> None:
    play = Playbook("a/1")
    play.dials("a/1")
    with pytest.raises(RuntimeError, match="no attempt is due"):
        play.tries.next(play.now)
    play.succeeds()
    with pytest.raises(RuntimeError, match="not under way"):
        play.succeeds()
    with pytest.raises(RuntimeError, match="succeeded at a/1"):
        play.tries.next(play.now)


def test_its_repr_tells_the_whole_state() -> None:
    play = Playbook("a/1", "b", error=[["c/1"]])
    assert "<Tries: not begun; attempt 0, 0 of 3 in group 0, 1 groups left; tried nothing>" == repr(play.tries)
    play.dials("a/1").fails(busy(), RETRY)
    assert (
        "<Tries: upstream_unavailable from a/1; next b in 0 s; attempt 1, 1 of 3 in group 0, 1 groups left; tried a/1>"
    ) == repr(play.tries)
    play.dials("b").fails(busy(), RETRY)
    assert "tried a/1, b>" in repr(play.tries)
