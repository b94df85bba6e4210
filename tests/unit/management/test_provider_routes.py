"""Providers' health, tests and models, and jobs: what handlers make of what they are told."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.schema import Provider
from management.provider_service import KnownModel, KnownModels, ProbeError
from management.provider_templates import TEMPLATES
from proxy.providers import build_adapter
from routing.catalog import Catalog
from tests.unit.management.conftest import Gateway

Call = Callable[..., Any]
ROOT = Path(__file__).parents[3]
REFUSED = ProbeError("upstream_unreachable", "The provider refused the connection.")


def body(call: Call, method: str, path: str, sent: object = None, status: int = 200) -> Any:
    answer = call(method, path, "admin", msgspec.json.encode(sent) if sent is not None else None)
    assert status == answer.status, answer.body
    return answer.json


def test_health_is_told_without_a_question(call: Call, gateway: Gateway) -> None:
    found = body(call, "GET", "/api/v1/providers/openai/health")
    assert ("openai", "up", "2026-01-02T03:04:05Z", None) == (
        found["name"],
        found["state"],
        found["since"],
        found["last_error_code"],
    )
    assert [] == gateway.providers.tested


UNKNOWN = [
    ("GET", "/api/v1/providers/nobody/health", None),
    ("POST", "/api/v1/providers/nobody/test", None),
    ("GET", "/api/v1/providers/nobody/models", None),
    ("POST", "/api/v1/providers/nobody/models/refresh", None),
    ("POST", "/api/v1/models/refresh", {"source": "provider", "provider": "nobody"}),
]


@pytest.mark.parametrize(("method", "path", "sent"), UNKNOWN, ids=[path for _, path, _ in UNKNOWN])
def test_a_provider_that_there_is_not_is_answered_404(call: Call, method: str, path: str, sent: object) -> None:
    found = body(call, method, path, sent, 404)
    assert "provider_error-not_found" == found["error"]["code"]
    assert "No provider is named `nobody`" in found["error"]["message"]


def test_a_test_asks_for_the_models_or_for_a_model(call: Call, gateway: Gateway) -> None:
    assert body(call, "POST", "/api/v1/providers/openai/test")["ok"]
    assert "gpt-1" == body(call, "POST", "/api/v1/providers/openai/test", {"model": "gpt-1"})["asked"]["model"]
    assert [("openai", None), ("openai", "gpt-1")] == gateway.providers.tested


def test_a_test_that_fails_is_an_answer_and_stands_in_the_audit(call: Call, gateway: Gateway) -> None:
    gateway.providers.failure = REFUSED
    found = body(call, "POST", "/api/v1/providers/openai/test", {})
    assert (False, None, "upstream_unreachable") == (found["ok"], found["status"], found["error"]["code"])
    (entry,) = gateway.entries
    assert ("provider.test", "provider", "openai", "done") == (
        entry.action,
        entry.resource,
        entry.resource_id,
        entry.outcome,
    )
    assert {"model": None, "ok": False, "code": "upstream_unreachable"} == msgspec.json.decode(entry.after or "")


@pytest.mark.parametrize("member", ["base_url", "url", "api_key", "credential", "headers"])
def test_a_test_takes_no_address_and_no_credential(call: Call, gateway: Gateway, member: str) -> None:
    found = body(call, "POST", "/api/v1/providers/openai/test", {member: "https://elsewhere.example"}, 400)
    assert "request_error-invalid_body" == found["error"]["code"]
    assert [] == gateway.providers.tested


def test_a_list_of_models_comes_in_pages(call: Call) -> None:
    found: list[str] = []
    cursor = ""
    while True:
        page = body(call, "GET", f"/api/v1/providers/openai/models?limit=2{cursor}")
        assert ("openai", False, True) == (page["provider"], page["stale"], page["stored"])
        found += [model["id"] for model in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert ["gpt-1", "gpt-2", "gpt-3", "gpt-4", "gpt-5"] == found


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 8, 9])
def test_all_models_come_in_pages_by_provider_and_id(call: Call, gateway: Gateway, limit: int) -> None:
    local = KnownModels(provider="local", models=tuple(KnownModel(id=name) for name in ("a", "gpt-3", "z")))
    gateway.providers.lists["local"] = local
    found: list[tuple[str, str]] = []
    cursor = ""
    while True:
        page = body(call, "GET", f"/api/v1/models?limit={limit}{cursor}")
        assert limit >= len(page["data"])
        found += [(model["provider"], model["id"]) for model in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    expected = [("local", "a"), ("local", "gpt-3"), ("local", "z"), *(("openai", f"gpt-{n}") for n in range(1, 6))]
    assert expected == found


def test_a_page_begins_after_a_model_that_has_gone_meanwhile(call: Call, gateway: Gateway) -> None:
    cursor = body(call, "GET", "/api/v1/models?limit=2")["next_cursor"]
    known = gateway.providers.lists["openai"]
    left = tuple(model for model in known.models if model.id != "gpt-2")
    gateway.providers.lists["openai"] = msgspec.structs.replace(known, models=left)
    page = body(call, "GET", f"/api/v1/models?limit=1000&cursor={cursor}")
    assert ["gpt-3", "gpt-4", "gpt-5"] == [model["id"] for model in page["data"]]


def test_all_models_are_told_with_how_each_list_is_known(call: Call) -> None:
    found = body(call, "GET", "/api/v1/models")
    assert {"openai"} == {model["provider"] for model in found["data"]}
    assert [("openai", 5, False), ("local", 0, True)] == [
        (state["provider"], state["models"], state["stale"]) for state in found["providers"]
    ]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", "cursor=WzFd", "page=2"])
def test_a_query_that_no_list_takes_is_refused(call: Call, query: str) -> None:
    assert "request_error-invalid_query" == body(call, "GET", f"/api/v1/models?{query}", None, 400)["error"]["code"]


def test_all_lists_are_read_as_a_job(call: Call) -> None:
    answer = call("POST", "/api/v1/models/refresh", "admin", b'{"source":"all"}')
    assert (202, "/api/v1/jobs/job_1") == (answer.status, answer.headers["location"])
    assert answer.json == body(call, "GET", answer.headers["location"])
    assert "job_error-not_found" == body(call, "GET", "/api/v1/jobs/job_2", None, 404)["error"]["code"]


@pytest.mark.parametrize("sent", [{}, {"source": "some"}, {"source": "provider"}, {"source": "all", "provider": "a"}])
def test_a_refresh_says_what_of(call: Call, sent: object) -> None:
    assert "request_error-invalid_body" == body(call, "POST", "/api/v1/models/refresh", sent, 400)["error"]["code"]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/api/v1/providers/openai/models/refresh", None),
        ("/api/v1/models/refresh", {"source": "provider", "provider": "openai"}),
    ],
)
def test_a_list_that_cannot_be_read_is_answered_502(call: Call, gateway: Gateway, path: str, sent: object) -> None:
    assert 5 == len(body(call, "POST", path, sent)["data"])
    gateway.providers.failure = REFUSED
    found = body(call, "POST", path, sent, 502)["error"]
    assert "model_error-refresh_failed" == found["code"]
    assert "The provider refused the connection. (upstream_unreachable)" in found["message"]


def test_templates_are_a_list_that_ends(call: Call) -> None:
    found = body(call, "GET", "/api/v1/provider-templates")
    assert [each.id for each in TEMPLATES] == [each["id"] for each in found["data"]]
    assert found["next_cursor"] is None


@pytest.mark.parametrize("template", TEMPLATES, ids=[each.id for each in TEMPLATES])
def test_a_template_loads_as_an_entry(template: Any) -> None:
    entry: dict[str, Any] = {"name": template.id, "type": template.type, "models": template.models}
    if template.base_url is not None:
        entry["base_url"] = template.base_url
    provider = msgspec.convert(entry, Provider)
    adapter = build_adapter(provider)
    assert provider.name in Catalog([provider])
    if template.base_url is not None:
        assert f"{template.base_url}/models" == adapter.url("/models")
        assert template.base_url.startswith("https://" if template.api_key else "http://127.0.0.1:")
    assert template.fill_in is None or template.fill_in in template.base_url


def test_the_docs_table_is_the_table_of_templates() -> None:
    section = (ROOT / "docs/providers.md").read_text().split("\n## Templates\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([^`]+)` \| (?:`([^`]+)`)?", section, re.MULTILINE)
    assert [(each.id, each.base_url or "") for each in TEMPLATES] == documented


def test_templates_have_their_own_names_and_references() -> None:
    assert len(TEMPLATES) == len({each.id for each in TEMPLATES})
    keys = [each.api_key for each in TEMPLATES if each.api_key is not None]
    assert len(keys) == len(set(keys))
    assert all(key.startswith("${env:") and key.endswith("_API_KEY}") for key in keys)
