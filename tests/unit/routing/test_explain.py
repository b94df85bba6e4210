"""What `explain` tells."""

from collections.abc import Callable
from typing import Any

import msgspec

from core.headers import Headers
from routing.cooldown import Reason
from routing.plan import RouteQuery

Build = Callable[..., Any]

DOCUMENT = {
    "model_aliases": [{"from": "fast", "to": "cheap"}, {"from": "cheap", "to": "openai/gpt-4o-mini"}],
    "routes": [
        {"name": "gold", "match": {"headers": {"x-tier": "gold"}}, "targets": ["openai/gpt-4o"]},
        {
            "name": "mini",
            "match": {"model": "*mini"},
            "strategy": "weighted",
            "targets": [{"to": "openai/gpt-4o-mini", "weight": 3}, "azure/gpt-4o-mini"],
            "fallbacks": {"error": [["anthropic/haiku"]], "context": [["anthropic/long"]]},
        },
        {"name": "never", "match": {"token": "t"}, "targets": ["openai/x"]},
    ],
}


def test_it_tells_the_chain_the_losers_the_winner_and_the_targets(bench: Build) -> None:
    made = bench(DOCUMENT)
    made.cooldowns.cool_target("azure", "gpt-4o-mini", label="*", reason=Reason.FAILURES, seconds=10, now=100)
    told = made.router.explain(RouteQuery("fast", headers=Headers([("x-tier", "iron")])), now=104)
    assert {
        "requested_model": "fast",
        "model": "openai/gpt-4o-mini",
        "aliases": [
            {"from": "fast", "to": "cheap", "result": "cheap"},
            {"from": "cheap", "to": "openai/gpt-4o-mini", "result": "openai/gpt-4o-mini"},
        ],
        "lost": [{"route": "gold", "field": "headers.x-tier", "wanted": ["gold"], "value": ["iron"]}],
        "step": "route",
        "route": "mini",
        "groups": [
            {
                "kind": "targets",
                "strategy": "weighted",
                "targets": [
                    {"provider": "openai", "model": "gpt-4o-mini", "weight": 3, "cooling": None, "prefix": None},
                    {
                        "provider": "azure",
                        "model": "gpt-4o-mini",
                        "weight": 1,
                        "cooling": {"reason": "failures", "remaining_seconds": 6.0},
                        "prefix": None,
                    },
                ],
            },
            {
                "kind": "error",
                "strategy": "weighted",
                "targets": [{"provider": "anthropic", "model": "haiku", "weight": 1, "cooling": None, "prefix": None}],
            },
            {
                "kind": "context",
                "strategy": "weighted",
                "targets": [{"provider": "anthropic", "model": "long", "weight": 1, "cooling": None, "prefix": None}],
            },
        ],
        "refusal": None,
    } == msgspec.json.decode(msgspec.json.encode(told))


def test_it_tells_why_nothing_serves_a_request(bench: Build) -> None:
    told = bench(DOCUMENT).router.explain(RouteQuery("nothing"))
    assert ["gold", "mini", "never"] == [loss.route for loss in told.lost]
    assert (None, None, ()) == (told.step, told.route, told.groups)
    assert told.refusal is not None
    assert (404, "model_not_found") == (told.refusal.status, told.refusal.code)


def test_it_tells_of_prefixes_and_models(bench: Build) -> None:
    router = bench({}).router
    assert "provider_prefix" == router.explain(RouteQuery("azure/x")).step
    assert "provider_models" == router.explain(RouteQuery("gpt-4o")).step
    told = router.explain(RouteQuery("x" * 2000), now=1.0)
    assert told.refusal is not None


def test_a_provider_named_by_header_is_taken_before_any_rule_is_asked(bench: Build) -> None:
    told = bench(DOCUMENT).router.explain(RouteQuery(None, path="/v1/files", provider="azure"), now=1.0)
    assert ("provider_header", (), None) == (told.step, told.lost, told.model)
    assert [("azure", None)] == [(target.provider, target.model) for target in told.groups[0].targets]
    told = bench(DOCUMENT).router.explain(RouteQuery(None, path="/v1/files"))
    assert ["path", "path", "path"] == [loss.field for loss in told.lost]
