"""Which limits are for a request."""

import pytest

from access.quotas.limits import NO_LIMITS, Limits, ScopeKind, Terms, parse_terms
from access.quotas.rules import Rule, Rules, Subject

SIXTY = parse_terms({"requests": 60, "per": "minute"})
EIGHT = parse_terms({"concurrency": 8})


def keys(limits: Limits) -> list[str]:
    return [each.key for each in limits.all]


def test_a_rule_without_each_counts_all_that_match_together() -> None:
    rules = Rules([Rule(SIXTY, ((ScopeKind.TOKEN, ("team-*",)), (ScopeKind.MODEL, ("gpt-4*", "o1"))))])
    expected = ["requests/minute/model~gpt-4*|o1,token~team-*"]
    assert expected == keys(rules.for_request(Subject(token="team-a", model="gpt-4o")))
    assert expected == keys(rules.for_request(Subject(token="team-b", model="o1")))
    assert NO_LIMITS is rules.for_request(Subject(token="other", model="gpt-4o"))
    assert NO_LIMITS is rules.for_request(Subject(token="team-a", model="gpt-3"))
    assert NO_LIMITS is rules.for_request(Subject(model="gpt-4o"))


def test_a_rule_for_each_name_counts_them_apart() -> None:
    rules = Rules([Rule(SIXTY, ((ScopeKind.TOKEN, ("team-*",)),), (ScopeKind.TOKEN, ScopeKind.MODEL))])
    limits = rules.for_request(Subject(token="team-a", model="gpt-4o"))
    assert ["requests/minute/model=gpt-4o,token=team-a"] == keys(limits)
    assert ["requests/minute/model=~,token=team-a"] == [each.spare for each in limits.all]
    assert NO_LIMITS is rules.for_request(Subject(token="team-a"))


def test_a_token_brings_limits_of_its_own() -> None:
    rules = Rules([Rule(EIGHT)])
    own: tuple[Terms, ...] = (SIXTY,)
    subject = Subject(token="alice", model="m")
    found = rules.for_request(subject, own, "api:tok_1")
    assert ["concurrency/held/all", "requests/minute/token=api:tok_1"] == keys(found)
    assert found is rules.for_request(subject, own, "api:tok_1")
    # Another of that name, which has come after it.
    assert ["concurrency/held/all", "requests/minute/token=api:tok_2"] == keys(
        rules.for_request(subject, own, "api:tok_2")
    )
    assert ["concurrency/held/all"] == keys(rules.for_request(subject, ()))


def test_what_needs_a_target_is_asked_for_each_target() -> None:
    rules = Rules(
        [Rule(SIXTY, ((ScopeKind.PROVIDER, ("open*",)),), (ScopeKind.TOKEN,)), Rule(EIGHT)],
        providers={"openai": (EIGHT,)},
        credentials={("openai", "main"): (SIXTY,), ("azure", "main"): (SIXTY,)},
    )
    subject = Subject(token="alice", model="m")
    assert ["concurrency/held/all"] == keys(rules.for_request(subject))
    assert [
        "requests/minute/provider~open*,token=alice",
        "concurrency/held/provider=openai",
        "requests/minute/credential=main,provider=openai",
    ] == keys(rules.for_target(subject._replace(provider="openai", credential="main")))
    assert ["requests/minute/credential=main,provider=azure"] == keys(
        rules.for_target(subject._replace(provider="azure", credential="main"))
    )
    assert NO_LIMITS is rules.for_target(subject._replace(provider="azure"))


def test_what_is_remembered_is_bounded() -> None:
    rules = Rules([Rule(SIXTY, (), (ScopeKind.MODEL,))])
    for number in range(5000):
        rules.for_request(Subject(model=f"made-up-{number}"))
    assert len(rules._kept) <= 4096
    rules.for_request(Subject(model="x" * 10_000))
    assert not any(len(subject.model or "") > 1000 for subject in rules._kept)


def test_a_bad_glob_is_refused() -> None:
    with pytest.raises(ValueError, match="empty glob"):
        Rules([Rule(SIXTY, ((ScopeKind.MODEL, ("",)),))])
