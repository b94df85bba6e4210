"""What works as it stands and is hardly meant."""

import random

import msgspec
import pytest

from config.schema import Config
from credentials.pool import Pools
from routing.advice import advice
from routing.cooldown import Cooldowns
from routing.router import Router
from tests.cost import least_seconds

ECHO = {"name": "echo", "type": "echo", "models": ["echo-*"]}


def told(**document: object) -> list[str]:
    config = msgspec.convert({"providers": [ECHO], **document}, Config)
    cooldowns = Cooldowns(lambda _: None)
    router = Router(config, cooldowns, Pools(config.providers, cooldowns), random.random)
    return [str(notice) for notice in advice(config, router)]


@pytest.mark.parametrize(
    ("match", "place"),
    [({"model": "fast"}, "model"), ({"model": ["echo-*", "fast"]}, "model[1]")],
)
def test_a_route_that_asks_for_an_alias_never_matches(match: dict[str, object], place: str) -> None:
    aliases = [{"from": "fast", "to": "small"}, {"from": "small", "to": "echo/echo-small"}]
    (line,) = told(model_aliases=aliases, routes=[{"name": "r", "match": match, "targets": ["echo/x"]}])
    assert line == (
        f"routes[0].match.{place}: never matches: `fast` is an alias, and routes see what it stands for "
        "(`echo/echo-small`): match that, or use `requested_model`"
    )


@pytest.mark.parametrize("match", [{"requested_model": "fast"}, {"model": "f*"}, {"model": "other"}, {}])
def test_other_routes_have_none(match: dict[str, object]) -> None:
    aliases = [{"from": "fast", "to": "echo/echo-small"}]
    assert [] == told(model_aliases=aliases, routes=[{"name": "r", "match": match, "targets": ["echo/x"]}])


@pytest.mark.parametrize("to", ["nowhere", "echo"])
def test_an_alias_for_a_name_that_nothing_takes_leads_nowhere(to: str) -> None:
    (line,) = told(model_aliases=[{"from": "fast", "to": to}, {"from": "first", "to": "fast"}])
    assert line.startswith(f"model_aliases[0].to: leads nowhere: no alias, route or provider serves `{to}`")


@pytest.mark.parametrize(
    ("to", "routes"),
    [
        ("echo-small", []),
        ("echo/anything", []),
        ("routed", [{"name": "r", "match": {"model": "rou*"}, "targets": ["echo/x"]}]),
        ("routed", [{"name": "r", "match": {"token": "t"}, "targets": ["echo/x"]}]),
    ],
)
def test_an_alias_that_leads_somewhere_has_none(to: str, routes: list[object]) -> None:
    assert [] == told(model_aliases=[{"from": "fast", "to": to}], routes=routes)


def test_not_each_of_many_aliases_is_compared_with_each_of_many_routes() -> None:
    def look(count: int) -> None:
        aliases = [{"from": f"a{number}", "to": f"nowhere-{number}"} for number in range(2 * count)]
        routes = [{"name": f"r{n}", "match": {"model": f"m{n}-*"}, "targets": ["echo/x"]} for n in range(count)]
        assert 2 * count == len(told(model_aliases=aliases, routes=routes))

    few, many = least_seconds(lambda: look(62), lambda: look(992), rounds=2)
    # Sixteen times as many: as much work, or that squared.
    assert many < 64 * few
