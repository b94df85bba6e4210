"""Which rule takes a request, and why another does not."""

from typing import Any

import msgspec
import pytest

from config.faults import ConfigFaults
from config.schema import Match, Route
from core.headers import Headers
from routing.plan import RouteQuery
from routing.rules import Rule, RuleSet

GOLD = RouteQuery(
    model="fast",
    path="/v1/chat/completions",
    token="team-a",
    headers=Headers([("x-tier", "gold"), ("x-tier", "silver"), ("accept", "*/*")]),
    stream=True,
)
NAME = "openai/gpt-4o"


def rule(match: dict[str, Any], name: str = "r", place: int = 0) -> Rule:
    return Rule(Route(name=name, match=msgspec.convert(match, Match), targets=("openai/x",)), place)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, None),
        ({"model": "openai/gpt-4*"}, None),
        ({"model": "gpt-4*"}, "model"),  # the final name has its prefix
        ({"model": "fast"}, "model"),
        ({"requested_model": "fast"}, None),
        ({"requested_model": ["slow", "f*"]}, None),
        ({"requested_model": NAME}, "requested_model"),
        ({"token": "team-*"}, None),
        ({"token": "team-b"}, "token"),
        ({"path": "/v1/*"}, None),
        ({"path": "/v1/files*"}, "path"),
        ({"headers": {"X-Tier": "gold"}}, None),
        ({"headers": {"X-Tier": "silver"}}, None),
        ({"headers": {"x-tier": ["bronze", "g*"]}}, None),
        ({"headers": {"x-tier": "Gold"}}, "headers.x-tier"),
        ({"headers": {"x-tier": "gold", "x-more": "*"}}, "headers.x-more"),
        ({"stream": True}, None),
        ({"stream": False}, "stream"),
        ({"model": "openai/*", "token": "team-*", "headers": {"x-tier": "gold"}, "stream": True}, None),
        ({"model": "openai/*", "token": "other"}, "token"),
    ],
)
def test_fields_are_joined_by_and_and_lists_by_or(match: dict[str, Any], expected: str | None) -> None:
    assert expected == rule(match).mismatch(GOLD, NAME)
    assert (0 if expected is None else None) == RuleSet([rule(match)]).first(GOLD, NAME)


def test_a_rule_that_wants_a_token_does_not_take_a_caller_without_one() -> None:
    assert "token" == rule({"token": "*"}).mismatch(RouteQuery("fast"), NAME)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"path": "/v1/files*"}, None),
        ({"path": "/v1/files*", "token": "team-*"}, None),
        ({"path": "/v1/batches*"}, "path"),
        ({"token": "team-*"}, "path"),
        ({}, "path"),
        ({"path": "/v1/files*", "model": "*"}, "model"),
        ({"path": "/v1/files*", "requested_model": "*"}, "requested_model"),
    ],
)
def test_a_request_without_a_model_is_taken_by_its_path_alone(match: dict[str, Any], expected: str | None) -> None:
    query = RouteQuery(None, path="/v1/files/file-1", token="team-a")
    assert expected == rule(match).mismatch(query, None)
    assert (0 if expected is None else None) == RuleSet([rule(match)]).first(query, None)


@pytest.mark.parametrize(
    ("match", "field", "wanted", "value"),
    [
        ({"model": ["a", "b*"]}, "model", ("a", "b*"), (NAME,)),
        ({"token": "team-b"}, "token", ("team-b",), ("team-a",)),
        ({"headers": {"x-tier": "iron"}}, "headers.x-tier", ("iron",), ("gold", "silver")),
        ({"headers": {"x-none": "*"}}, "headers.x-none", ("*",), ()),
        ({"stream": False}, "stream", ("not streamed",), ("streamed",)),
    ],
)
def test_a_loss_tells_what_was_wanted_and_what_was_there(
    match: dict[str, Any], field: str, wanted: tuple[str, ...], value: tuple[str, ...]
) -> None:
    loss = rule(match).loss(GOLD, NAME)
    assert loss is not None
    assert ("r", field, wanted, value) == (loss.route, loss.field, loss.wanted, loss.value)


def test_a_loss_for_want_of_a_path_tells_the_path() -> None:
    loss = rule({}).loss(RouteQuery(None, path="/v1/files"), None)
    assert loss is not None
    assert ("path", (), ("/v1/files",)) == (loss.field, loss.wanted, loss.value)


def test_the_first_rule_in_the_file_wins_whatever_it_is_filed_under() -> None:
    matches: list[dict[str, Any]] = [
        {"model": "other"},
        {"headers": {"x-tier": "silver"}},
        {"model": "openai/*"},
        {},
        {"token": "team-a"},
    ]
    rules = [rule(match, f"r{place}", place) for place, match in enumerate(matches)]
    assert 1 == RuleSet(rules).first(GOLD, NAME)
    assert 2 == RuleSet(rules).first(RouteQuery("fast"), NAME)
    assert 3 == RuleSet(rules).first(RouteQuery("fast"), "azure/x")
    assert 0 == RuleSet(rules).first(RouteQuery("fast", token="team-a"), "other")
    assert ["r0"] == [loss.route for loss in RuleSet(rules).losses(GOLD, NAME)]
    assert RuleSet(rules[:1]).first(GOLD, NAME) is None
    assert ["r0"] == [loss.route for loss in RuleSet(rules[:1]).losses(GOLD, NAME)]


def test_many_rules_of_one_model_are_told_apart_by_their_tokens() -> None:
    rules = [rule({"model": "openai/*", "token": f"team-{place}"}, place=place) for place in range(50)]
    assert 33 == RuleSet(rules).first(RouteQuery("fast", token="team-33"), NAME)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"model": "gpt-[4"}, [("model",)]),
        ({"model": ["ok", "gpt-[4", "{"]}, [("model", 1), ("model", 2)]),
        ({"headers": {"x-tier": ["[", "ok"]}, "path": ""}, [("path",), ("headers", "x-tier", 0)]),
        ({"headers": {"x-tier": "a", "X-Tier": "b"}}, [("headers", "X-Tier")]),
    ],
)
def test_every_bad_glob_is_told_with_its_path(match: dict[str, Any], expected: list[tuple[str | int, ...]]) -> None:
    with pytest.raises(ConfigFaults) as caught:
        rule(match, place=3)
    assert [("routes", 3, "match", *path) for path in expected] == [fault.path for fault in caught.value.faults]
