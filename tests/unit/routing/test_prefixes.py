"""`prefix/model`: served by the credentials of that prefix alone."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from config.faults import Fault
from core.errors import (
    CredentialNotReady,
    CredentialsRejected,
    ModelNotFound,
    NoTargetAvailable,
    TargetsRateLimited,
    UpstreamRateLimited,
)
from gateway.explain import render
from routing.explain import Dialled, Report
from routing.plan import RouteQuery, Step
from routing.tries import Verdict

Build = Callable[..., Any]


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "api_key": "k", **more}


PROVIDERS = [
    {"name": "openai", "type": "openai", "models": ["gpt-*"], "credentials": [key("main"), key("team", prefix="team")]},
    {
        "name": "azure",
        "type": "openai-compatible",
        "models": ["o1", "team/*"],
        "credentials": [key("a", prefix="team", models=["o*"]), key("b", prefix="solo")],
    },
    {"name": "free", "type": "openai-compatible"},
]
DOCUMENT: dict[str, Any] = {
    "providers": PROVIDERS,
    "model_aliases": [{"from": "ours", "to": "team/gpt-9"}],
    "routes": [
        {"name": "kept", "match": {"model": "team/kept-*"}, "targets": ["openai/*", "free/fixed"]},
        {"name": "bare", "match": {"model": "kept-*"}, "targets": ["free/fixed"]},
    ],
}


@pytest.mark.parametrize(
    ("model", "step", "targets"),
    [
        # Where it is known what a provider serves, that one is asked; else all that have the prefix.
        ("team/gpt-9", Step.CREDENTIAL_PREFIX, ["openai/gpt-9 by team"]),
        ("team/o1", Step.CREDENTIAL_PREFIX, ["azure/o1 by team"]),
        ("team/llama/8b", Step.CREDENTIAL_PREFIX, ["openai/llama/8b by team", "azure/llama/8b by team"]),
        ("solo/gpt-9", Step.CREDENTIAL_PREFIX, ["azure/gpt-9 by solo"]),
        ("ours", Step.CREDENTIAL_PREFIX, ["openai/gpt-9 by team"]),
        ("openai/gpt-9", Step.PREFIX, ["openai/gpt-9"]),
        ("gpt-9", Step.MODELS, ["openai/gpt-9"]),
        # A route comes first, and its targets keep to the prefix.
        ("team/kept-1", Step.ROUTE, ["openai/kept-1 by team", "free/fixed by team"]),
        ("kept-1", Step.ROUTE, ["free/fixed"]),
    ],
)
def test_a_prefix_comes_after_providers_and_before_models(
    bench: Build, model: str, step: Step, targets: list[str]
) -> None:
    plan = bench(DOCUMENT).router.resolve(RouteQuery(model))
    found = [f"{each}{f' by {each.prefix}' if each.prefix else ''}" for each in plan.first.targets]
    assert (step, targets) == (plan.step, found)


@pytest.mark.parametrize("model", ["team/", "team", "nobody/gpt-9"])
def test_a_prefix_alone_or_of_nobody_is_no_model(bench: Build, model: str) -> None:
    with pytest.raises(ModelNotFound):
        bench(DOCUMENT).router.resolve(RouteQuery(model))


def test_a_route_to_providers_without_the_prefix_has_nobody_to_serve(bench: Build) -> None:
    routes = [{"name": "all", "match": {"model": "*"}, "targets": ["free/*"]}]
    router = bench({**DOCUMENT, "routes": routes}).router
    tries = router.begin(router.resolve(RouteQuery("team/gpt-9")), maybe_delivered=True)
    with pytest.raises(NoTargetAvailable, match="no credential of `free` of the prefix `team`"):
        tries.next(0.0)


def test_a_prefix_that_is_used_up_leaves_the_others_to_serve(bench: Build) -> None:
    made = bench(DOCUMENT)

    def begin(model: str) -> Any:
        return made.router.begin(made.router.resolve(RouteQuery(model)), maybe_delivered=True)

    tries = begin("team/gpt-9")
    attempt = tries.next(0.0)
    limited = UpstreamRateLimited("slow down", upstream_status=429, retry_after_seconds=60)
    assert ("team", Verdict.GIVE_UP) == (attempt.credential, tries.failed(attempt, limited, 0.0, resendable=True))
    assert "main" == begin("openai/gpt-9").next(1.0).credential
    with pytest.raises(TargetsRateLimited) as caught:
        begin("team/gpt-9").next(1.0)
    assert 59 == caught.value.retry_after_seconds


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CredentialNotReady("no token"), "credential_not_ready"),
        (CredentialsRejected("no", upstream_status=401), "credential_refused"),
    ],
)
def test_why_a_credential_cools_is_told(bench: Build, error: Any, reason: str) -> None:
    made = bench(DOCUMENT)
    tries = made.router.begin(made.router.resolve(RouteQuery("openai/gpt-9")), maybe_delivered=True)
    attempt = tries.next(0.0)
    tries.failed(attempt, error, 0.0, resendable=True)
    assert [(attempt.credential, reason)] == [(each.credential, each.reason) for each in made.told]
    assert attempt.credential != tries.next(0.0).credential


def test_a_configuration_is_refused_for_prefixes_of_providers_and_globs_that_are_none(
    faults: Callable[[dict[str, Any]], tuple[Fault, ...]],
) -> None:
    bad = [{"name": "openai", "type": "openai", "credentials": [key("a", prefix="openai", models=["o1", "["])]}]
    found = faults({"providers": bad})
    assert [
        ("providers", 0, "credentials", 0, "prefix"),
        ("providers", 0, "credentials", 0, "models", 1),
    ] == [fault.path for fault in found]
    assert "`openai/…` names the provider `openai`: choose another prefix" == found[0].message


def test_an_alias_may_lead_to_a_prefix_that_an_account_may_have(
    bench: Build, faults: Callable[[dict[str, Any]], tuple[Fault, ...]]
) -> None:
    document = {"providers": PROVIDERS, "model_aliases": [{"from": "x", "to": "account/gpt-9"}]}
    (fault,) = faults(document)
    assert ("model_aliases", 0, "to") == fault.path
    bench({**document, "providers": [*PROVIDERS, {"name": "more", "type": "openai", "oauth": "sign-in"}]})


def test_it_is_explained(bench: Build) -> None:
    made = bench(DOCUMENT)
    told = made.router.explain(RouteQuery("team/o1"))
    assert ["team"] == [target.prefix for target in told.groups[0].targets]
    assert "credential_prefix" == msgspec.to_builtins(told)["step"]
    dialled = Dialled("azure", "o1", "http://a", made.pools.names("azure", "o1", "team"))
    assert "won         credential_prefix" in render(Report(told, None, (dialled,), "rev"))
    assert ("a",) == dialled.credentials
    assert "credentials: none" in render(Report(told, None, (Dialled("azure", "o1", "http://a", ()),), "rev"))
