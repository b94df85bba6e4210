"""Providers, aliases and routes, edited by the API of a running gateway in the files that an operator has written."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.gateway_process import ACCESS, ADMIN_KEY, TOKEN, Answer, Gateway, gateway, put_text, sha256
from tests.openapi_answers import check_answer
from tests.planted import place_of_secrets, planted

KEY = planted("provider-key")
OTHER_KEY = planted("other-provider-key")
NEW_KEY = planted("new-provider-key")
HEADER = planted("header")
PASSWORD = planted("password")
QUERY = planted("query")
READER = planted("reader")

ROOT = f"""\
# The configuration of the tests.
server: {{allow_private_targets: false}}
include: [more/*.yaml]
providers:
  # The main account.
  - name: main            # told apart by this
    type: openai
    base_url: http://127.0.0.1:1/v1?key={QUERY}
    credentials:
      - {{name: first, api_key: "{KEY}"}}   # of the first team
      - name: second
        api_key: ${{env:SECOND_KEY}}
    headers: {{x-team: {HEADER}}}
    proxy_url: http://user:{PASSWORD}@127.0.0.1:1

  # Answers by itself.
  - {{name: echo, type: echo, models: [echo*]}}
model_aliases:
  - {{from: fast, to: echo/echo}}   # what it stands for
  - from: "big/*"
    to: main/gpt-*
routes:
  - name: gold   # the first
    match: {{model: echo/gold}}
    targets: [echo/echo]

  - name: silver
    match: {{model: echo/silver}}
    targets: [{{to: echo/echo, weight: 2}}]
"""
MORE = f"""\
# Of another team.
providers:
- name: included
  type: openai
  credentials:
  - {{name: only, api_key: {OTHER_KEY}}}
"""
ALLOWED = ACCESS + "  allowed_references: ['env:LLM_*']\n"

Shared = tuple[Gateway, str]


@contextmanager
def _gateway(place: Path, **extra: str) -> Iterator[Shared]:
    more = place / "more" / "more.yaml"
    more.parent.mkdir(parents=True)
    place_of_secrets(more).write_text(MORE)
    reader = f"  - {{name: reader, sha256: {sha256(READER)}, scope: scope_token_power_user}}\n"
    text = ALLOWED.replace("management:", f"{reader}management:") + ROOT
    environment = {
        "SECOND_KEY": planted("second-key"),
        "LLM_KEY": planted("llm-key"),
        "OTHER": planted("other"),
        **extra,
    }
    with gateway(text, place, extra=environment) as running:
        running.expect_log("made a master key")
        yield running, text


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with _gateway(tmp_path_factory.mktemp("entries") / "gateway") as started:
        yield started


@pytest.fixture
def running(shared: Shared) -> Gateway:
    """With the files that the operator has written in force, whatever a test before has made of them."""
    started, text = shared
    put_text(started.config, text)
    put_text(started.config.parent / "more" / "more.yaml", MORE)
    answer = call(started, "POST", "config/reload")
    assert 200 == answer.status, answer.body
    return started


def call(
    running: Gateway, method: str, path: str, body: Any = None, match: str | None = None, key: str = ADMIN_KEY
) -> Answer:
    fields = {} if match is None else {"if-match": match}
    answer = running.request(method, f"/api/v1/{path}", body, fields, key)
    check_answer(method, f"/api/v1/{path}", answer.status, answer.headers, answer.body)
    return answer


def etag(running: Gateway) -> str:
    return call(running, "GET", "providers").headers["etag"]


def edit(running: Gateway, method: str, path: str, body: Any = None) -> Answer:
    """With the present revision."""
    return call(running, method, path, body, etag(running))


def codes(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


def written(running: Gateway) -> str:
    return running.config.read_text()


JSON = {"content-type": "application/json"}
SET = {"action": "set", "value": NEW_KEY}
KEEP = {"action": "keep"}


def test_providers_are_shown_without_their_secrets(running: Gateway) -> None:
    answer = call(running, "GET", "providers")

    main, echo, included = answer.json()["data"]
    assert None is answer.json()["next_cursor"]
    lines = written(running).splitlines()
    assert {
        "name": "main",
        "type": "openai",
        "base_url": "http://127.0.0.1:1/v1?key=${kept}",
        "credentials": [
            {"name": "first", "api_key": {"kind": "literal"}},
            {"name": "second", "api_key": {"kind": "reference", "reference": "${env:SECOND_KEY}"}},
        ],
        "headers": {"x-team": {"kind": "literal"}},
        "proxy_url": {"kind": "literal"},
        "file": "config.yaml",
        "line": 1 + next(number for number, line in enumerate(lines) if line.startswith("  - name: main")),
    } == main
    assert ("config.yaml", "more/more.yaml") == (echo["file"], included["file"])
    assert 3 == included["line"]
    one = call(running, "GET", "providers/main")
    assert main == one.json()
    assert answer.headers["etag"] == one.headers["etag"]


def test_who_may_see_and_who_may_edit(running: Gateway) -> None:
    for path in ("providers", "providers/echo"):
        assert 200 == call(running, "GET", path, key=READER).status
    for path in ("aliases", "aliases/fast", "routes", "routes/gold"):
        assert 403 == call(running, "GET", path, key=READER).status
        assert 200 == call(running, "GET", path).status
    for method, path in (
        ("POST", "providers"),
        ("PUT", "providers/echo"),
        ("PATCH", "routes/gold"),
        ("DELETE", "aliases/fast"),
    ):
        assert 403 == call(running, method, path, {}, etag(running), key=READER).status
        assert 403 == call(running, method, path, {}, etag(running), key=TOKEN).status


def test_a_list_comes_in_parts(running: Gateway) -> None:
    first = call(running, "GET", "providers?limit=2").json()
    rest = call(running, "GET", f"providers?limit=2&cursor={first['next_cursor']}").json()

    assert ["main", "echo"] == [each["name"] for each in first["data"]]
    assert (["included"], None) == ([each["name"] for each in rest["data"]], rest["next_cursor"])
    for query in ("limit=0", "limit=1001", "cursor=bm9uZQ", "cursor=!", "cursor=%ff", "what=1"):
        assert (400, "request_error-invalid_query") == codes(call(running, "GET", f"providers?{query}"))


def test_a_provider_is_added_changed_and_removed_live(running: Gateway) -> None:
    before = written(running)

    made = call(
        running,
        "POST",
        "providers",
        {
            "name": "second-echo",
            "type": "echo",
            "credentials": [{"name": "a", "api_key": SET}],
            "models": ["theirs-*"],
        },
    )

    assert 201 == made.status, made.body
    assert (201, "/api/v1/providers/second-echo") == (made.status, made.headers["location"])
    body = made.json()
    assert {"kind": "sealed", "key_id": body["credentials"][0]["api_key"]["key_id"]} == body["credentials"][0][
        "api_key"
    ]
    assert NEW_KEY not in written(running)
    assert 200 == running.chat("second-echo/echo").status

    changed = call(
        running, "PATCH", "providers/second-echo", {"models": ["mine-*"], "credentials": None}, made.headers["etag"]
    )

    assert 200 == changed.status, changed.body
    assert (["mine-*"], False) == (changed.json()["models"], "credentials" in changed.json())
    assert 200 == running.chat("mine-1").status

    put = call(running, "PUT", "providers/second-echo", {"type": "echo"}, changed.headers["etag"])

    assert (200, False) == (put.status, "models" in put.json())
    assert 404 == running.chat("mine-1").status

    gone = call(running, "DELETE", "providers/second-echo", None, put.headers["etag"])

    assert (204, b"") == (gone.status, gone.body)
    assert before == written(running)
    assert gone.headers["etag"] == etag(running)
    assert (404, "provider_error-not_found") == codes(call(running, "GET", "providers/second-echo"))


def test_comments_order_and_spelling_survive(running: Gateway) -> None:
    before = written(running)

    assert 200 == edit(running, "PATCH", "providers/main", {"models": ["gpt-*"]}).status
    assert 200 == edit(running, "PATCH", "aliases/fast", {"to": "echo/other"}).status
    assert 200 == edit(running, "PATCH", "routes/silver", {"strategy": "weighted"}).status
    assert 201 == call(running, "POST", "aliases", {"from": "slow", "to": "fast"}).status

    proxy = f"    proxy_url: http://user:{PASSWORD}@127.0.0.1:1\n"
    assert (
        before.replace(proxy, f'{proxy}    models: ["gpt-*"]\n')
        .replace("to: echo/echo}   #", "to: echo/other}   #")
        .replace("weight: 2}]\n", "weight: 2}]\n    strategy: weighted\n")
        .replace("to: main/gpt-*\n", "to: main/gpt-*\n  - from: slow\n    to: fast\n")
    ) == written(running)


def test_an_entry_of_another_file_is_edited_there(running: Gateway) -> None:
    before = written(running)

    changed = edit(running, "PATCH", "providers/included", {"models": ["team-*"]})

    assert (200, "more/more.yaml") == (changed.status, changed.json()["file"])
    assert before == written(running)
    assert f"{MORE}  models: [" in (running.config.parent / "more" / "more.yaml").read_text()
    assert 204 == edit(running, "DELETE", "providers/included").status
    assert "included" not in (running.config.parent / "more" / "more.yaml").read_text()


def test_an_edit_is_made_for_what_was_read(running: Gateway) -> None:
    first = etag(running)
    assert 200 == call(running, "PATCH", "routes/gold", {"strategy": "random"}, first).status
    after = written(running)

    late = call(running, "PATCH", "routes/gold", {"strategy": "weighted"}, first)
    assert (412, "config_error-stale", etag(running)) == (*codes(late), late.headers["etag"])
    for method in ("PUT", "PATCH", "DELETE"):
        answer = call(running, method, "routes/gold", {})
        assert (428, "request_error-if_match_required") == codes(answer)
    assert (412, "config_error-stale") == codes(call(running, "POST", "aliases", {"from": "a", "to": "fast"}, first))
    assert (400, "request_error-invalid_if_match") == codes(call(running, "DELETE", "routes/gold", None, "*"))

    assert after == written(running)


def test_edits_at_the_same_time_are_each_made_once_or_refused(running: Gateway) -> None:
    common = etag(running)

    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda number: call(running, "POST", "aliases", {"from": f"a{number}", "to": "fast"}), range(8))
        )
        patched = list(
            pool.map(lambda number: call(running, "PATCH", "aliases/fast", {"to": f"echo/{number}"}, common), range(8))
        )

    for answer in made:
        assert answer.status in (201, 412), answer.body
    listed = {each["from"] for each in call(running, "GET", "aliases").json()["data"]}
    assert {answer.json()["from"] for answer in made if answer.status == 201} | {"fast", "big/*"} == listed
    assert {412} == {answer.status for answer in patched}


def test_names_are_kept_and_unique(running: Gateway) -> None:
    before = written(running)

    for method, path, body, expected in (
        ("POST", "providers", {"name": "echo", "type": "echo"}, (409, "config_error-entry_exists")),
        ("POST", "providers", {"name": "included", "type": "echo"}, (409, "config_error-entry_exists")),
        ("POST", "providers", {"type": "echo"}, (400, "request_error-invalid_body")),
        ("POST", "providers", {"name": 5, "type": "echo"}, (400, "request_error-invalid_body")),
        ("PUT", "providers/echo", {"name": "other", "type": "echo"}, (400, "request_error-invalid_body")),
        ("PATCH", "providers/echo", {"name": None}, (400, "request_error-invalid_body")),
        ("PUT", "providers/none", {"type": "echo"}, (404, "provider_error-not_found")),
        ("PATCH", "aliases/none", {}, (404, "config_error-entry_missing")),
        ("DELETE", "routes/none", None, (404, "config_error-entry_missing")),
    ):
        assert expected == codes(edit(running, method, path, body)), (method, path)

    assert before == written(running)


def test_what_is_wrong_with_a_body_is_told_with_its_place(running: Gateway) -> None:
    before = written(running)

    for body, param in (
        ({"basurl": "https://x"}, "basurl"),
        ({"credentials": [{"name": "a", "api_key": KEEP}, {"nam": "b"}]}, "credentials[1].nam"),
        ({"credentials": [{"name": "a", "api_key": NEW_KEY}]}, "credentials[0].api_key"),
        ({"credentials": [{"name": "a", "api_key": {"action": "set"}}]}, "credentials[0].api_key"),
        ({"credentials": [{"name": "a", "api_key": {"action": "set", "value": ""}}]}, "credentials[0].api_key"),
        ({"credentials": [{"name": "a", "api_key": {**SET, "more": 1}}]}, "credentials[0].api_key"),
        ({"credentials": [{"name": "a", "api_key": {"reference": "x${env:LLM_KEY}"}}]}, "credentials[0].api_key"),
        ({"credentials": [{"name": "a", "api_key": {"reference": "LLM_KEY"}}]}, "credentials[0].api_key"),
        ({"credentials": [{"name": "a", "api_key": {"reference": "${what:x}"}}]}, "credentials[0].api_key"),
        ({"proxy_url": "http://127.0.0.1:1"}, "proxy_url"),
    ):
        answer = edit(running, "PATCH", "providers/main", body)
        assert (400, "request_error-invalid_body", param) == (*codes(answer), answer.json()["error"]["param"]), body
        assert param == answer.json()["error"]["faults"][0]["path"]
    for raw in (b"[]", b"{", b'"x"', b'{"type": "echo", "type": "echo"}'):
        answer = running.request("PATCH", "/api/v1/providers/main", raw, {"if-match": etag(running), **JSON}, ADMIN_KEY)
        assert (400, "request_error-invalid_body") == codes(answer)

    assert before == written(running)


def test_what_the_loader_refuses_changes_nothing(running: Gateway) -> None:
    before = written(running)

    for method, path, body, words in (
        ("DELETE", "providers/echo", None, "echo"),
        ("POST", "providers", {"name": "a", "type": "unknown-vendor"}, "type"),
        ("POST", "providers", {"name": "a b", "type": "echo"}, "name"),
        ("POST", "aliases", {"from": "a", "to": "nowhere/x"}, "nowhere"),
        ("PATCH", "routes/gold", {"targets": []}, "targets"),
        ("PATCH", "providers/echo", {"models": "echo*"}, "models"),
        ("PATCH", "routes/gold", {"retry": {"attempts": 11}}, "attempts"),
    ):
        answer = edit(running, method, path, body)
        assert (422, "config_error-invalid") == codes(answer), (path, answer.body)
        assert any(words in f"{fault['path']} {fault['message']}" for fault in answer.json()["error"]["faults"])

    assert before == written(running)
    assert 200 == running.chat("fast").status


def test_routes_have_an_order(running: Gateway) -> None:
    def order() -> list[str]:
        return [each["name"] for each in call(running, "GET", "routes").json()["data"]]

    bronze = {"name": "bronze", "targets": ["echo/echo"], "match": {"model": "echo/bronze"}}
    assert 201 == call(running, "POST", "routes", {**bronze, "before": "silver"}).status
    assert ["gold", "bronze", "silver"] == order()
    assert 201 == call(running, "POST", "routes", {**bronze, "name": "last"}).status
    assert ["gold", "bronze", "silver", "last"] == order()
    assert 200 == edit(running, "PATCH", "routes/last", {"before": "gold"}).status
    assert ["last", "gold", "bronze", "silver"] == order()
    assert 200 == edit(running, "PUT", "routes/gold", {"targets": ["echo/echo"], "before": None}).status
    assert ["last", "gold", "bronze", "silver"] == order()
    for before in ("none", 5):
        answer = call(running, "POST", "routes", {**bronze, "name": "other", "before": before})
        assert (400, "before") == (answer.status, answer.json()["error"]["param"])
    assert 400 == call(running, "POST", "aliases", {"from": "a", "to": "fast", "before": "fast"}).status


def test_an_alias_is_told_by_what_it_is_from(running: Gateway) -> None:
    path = f"aliases/{quote('big/*', safe='')}"

    shown = call(running, "GET", path)
    made = call(running, "POST", "aliases", {"from": "grün/ü?#%", "to": "fast"})

    assert "main/gpt-*" == shown.json()["to"]
    assert "/api/v1/aliases/gr%C3%BCn%2F%C3%BC%3F%23%25" == made.headers["location"]
    assert 200 == running.request("GET", made.headers["location"], key=ADMIN_KEY).status
    assert 200 == edit(running, "PUT", path, {"to": "echo/*"}).status
    assert 204 == edit(running, "DELETE", made.headers["location"].removeprefix("/api/v1/")).status


MAIN = {
    "name": "main",
    "type": "openai",
    "base_url": "http://127.0.0.1:1/v1?key=${kept}",
    "credentials": [{"name": "first", "api_key": KEEP}, {"name": "second", "api_key": KEEP}],
    "headers": {"x-team": KEEP},
    "proxy_url": KEEP,
}


def test_secrets_are_kept_given_and_named(running: Gateway) -> None:
    before = written(running)

    assert 200 == edit(running, "PUT", "providers/main", MAIN).status
    assert before == written(running)

    given = {
        **MAIN,
        "credentials": [
            {"name": "first", "api_key": SET},
            {"name": "third", "api_key": {"reference": "${env:LLM_KEY}"}},
        ],
        "headers": {"x-team": {"action": "set", "value": "${not a reference}"}},
    }
    answer = edit(running, "PUT", "providers/main", given)

    assert 200 == answer.status, answer.body
    first, third = answer.json()["credentials"]
    assert "sealed" == first["api_key"]["kind"]
    assert {"kind": "reference", "reference": "${env:LLM_KEY}"} == third["api_key"]
    assert "$${not a reference}" in written(running)
    assert KEY not in written(running)
    for body in (
        {"credentials": [{"name": "none", "api_key": KEEP}]},
        {"headers": {"none": KEEP}},
        {"base_url": "http://127.0.0.1:2/v1?key=${kept}"},
        {"models": ["${kept}"]},
    ):
        assert (422, "config_error-nothing_to_keep") == codes(edit(running, "PATCH", "providers/main", body)), body


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://127.0.0.1:2/v1"},
        {"base_url": None},
        {"type": "openai-compatible"},
        {"proxy_url": "direct"},
        {"proxy_url": SET},
        {"proxy_url": None},
        {"tls": {"ca": "authority.pem"}},
        {"base_url": "http://127.0.0.1:2/v1", "credentials": [{"name": "first", "api_key": SET}]},
        {"base_url": "http://127.0.0.1:2/v1", "headers": None},
    ],
)
def test_a_kept_secret_goes_nowhere_else(change: dict[str, Any], running: Gateway) -> None:
    before = written(running)

    answer = edit(running, "PATCH", "providers/main", change)

    assert (422, "provider_error-secret_required") == codes(answer)
    assert answer.json()["error"]["faults"][0]["path"].startswith("providers[0].")
    assert before == written(running)


def test_with_new_secrets_a_provider_may_go_elsewhere(running: Gateway) -> None:
    answer = edit(
        running,
        "PATCH",
        "providers/main",
        {
            "base_url": f"https://example.com/v1?key={QUERY}",
            "credentials": [
                {"name": "first", "api_key": SET},
                {"name": "named", "api_key": {"reference": "${env:LLM_KEY}"}},
            ],
            "headers": {"x-team": HEADER},
        },
    )

    assert 200 == answer.status, answer.body
    assert ("https://example.com/v1?key=${kept}", False) == (answer.json()["base_url"], answer.json()["allow_private"])
    assert ["providers[main]: `allow_private: false` was written beside its address, as the API has set it"] == [
        notice for notice in answer.json()["notices"] if "allow_private" in notice
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "providers",
            {"name": "a", "type": "echo", "credentials": [{"name": "a", "api_key": {"reference": "${env:OTHER}"}}]},
        ),
        (
            "providers",
            {
                "name": "a",
                "type": "echo",
                "credentials": [{"name": "a", "api_key": {"reference": "${file:/etc/hostname}"}}],
            },
        ),
        ("providers", {"name": "a", "type": "openai-compatible", "base_url": "http://127.0.0.1/${env:OTHER}"}),
        ("providers", {"name": "a", "type": "echo", "headers": {"x": "${env:OTHER}"}}),
        ("aliases", {"from": "${env:OTHER}", "to": "fast"}),
        ("routes", {"name": "a", "targets": ["echo/echo"], "overrides": {"set": {"user": "${env:OTHER}"}}}),
    ],
)
def test_references_are_added_as_far_as_they_are_allowed(path: str, body: dict[str, Any], running: Gateway) -> None:
    before = written(running)

    assert (422, "config_error-reference_not_allowed") == codes(call(running, "POST", path, body))
    assert before == written(running)


def test_a_sealed_value_is_not_carried_elsewhere(running: Gateway) -> None:
    assert (
        201
        == call(
            running, "POST", "providers", {"name": "a", "type": "echo", "credentials": [{"name": "a", "api_key": SET}]}
        ).status
    )
    sealed = "${sealed:" + written(running).partition("${sealed:")[2].partition("}")[0] + "}"

    for body in (
        {"name": "b", "type": "echo", "credentials": [{"name": "a", "api_key": {"reference": sealed}}]},
        {"name": "b", "type": "echo", "credentials": [{"name": "a", "api_key": SET}], "options": {"x": sealed}},
    ):
        assert (422, "config_error-reference_not_allowed") == codes(call(running, "POST", "providers", body))


def test_an_address_that_the_api_sets_leads_into_no_private_network(running: Gateway) -> None:
    made = call(
        running, "POST", "providers", {"name": "a", "type": "openai-compatible", "base_url": "http://127.0.0.1:1/v1"}
    )

    assert (201, False) == (made.status, made.json()["allow_private"])
    assert "allow_private: false" in written(running)
    assert (422, "config_error-file_only") == codes(edit(running, "PATCH", "providers/a", {"allow_private": True}))
    assert edit(running, "PATCH", "providers/a", {"allow_private": None}).json()["allow_private"] is False
    assert (422, "config_error-file_only") == codes(
        call(running, "POST", "providers", {"name": "b", "type": "echo", "allow_private": True})
    )


def test_without_a_master_key_no_secret_is_sealed(tmp_path: Path) -> None:
    with _gateway(tmp_path / "gateway", SLUICE_MASTER_KEY="no key") as (running, _):
        answer = call(
            running, "POST", "providers", {"name": "a", "type": "echo", "credentials": [{"name": "a", "api_key": SET}]}
        )

    assert (503, "config_error-cannot_seal") == codes(answer)
    assert "SLUICE_MASTER_KEY" in answer.json()["error"]["message"]


def test_a_file_that_cannot_be_read_is_not_touched(running: Gateway) -> None:
    running.expect_log("configuration refused|the configuration in force stays")
    match, before = etag(running), call(running, "GET", "providers").json()
    running.config.write_text("providers: [")

    assert before == call(running, "GET", "providers").json(), "it is in force"
    for method, path, body in (
        ("PATCH", "providers/echo", {}),
        ("POST", "aliases", {"from": "a", "to": "b"}),
    ):
        assert (409, "config_error-unreadable") == codes(call(running, method, path, body, match))
    assert "providers: [" == written(running)
    assert 200 == running.chat("echo/echo").status


def test_the_audit_tells_what_was_changed_without_secrets(running: Gateway) -> None:
    edit(running, "PATCH", "providers/main", {"models": ["gpt-*"]})
    edit(running, "PATCH", "providers/main", {"base_url": "http://127.0.0.1:2/v1"})
    running.settle()

    found = [each for each in call(running, "GET", "audit").json()["data"] if each["action"] == "provider.update"]

    refused, done = found[:2]
    assert ("provider", "main", "provider_error-secret_required") == (
        refused["resource"],
        refused["resource_id"],
        refused["outcome"],
    )
    assert ("done", ["gpt-*"], False) == (done["outcome"], done["after"]["models"], "models" in done["before"])
    assert {"kind": "literal"} == done["after"]["proxy_url"]


def test_a_kept_secret_goes_nowhere_else_by_document_patch_or_restore(running: Gateway) -> None:
    first = etag(running).strip('"')
    document = call(running, "GET", "config/document")
    shown = document.body.decode()
    assert 'api_key: "${kept}"' in shown
    assert "# of the first team" in shown

    put = running.request(
        "PUT",
        "/api/v1/config/document",
        shown.replace("type: openai\n", "type: openai-compatible\n").encode(),
        {"if-match": document.headers["etag"], "content-type": "application/yaml"},
        ADMIN_KEY,
    )
    assert (422, "provider_error-secret_required") == codes(put)
    same = running.request(
        "PUT",
        "/api/v1/config/document",
        shown.replace("# Answers by itself.", "# It answers by itself.").encode(),
        {"if-match": document.headers["etag"], "content-type": "application/yaml"},
        ADMIN_KEY,
    )
    assert 200 == same.status, same.body
    assert KEY in written(running)

    patch = edit(running, "PATCH", "config", {"transport": {"proxy_url": SET}})
    assert 422 == patch.status
    assert patch.code in ("provider_error-secret_required", "config_error-file_only")

    # The operator moves the account, then a caller asks for what was.
    text = written(running)
    put_text(running.config, text.replace("http://127.0.0.1:1/v1", "http://127.0.0.1:3/v1"))
    assert 200 == call(running, "POST", "config/reload").status
    running.settle()
    kept = call(running, "GET", "config/revisions").json()["data"]
    former = next(each["id"] for each in kept if each["revision"] == first)
    restored = edit(running, "POST", f"config/revisions/{former}/restore")
    assert (422, "provider_error-secret_required") == codes(restored)


def test_the_shown_document_holds_nothing_planted(running: Gateway) -> None:
    # Each answer is searched for planted secrets as it comes (tests/gateway_process.py).
    for path in (
        "config",
        "config/document",
        "config/document?file=more%2Fmore.yaml",
        "providers",
        "providers/main",
        "aliases",
        "routes",
    ):
        assert 200 == call(running, "GET", path).status, path
