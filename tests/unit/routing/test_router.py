"""From a name to a plan, and what a configuration is refused for."""

from collections.abc import Callable
from typing import Any

import pytest

from config.faults import Fault
from config.schema import Cooldown, Overrides, Retry
from core.errors import CallerError, InvalidRequest, ModelNotFound, ProviderRequired
from core.headers import Headers
from routing.plan import PlanTimeouts, RouteQuery, Step

Build = Callable[..., Any]

ROUTES: list[dict[str, Any]] = [
    {
        "name": "gold",
        "match": {"model": "gpt-4*", "headers": {"x-tier": "gold"}},
        "strategy": "weighted",
        "targets": [{"to": "openai/gpt-4o", "weight": 3}, "azure/gpt-4o"],
        "fallbacks": [["anthropic/claude"], ["openai/o1", "azure/o1"]],
    },
    {"name": "uploads", "match": {"path": "/v1/files*"}, "targets": ["azure/any", "openai/*", "azure/other"]},
    {
        "name": "spread",
        "match": {"model": ["spread/*", "openai/spread-*"]},
        "strategy": "round_robin",
        "targets": ["openai/*", {"to": "azure/*", "weight": 0}, "anthropic/fixed"],
        "fallbacks": {"context": [["anthropic/long"]], "content": [["azure/*"]]},
    },
]
ALIASES = [
    {"from": "fast", "to": "openai/gpt-4o-mini"},
    {"from": "best", "to": "gpt-4o"},
    {"from": "claude-*", "to": "anthropic/claude-*"},
    {"from": "any-*", "to": "spread/*"},
]
DOCUMENT = {"routes": ROUTES, "model_aliases": ALIASES}


@pytest.mark.parametrize(
    ("query", "step", "route", "model", "targets", "labels"),
    [
        (RouteQuery("fast"), Step.PREFIX, None, "openai/gpt-4o-mini", ["openai/gpt-4o-mini"], ["gpt-4o-mini"]),
        (RouteQuery("claude-x"), Step.PREFIX, None, "anthropic/claude-x", ["anthropic/claude-x"], ["claude-*"]),
        (RouteQuery("anthropic/x/y"), Step.PREFIX, None, "anthropic/x/y", ["anthropic/x/y"], ["*"]),
        (RouteQuery("openai/gpt-9"), Step.PREFIX, None, "openai/gpt-9", ["openai/gpt-9"], ["gpt-*"]),
        (RouteQuery("azure/gpt-4o"), Step.PREFIX, None, "azure/gpt-4o", ["azure/gpt-4o"], ["gpt-4o"]),
        (RouteQuery("gpt-4o"), Step.MODELS, None, "gpt-4o", ["openai/gpt-4o", "azure/gpt-4o"], ["gpt-*", "gpt-4o"]),
        (RouteQuery("best"), Step.MODELS, None, "gpt-4o", ["openai/gpt-4o", "azure/gpt-4o"], ["gpt-4o", "gpt-4o"]),
        (RouteQuery("gpt-9"), Step.MODELS, None, "gpt-9", ["openai/gpt-9"], ["gpt-*"]),
        (
            RouteQuery("gpt-4o", headers=Headers([("x-tier", "gold")])),
            Step.ROUTE,
            "gold",
            "gpt-4o",
            ["openai/gpt-4o", "azure/gpt-4o"],
            ["gpt-4o", "gpt-4o"],
        ),
        (
            RouteQuery("any-gpt-1"),
            Step.ROUTE,
            "spread",
            "spread/gpt-1",
            ["openai/spread/gpt-1", "azure/spread/gpt-1", "anthropic/fixed"],
            ["spread/*", "spread/*", "fixed"],
        ),
        (
            RouteQuery("openai/spread-me"),
            Step.ROUTE,
            "spread",
            "openai/spread-me",
            ["openai/spread-me", "azure/spread-me", "anthropic/fixed"],
            ["openai/spread-*", "openai/spread-*", "fixed"],
        ),
        (RouteQuery(None, path="/v1/files"), Step.ROUTE, "uploads", None, ["azure", "openai"], ["*", "*"]),
        (RouteQuery(None, path="/v1/files", provider="openai"), Step.HEADER, None, None, ["openai"], ["*"]),
        (RouteQuery("gpt-9", provider="azure"), Step.MODELS, None, "gpt-9", ["openai/gpt-9"], ["gpt-*"]),
    ],
)
def test_a_request_resolves(
    bench: Build,
    query: RouteQuery,
    step: Step,
    route: str | None,
    model: str | None,
    targets: list[str],
    labels: list[str],
) -> None:
    plan = bench(DOCUMENT).router.resolve(query)
    assert (step, route, model, query.model) == (plan.step, plan.route, plan.model, plan.requested_model)
    assert targets == [str(target) for target in plan.first.targets]
    assert labels == [target.label for target in plan.first.targets]
    assert {target.provider for target in plan.first.targets} <= set(plan.timeouts)


@pytest.mark.parametrize(
    ("query", "error", "code"),
    [
        (RouteQuery("nothing"), ModelNotFound, "model_not_found"),
        (RouteQuery("GPT-4o"), ModelNotFound, "model_not_found"),
        (RouteQuery("claude"), ModelNotFound, "model_not_found"),  # anthropic has no `models`
        (RouteQuery("other/gpt-4o"), ModelNotFound, "model_not_found"),
        (RouteQuery("openai/"), ModelNotFound, "model_not_found"),
        (RouteQuery(""), ModelNotFound, "model_not_found"),
        (RouteQuery("gpt-" + "x" * 1021), ModelNotFound, "model_not_found"),
        (RouteQuery(None, path="/v1/batches"), ProviderRequired, "provider_required"),
        (RouteQuery(None, path="/v1/files", provider="opnai"), InvalidRequest, "provider_not_found"),
    ],
)
def test_a_request_that_nothing_serves_is_the_callers_error(
    bench: Build, query: RouteQuery, error: type[CallerError], code: str
) -> None:
    with pytest.raises(error) as caught:
        bench(DOCUMENT).router.resolve(query)
    assert code == caught.value.client_code
    assert 250 > len(caught.value.message)


def test_a_plan_carries_the_routes_policy(bench: Build) -> None:
    route = {
        **ROUTES[0],
        "match": {},
        "retry": {"attempts": 5},
        "cooldown": {"seconds": 1},
        "overrides": {"set": {"user": "x"}},
    }
    plan = bench({"routes": [route]}).router.resolve(RouteQuery("any"))
    assert Retry(attempts=5) == plan.retry
    assert Cooldown(seconds=1) == plan.cooldown
    assert Overrides(set={"user": "x"}) == plan.overrides
    assert "weighted" == plan.first.strategy
    assert (3, 1) == plan.first.weights
    assert [["anthropic/claude"], ["openai/o1", "azure/o1"]] == [
        [str(target) for target in group.targets] for group in plan.fallbacks.error
    ]
    assert {"openai", "azure", "anthropic"} == set(plan.timeouts)


def test_fallbacks_by_kind_keep_the_requests_model_too(bench: Build) -> None:
    plan = bench(DOCUMENT).router.resolve(RouteQuery("spread/x"))
    assert () == plan.fallbacks.error
    assert ["anthropic/long"] == [str(target) for group in plan.fallbacks.of("context") for target in group.targets]
    assert ["azure/spread/x"] == [str(target) for group in plan.fallbacks.of("content") for target in group.targets]


def test_the_rotation_of_a_group_goes_on_over_requests(bench: Build) -> None:
    router = bench(DOCUMENT).router
    seen = []
    for _ in range(4):
        tries = router.begin(router.resolve(RouteQuery("spread/x")), maybe_delivered=True)
        seen.append(tries.next(0.0).target.provider)
    assert ["openai", "azure", "anthropic", "openai"] == seen


def test_a_catch_all_route_labels_by_what_let_the_name_through(bench: Build) -> None:
    router = bench({"routes": [{"name": "all", "targets": ["anthropic/*"]}], "model_aliases": ALIASES[:1]}).router
    assert "*" == router.resolve(RouteQuery("made-up")).first.targets[0].label
    assert "gpt-4o-mini" == router.resolve(RouteQuery("fast")).first.targets[0].label


def test_timeouts_are_the_routes_then_the_providers_then_the_default(bench: Build) -> None:
    document = {
        "providers": [
            {"name": "a", "type": "openai", "timeouts": {"connect_seconds": 1, "idle_seconds": None}},
            {"name": "b", "type": "openai", "timeouts": {"total_seconds": 9}},
        ],
        "routes": [
            {
                "name": "r",
                "match": {"model": "routed"},
                "targets": ["b/x", "a/x"],
                "timeouts": {"connect_seconds": 2, "first_token_seconds": 3},
            }
        ],
    }
    router = bench(document).router
    plan = router.resolve(RouteQuery("routed"))
    assert PlanTimeouts(2, 60, 3, None, None) == plan.timeouts["a"]
    assert PlanTimeouts(2, 60, 3, 120, 9) == plan.timeouts["b"]
    assert 9 == plan.total_seconds
    assert PlanTimeouts(1, 60, None, None, None) == router.resolve(RouteQuery("a/x")).timeouts["a"]
    assert PlanTimeouts(5, 60, None, 120, None) == bench({}).router.resolve(RouteQuery("gpt-4o")).timeouts["azure"]


def test_models_lists_exact_aliases_and_names_of_providers(bench: Build) -> None:
    aliases = [*ALIASES, {"from": "o1", "to": "azure/o1"}, {"from": "{x,y}", "to": "tier/x"}]
    routes = [{"name": "r", "match": {"model": "tier/*", "token": "t"}, "targets": ["openai/x"]}]
    listed = bench({"model_aliases": aliases, "routes": [*ROUTES, *routes]}).router.models()
    assert [
        ("fast", "openai"),
        ("best", "openai"),
        ("o1", "azure"),
        ("x", "sluice"),
        ("y", "sluice"),
        ("gpt-4o", "azure"),
        ("gpt-4o-mini", "azure"),
    ] == [(model.id, model.owned_by) for model in listed]


def test_every_fault_is_told_at_once_with_its_path(faults: Callable[[dict[str, Any]], tuple[Fault, ...]]) -> None:
    told = faults(
        {
            "providers": [{"name": "openai", "type": "openai", "models": ["ok", "gpt-[4"]}],
            "model_aliases": [{"from": "a", "to": "a"}],
            "routes": [
                {"name": "r0", "targets": ["openai/x"]},
                {
                    "name": "r1",
                    "match": {"model": "{"},
                    "strategy": "wieghted",
                    "targets": ["gpt-4o", {"to": "opnai/x"}, "openai/", "openai/gpt-*", "openai/*"],
                    "fallbacks": [["openai/x"], ["nobody/x"]],
                },
                {"name": "r2", "targets": ["openai/x"], "fallbacks": {"context": [[{"to": "x"}]]}},
            ],
        }
    )
    expected: list[tuple[tuple[str | int, ...], str]] = [
        (("providers", 0, "models", 1), "never closed"),
        (("model_aliases", 0, "to"), "circle"),
        (("routes", 1, "match", "model"), "no part of a list"),
        (("routes", 1, "strategy"), "unknown strategy `wieghted`: did you mean `weighted`?"),
        (("routes", 1, "targets", 0), "`gpt-4o` is not of the form provider/model: write it as provider/model"),
        (("routes", 1, "targets", 1, "to"), "unknown provider `opnai` in target `opnai/x`: did you mean `openai`?"),
        (("routes", 1, "targets", 2), "write `openai/` and the model's name"),
        (("routes", 1, "targets", 3), "`openai/*` keeps the request's model"),
        (("routes", 1, "fallbacks", 1, 0), "unknown provider `nobody`"),
        (("routes", 2, "fallbacks", "context", 0, 0, "to"), "not of the form provider/model"),
    ]
    assert [path for path, _ in expected] == [fault.path for fault in told]
    for (_, message), fault in zip(expected, told, strict=True):
        assert message in fault.message


def test_the_endpoint_rules_what_may_have_been_delivered_unless_the_route_does(bench: Build) -> None:
    for configured, endpoint, expected in [(None, True, True), (None, False, False), (True, False, True)]:
        route = {"name": "r", "targets": ["openai/x"], "retry": {"maybe_delivered": configured}}
        router = bench({"routes": [route]}).router
        assert expected is router.begin(router.resolve(RouteQuery("x")), maybe_delivered=endpoint)._maybe_delivered
