"""Route tests: what holds, and what is told when it does not."""

from collections.abc import Callable
from typing import Any

import pytest

from routing.route_tests import run_route_tests

Build = Callable[..., Any]

ROUTES = [
    {"name": "gold", "match": {"headers": {"x-tier": "gold"}}, "targets": ["openai/gpt-4o", "azure/gpt-4o"]},
    {"name": "both", "match": {"token": "t"}, "strategy": "random", "targets": ["openai/a", "azure/b"]},
]
GOLD = {"model": "x", "headers": {"X-Tier": "gold"}}
BOTH = {"model": "x", "token": "t"}


@pytest.mark.parametrize(
    ("request_", "expect", "key", "message"),
    [
        (GOLD, {"provider": "openai", "model": "gpt-4o", "route": "gold"}, None, ""),
        (GOLD, {}, "", "expects nothing, so it cannot fail"),
        (GOLD, {"provider": "azure"}, "provider", "goes to openai/gpt-4o, not to the provider `azure`"),
        (GOLD, {"provider": "openai", "model": "o1"}, "model", "goes to openai/gpt-4o, not to the model `o1`"),
        (GOLD, {"route": "both"}, "route", "is taken by the route `gold`, not by the route `both`"),
        (
            GOLD,
            {"error": "model_not_found"},
            "error",
            "is not refused with `model_not_found`: it goes to openai/gpt-4o",
        ),
        (BOTH, {"provider": "azure", "model": "b"}, None, ""),
        (BOTH, {"provider": "openai", "model": "b"}, "model", "goes to openai/a, azure/b"),
        ({"model": "gpt-9"}, {"route": "gold"}, "route", "is taken by no route (provider_models)"),
        ({"model": "x"}, {"error": "model_not_found"}, None, ""),
        (
            {"model": "x"},
            {"error": "provider_required"},
            "error",
            "is refused with `model_not_found`, not `provider_required`",
        ),
        ({"model": "x"}, {"provider": "openai"}, "", "a request for `x` is refused with `model_not_found`: no alias"),
        ({"path": "/v1/files"}, {"error": "provider_required"}, None, ""),
        (
            {"path": "/v1/files"},
            {"provider": "azure"},
            "",
            "a request without a model is refused with `provider_required`",
        ),
        ({"path": "/v1/files", "headers": {"X-Sluice-Provider": "azure"}}, {"provider": "azure"}, None, ""),
    ],
)
def test_an_expectation_holds_or_is_a_fault(
    bench: Build, request_: dict[str, Any], expect: dict[str, Any], key: str | None, message: str
) -> None:
    made = bench(
        {
            "routes": ROUTES,
            "tokens": [{"name": "t", "sha256": "0" * 64}],
            "route_tests": [
                {"request": {"model": "gpt-9"}, "expect": {"model": "gpt-9"}},
                {"request": request_, "expect": expect},
            ],
        }
    )
    told = run_route_tests(made.config, made.router)
    if key is None:
        assert [] == told
        return
    (fault,) = told
    assert ("route_tests", 1, "expect", *([key] if key else [])) == fault.path
    assert message in fault.message


def test_route_and_target_are_told_together(bench: Build) -> None:
    expect = {"route": "both", "provider": "azure"}
    made = bench({"routes": ROUTES, "route_tests": [{"request": GOLD, "expect": expect}]})
    assert ["route", "provider"] == [fault.path[-1] for fault in run_route_tests(made.config, made.router)]


def test_a_token_that_does_not_exist_is_a_fault(bench: Build) -> None:
    tests = [{"request": {"model": "gpt-9", "token": "team"}, "expect": {"model": "gpt-9"}}]
    made = bench({"tokens": [{"name": "teams", "sha256": "0" * 64}], "route_tests": tests})
    (fault,) = run_route_tests(made.config, made.router)
    assert ("route_tests", 0, "request", "token") == fault.path
    assert "did you mean `teams`?" in fault.message
