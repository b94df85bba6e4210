"""Entries of the configuration: what their handlers do beside what tests/integration/test_entries_api.py shows."""

import json
from typing import Any

import pytest

from config.edit.errors import Stale
from management.editing.entries import TRIES
from management.secrets.entry_values import CannotSeal
from tests.unit.management.conftest import Answer, Call, Gateway
from tests.unit.management.editor_stand_in import source_files

DOCUMENT = """\
providers:
- {name: echo, type: echo}
- {name: other, type: echo}
- {type: unnamed}
model_aliases: [{from: fast, to: echo/echo}]
routes: [{name: gold, targets: [echo/echo]}]
"""


@pytest.fixture(autouse=True)
def document(gateway: Gateway) -> None:
    gateway.editor.files = source_files(DOCUMENT.replace("- {type: unnamed}\n", ""))


def send(call: Call, method: str, path: str, body: Any = None, match: str | None = None) -> Answer:
    fields = {} if match is None else {"If-Match": f'"{match}"'}
    return call(method, f"/api/v1/{path}", "admin", None if body is None else json.dumps(body).encode(), fields)


def test_an_edit_that_not_all_workers_have_followed_yet_is_accepted(call: Call, gateway: Gateway) -> None:
    gateway.editor.everywhere = False

    made = send(call, "POST", "providers", {"name": "new", "type": "echo"})
    put = send(call, "PUT", "providers/new", {"type": "echo", "models": ["a"]}, gateway.editor.revision)
    patched = send(call, "PATCH", "routes/gold", {"strategy": "random"}, gateway.editor.revision)
    removed = send(call, "DELETE", "aliases/fast", None, gateway.editor.revision)

    assert [202] * 4 == [each.status for each in (made, put, patched, removed)]
    assert ("/api/v1/providers/new", ["a"], "random") == (
        made.headers["location"],
        put.json["models"],
        patched.json["strategy"],
    )
    assert (gateway.editor.revision, []) == (removed.json["revision"], removed.json["restart"])


def test_a_new_entry_is_tried_again_while_others_are_edited(
    call: Call, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = gateway.editor.commit
    late = ["other"] * (TRIES - 1)

    async def commit_late(*args: Any, **kwargs: Any) -> Any:
        if late:
            raise Stale(late.pop())
        return await commit(*args, **kwargs)

    monkeypatch.setattr(gateway.editor, "commit", commit_late)
    assert 201 == send(call, "POST", "aliases", {"from": "a", "to": "fast"}).status

    late += ["other"] * TRIES
    answer = send(call, "POST", "aliases", {"from": "b", "to": "fast"})
    assert (412, "config_error-stale", []) == (answer.status, answer.code, late)


def test_no_edit_is_tried_again_for_whom_has_named_a_revision(call: Call, gateway: Gateway) -> None:
    answer = send(call, "POST", "aliases", {"from": "a", "to": "fast"}, "0" * 64)

    assert (412, "config_error-stale", f'"{gateway.editor.revision}"') == (
        answer.status,
        answer.code,
        answer.headers["etag"],
    )


@pytest.mark.parametrize(
    ("form", "status"),
    [('"{}"', 200), ('W/"{}"', 200), ("{}", 200), ('W/"abc"', 412), ("abc", 412), ("*", 400), ('"{0}", "{0}"', 400)],
)
def test_a_revision_counts_as_proxies_and_scripts_write_it(
    call: Call, gateway: Gateway, form: str, status: int
) -> None:
    fields = {"If-Match": form.format(gateway.editor.revision)}

    answer = call("PATCH", "/api/v1/providers/other", "admin", b'{"models": ["a"]}', fields)

    assert status == answer.status


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_entry_may_be_sent_back_as_it_was_shown(call: Call, gateway: Gateway, method: str) -> None:
    gateway.editor.files = source_files(
        "providers:\n"
        "- {name: a, type: openai, headers: {x-one: Bearer abcdefgh}, credentials: [{name: one, api_key: sk-abcdefgh}]}\n"
    )
    files = gateway.editor.files

    for _ in range(2):  # the second time as the edit was answered, which adds more
        shown = send(call, "GET", "providers/a").json
        answer = send(call, method, "providers/a", shown | {"notices": ["x"], "restart": []}, gateway.editor.revision)
        assert 200 == answer.status, answer.body
    assert [file.data for file in files] == [file.data for file in gateway.editor.files]

    elsewhere = send(call, method, "providers/a", shown | {"file": "other.yaml"}, gateway.editor.revision)
    assert (400, "file") == (elsewhere.status, elsewhere.json["error"]["param"])
    new = send(call, "POST", "providers", shown | {"name": "b"})
    assert 400 == new.status


def test_what_has_no_name_is_not_listed(call: Call, gateway: Gateway) -> None:
    gateway.editor.files = source_files(DOCUMENT)

    assert ["echo", "other"] == [each["name"] for each in send(call, "GET", "providers").json["data"]]


def test_entries_of_a_section_that_is_none_are_none(call: Call, gateway: Gateway) -> None:
    gateway.editor.files = source_files("providers: 5\nroutes:\n")

    for path in ("providers", "routes", "aliases"):
        assert {"data": [], "next_cursor": None} == send(call, "GET", path).json


def test_files_that_cannot_be_read_are_told(call: Call, gateway: Gateway) -> None:
    gateway.editor.readable = False

    for method, path in (("PATCH", "routes/gold"), ("DELETE", "aliases/fast")):
        answer = send(call, method, path, {} if method == "PATCH" else None, "abc")
        assert (409, "config_error-unreadable") == (answer.status, answer.code)


def test_while_files_cannot_be_read_what_is_in_force_is_shown_and_cannot_be_edited(
    call: Call, gateway: Gateway
) -> None:
    listed, shown = send(call, "GET", "providers"), send(call, "GET", "routes/gold")
    gateway.editor.readable = False

    for before, path in ((listed, "providers"), (shown, "routes/gold")):
        answer = send(call, "GET", path)
        assert (200, before.json) == (answer.status, answer.json)
        assert '"abc"' == answer.headers["etag"], "of what is in force"


def test_the_audit_names_what_was_tried(call: Call, gateway: Gateway) -> None:
    gateway.sealer.failure = CannotSeal("there is none")
    body = {"name": "new", "type": "echo", "credentials": [{"name": "a", "api_key": {"action": "set", "value": "x"}}]}

    refused = send(call, "POST", "providers", body)
    removed = send(call, "DELETE", "providers/other", None, gateway.editor.revision)

    assert (503, "config_error-cannot_seal", 204) == (refused.status, refused.code, removed.status)
    assert [
        ("provider.create", "config_error-cannot_seal", "provider", "new", None),
        ("provider.delete", "done", "provider", "other", {"name": "other", "type": "echo"}),
    ] == [
        (each.action, each.outcome, each.resource, each.resource_id, each.before and json.loads(each.before))
        for each in gateway.entries
    ]
