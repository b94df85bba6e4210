"""`GET /v1/models` and `GET /v1/models/{id}`: what a caller may ask for, and nothing else."""

import pytest

from routing.router import ListedModel
from tests.exchange import LIMITED, TOKEN, Plane, Provider, answer

PROVIDERS = [
    {"name": "a", "type": "openai-compatible", "base_url": "http://a/v1", "models": ["gpt-4o", "org/llama-3:8b", "o*"]},
    {"name": "b", "type": "openai-compatible", "base_url": "http://b/v1"},
]
ALIASES = [{"from": "fast", "to": "a/gpt-4o"}, {"from": "gpt-5*", "to": "b/*"}, {"from": "gpt-new", "to": "b/new"}]
ROUTES = [{"name": "r", "match": {"model": "routed"}, "targets": ["b/x"]}]


def plane() -> Plane:
    providers = [Provider(name, [answer(b"{}")]) for name in ("a", "b")]
    return Plane(*providers, providers=PROVIDERS, model_aliases=ALIASES, routes=ROUTES)


async def test_the_list_has_aliases_and_the_providers_own_names() -> None:
    exchange = await plane().get("/v1/models")
    assert (200, "list") == (exchange.status, exchange.json()["object"])
    assert [
        {"id": "fast", "object": "model", "created": 1_700_000_000, "owned_by": "a"},
        {"id": "gpt-new", "object": "model", "created": 1_700_000_000, "owned_by": "b"},
        {"id": "gpt-4o", "object": "model", "created": 1_700_000_000, "owned_by": "a"},
        {"id": "org/llama-3:8b", "object": "model", "created": 1_700_000_000, "owned_by": "a"},
    ] == exchange.json()["data"]


async def test_the_list_has_only_what_the_token_may_use() -> None:
    exchange = await plane().get("/v1/models", token=LIMITED)
    assert ["gpt-new", "gpt-4o"] == [model["id"] for model in exchange.json()["data"]]


async def test_models_that_providers_have_told_of_come_after_those_of_the_configuration() -> None:
    gateway = plane()
    gateway.plane.discovered.models = (ListedModel("o3", "a"), ListedModel("gpt-4o", "b"), ListedModel("o1", "a"))
    listed = (await gateway.get("/v1/models")).json()["data"]
    assert [("gpt-4o", "a"), ("org/llama-3:8b", "a"), ("o3", "a"), ("o1", "a")] == [
        (model["id"], model["owned_by"]) for model in listed[2:]
    ]
    # The token's own `models` decide as ever.
    listed = (await gateway.get("/v1/models", token=LIMITED)).json()["data"]
    assert ["gpt-new", "gpt-4o"] == [model["id"] for model in listed]


SHOWN = {
    "gpt-4o": ("gpt-4o", "a"),
    "fast": ("fast", "a"),
    "org/llama-3:8b": ("org/llama-3:8b", "a"),
    "org%2Fllama-3%3A8b": ("org/llama-3:8b", "a"),
    "o1-by-a-glob": ("o1-by-a-glob", "a"),
    "gpt-5-by-an-alias": ("gpt-5-by-an-alias", "b"),
    "routed": ("routed", "b"),
    "b/anything/at/all": ("b/anything/at/all", "b"),
}


@pytest.mark.parametrize("path", SHOWN)
async def test_a_model_is_shown_by_whatever_name_it_can_be_asked_for(path: str) -> None:
    exchange = await plane().get(f"/v1/models/{path}")
    name, owner = SHOWN[path]
    assert {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": owner} == exchange.json()


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("nothing", TOKEN),
        ("c/x", TOKEN),
        ("fast", LIMITED),
        ("gpt-4", LIMITED),
        ("%FF%00", TOKEN),
        ("x" * 5000, TOKEN),
        ("b/", TOKEN),
    ],
)
async def test_a_model_that_is_not_there_or_not_open_is_not_found(path: str, token: str) -> None:
    exchange = await plane().get(f"/v1/models/{path}", token=token)
    error = exchange.json()["error"]
    assert (404, "model_not_found", "model") == (exchange.status, error["code"], error["param"])
    assert len(exchange.body) < 600


async def test_neither_is_a_request_to_a_provider() -> None:
    gateway = plane()
    await gateway.get("/v1/models")
    told = gateway.record
    assert ("request.completed", "models", None, 0) == (told.name, told.endpoint, told.provider, told.attempts)
    exchange = await gateway.get("/v1/models/fast")
    assert (None, "req_1") == (exchange.field("x-sluice-target"), exchange.field("x-request-id"))
