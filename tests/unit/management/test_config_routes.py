import json
from typing import Any

import pytest
import yaml

from config import document as document_reader
from config.edit.errors import DocumentBusy, ReadOnlyDocument, WriteFailed
from config.faults import ConfigFaults, Fault
from management.editing.config_edits import MAX_AUDITED_DIFF
from management.errors import ConfigError
from management.secrets.compared import GuardRefused
from management.secrets.entry_values import CannotSeal
from tests.planted import planted
from tests.unit.management.conftest import Call, Gateway
from tests.unit.management.editor_stand_in import source_files

KEY = planted("provider-key", "sk-")
HEADER = planted("header")
SHA256 = "0" * 64
ROOT = f"""\
# the gateway of the tests
include: [conf.d/*.yaml]
providers:
  - name: one   # the first
    type: openai
    credentials:
      - {{name: main, api_key: {KEY}}}
    headers: {{x-extra: "{HEADER}"}}
tokens:
  - {{name: team-a, sha256: "{SHA256}", models: ["*"]}}
"""
INCLUDED = """\
providers:
  - name: two   # from elsewhere
    type: echo
"""
CONFIG = "/api/v1/config"


@pytest.fixture(autouse=True)
def document(gateway: Gateway) -> None:
    gateway.editor.files = source_files(ROOT, more=INCLUDED)


def texts(gateway: Gateway) -> list[str]:
    return [file.data.decode() for file in gateway.editor.files]


def send(call: Call, method: str, path: str, body: Any = None, match: str | None = None) -> Any:
    headers = {} if match is None else {"If-Match": f'"{match}"'}
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    if isinstance(body, bytes):
        headers["Content-Type"] = "application/yaml"
    return call(method, CONFIG + path, "admin", data, headers)


def audited(gateway: Gateway) -> tuple[str, str, Any, Any]:
    entry = gateway.entries[-1]
    before, after = (None if each is None else json.loads(each) for each in (entry.before, entry.after))
    return entry.action, entry.outcome, before, after


# What is shown.


def test_the_configuration_is_shown_without_secrets_and_with_its_places(call: Call, gateway: Gateway) -> None:
    answer = send(call, "GET", "")
    shown = answer.json
    assert f'"{gateway.editor.revision}"' == answer.headers["etag"]
    assert (gateway.editor.revision, gateway.editor.revision) == (shown["revision"], shown["in_force"])
    assert ["config.yaml", "conf.d/more.yaml"] == shown["files"]
    assert [{"name": "main", "api_key": {"kind": "literal"}}] == shown["config"]["providers"][0]["credentials"]
    assert {"file": "config.yaml", "line": 4, "column": 11} == shown["sources"]["/providers/0/name"]
    assert {"file": "conf.d/more.yaml", "line": 3, "column": 11} == shown["sources"]["/providers/1/type"]


def test_what_is_left_out_is_shown_with_its_default(call: Call) -> None:
    shown = send(call, "GET", "").json
    assert "server" not in shown["config"]
    assert 1 == shown["effective"]["server"]["workers"]
    assert 1 == shown["effective"]["providers"][0]["credentials"][0]["weight"]
    assert {"kind": "literal"} == shown["effective"]["providers"][0]["credentials"][0]["api_key"]


@pytest.mark.parametrize("odd", ['"half \\ud800"', ".nan", "123456789012345678901234567890"])
def test_a_value_that_json_cannot_hold_breaks_no_answer(
    call: Call, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    # libyaml takes no half characters; the parser in Python, which takes its place where it is missing, does.
    monkeypatch.setattr(document_reader, "_Loader", yaml.SafeLoader)
    gateway.editor.files = source_files(f"providers:\n  - {{name: one, type: echo, options: {{x: {odd}}}}}\n")
    assert 200 == send(call, "GET", "").status


def test_a_file_is_shown_as_it_is_written_but_for_its_secrets(call: Call) -> None:
    answer = send(call, "GET", "/document")
    assert ROOT.replace(KEY, '"${kept}"').replace(HEADER, "${kept}").replace(SHA256, "${kept}") == answer.body.decode()
    assert "text/yaml" == answer.headers["content-type"]
    assert INCLUDED == send(call, "GET", "/document?file=conf.d/more.yaml").body.decode()


def test_a_file_that_the_configuration_does_not_have_is_not_shown(call: Call) -> None:
    for name in ("../config.yaml", "/etc/passwd", "conf.d/other.yaml", ""):
        answer = send(call, "GET", f"/document?file={name}")
        assert (404, "config_error-entry_missing") == (answer.status, answer.code)


@pytest.mark.parametrize("path", ["", "/document", "/document?file=conf.d/more.yaml"])
def test_a_file_that_cannot_be_parsed_is_refused_by_name_and_not_shown(call: Call, gateway: Gateway, path: str) -> None:
    gateway.editor.files = source_files(f"providers: [{KEY}", more=f"{KEY}: [")
    answer = send(call, "GET", path)
    assert (409, "config_error-unreadable") == (answer.status, answer.code)
    expected = "more.yaml" if "more" in path else "config.yaml"
    assert answer.json["error"]["faults"][0]["file"].endswith(expected)


@pytest.mark.parametrize("path", ["", "/document"])
def test_where_a_file_cannot_be_read_at_all_the_answer_says_which(call: Call, gateway: Gateway, path: str) -> None:
    gateway.editor.readable = False
    answer = send(call, "GET", path)
    assert (409, "conf.d/gone.yaml") == (answer.status, answer.json["error"]["faults"][0]["file"])


# Edits.


def test_a_document_that_is_sent_back_keeps_its_secrets_and_comments(call: Call, gateway: Gateway) -> None:
    shown = send(call, "GET", "/document")
    changed = shown.body.replace(b"# the first", b"# ours")
    answer = send(call, "PUT", "/document?comment=why", changed, shown.headers["etag"].strip('"'))
    assert (200, f'"{gateway.editor.revision}"') == (answer.status, answer.headers["etag"])
    assert {"changed": True, "files": ["config.yaml"], "everywhere": True}.items() <= answer.json.items()
    assert [ROOT.replace("# the first", "# ours"), INCLUDED] == texts(gateway)
    assert ("api", "why") == (gateway.editor.kept[-1][0].trigger, gateway.editor.kept[-1][0].comment)


def test_an_included_file_is_replaced_by_its_name(call: Call, gateway: Gateway) -> None:
    new = INCLUDED.replace("two", "three").encode()
    answer = send(call, "PUT", "/document?file=conf.d/more.yaml", new, gateway.editor.revision)
    assert ["conf.d/more.yaml"] == answer.json["files"]
    assert [ROOT, new.decode()] == texts(gateway)


def test_a_patch_keeps_what_it_does_not_name(call: Call, gateway: Gateway) -> None:
    answer = send(call, "PATCH", "", {"server": {"workers": 2}}, gateway.editor.revision)
    assert 200 == answer.status
    assert [ROOT + "server: {workers: 2}\n", INCLUDED] == texts(gateway)


def test_secrets_of_a_patch_are_set_kept_and_referred_to(call: Call, gateway: Gateway) -> None:
    new = planted("new-key", "sk-")
    credentials = [
        {"name": "main", "api_key": {"action": "keep"}},
        {"name": "spare", "api_key": {"action": "set", "value": new}},
    ]
    patch = {
        "providers": [
            {"name": "one", "type": "openai", "credentials": credentials},
            {"name": "two", "type": "echo"},
        ]
    }
    assert 200 == send(call, "PATCH", "", patch, gateway.editor.revision).status
    assert [new] == gateway.sealer.sealed
    assert KEY in texts(gateway)[0]
    assert "${sealed:" in texts(gateway)[0]


@pytest.mark.parametrize(
    ("secret", "status", "code"),
    [
        (KEY, 400, "request_error-invalid_body"),
        ({"value": KEY}, 400, "request_error-invalid_body"),
        ({"reference": "${env:HOME}"}, 422, "config_error-reference_not_allowed"),
    ],
)
def test_a_secret_in_another_form_is_refused_and_not_repeated(
    call: Call, gateway: Gateway, secret: Any, status: int, code: str
) -> None:
    patch = {"providers": [{"name": "one", "type": "openai", "credentials": [{"name": "main", "api_key": secret}]}]}
    answer = send(call, "PATCH", "", patch, gateway.editor.revision)
    assert (status, code) == (answer.status, answer.code)
    assert [ROOT, INCLUDED] == texts(gateway)


def test_what_is_to_be_kept_must_be_there(call: Call, gateway: Gateway) -> None:
    patch = {"providers": [{"name": "new", "type": "openai", "credentials": [{"api_key": {"action": "keep"}}]}]}
    answer = send(call, "PATCH", "", patch, gateway.editor.revision)
    assert (422, "config_error-nothing_to_keep") == (answer.status, answer.code)


def test_without_a_master_key_no_secret_is_set(call: Call, gateway: Gateway) -> None:
    gateway.sealer.failure = CannotSeal("no master key can be had")
    patch = {
        "providers": [{"name": "new", "type": "openai", "credentials": [{"api_key": {"action": "set", "value": KEY}}]}]
    }
    answer = send(call, "PATCH", "", patch, gateway.editor.revision)
    assert (503, "config_error-cannot_seal") == (answer.status, answer.code)


EDITS = [
    ("PUT", "/document", ROOT.encode()),
    ("PATCH", "", {}),
    ("POST", "/apply", {"patch": {}}),
]


@pytest.mark.parametrize(("method", "path", "body"), EDITS)
def test_an_edit_says_what_it_was_made_for(call: Call, gateway: Gateway, method: str, path: str, body: Any) -> None:
    missing = send(call, method, path, body)
    assert (428, "request_error-if_match_required") == (missing.status, missing.code)
    stale = send(call, method, path, body, "0" * 64)
    assert (412, "config_error-stale", f'"{gateway.editor.revision}"') == (
        stale.status,
        stale.code,
        stale.headers["etag"],
    )


FAULT = Fault(("providers", 0), "no", "config.yaml", 1, 2)
PENDING = {"revision": "1" * 64, "before": "2" * 64, "max_failure_increase": 0.1}


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ReadOnlyDocument("config.yaml is read-only: make it writable"), 409, ConfigError.READ_ONLY),
        (DocumentBusy("another edit does not come to its end"), 503, ConfigError.BUSY),
        (WriteFailed("the disk is full"), 500, ConfigError.WRITE_FAILED),
        (ConfigFaults([FAULT]), 422, ConfigError.INVALID),
        (GuardRefused(ConfigError.FILE_ONLY, [FAULT]), 422, ConfigError.FILE_ONLY),
    ],
)
def test_an_edit_that_cannot_be_made_says_why(
    call: Call, gateway: Gateway, failure: Exception, status: int, code: ConfigError
) -> None:
    gateway.editor.failure = failure
    answer = send(call, "PATCH", "", {}, gateway.editor.revision)
    assert (status, code) == (answer.status, answer.code)
    assert ("retry-after" in answer.headers) == (status == 503)
    if isinstance(failure, ConfigFaults | GuardRefused):
        place = {"file": "config.yaml", "line": 1, "column": 2, "path": "providers[0]", "message": "no"}
        assert [place] == answer.json["error"]["faults"]
    assert ("config.patch", code, {"revision": gateway.editor.revision}, None) == audited(gateway)


def test_an_edit_that_has_faults_changes_nothing(call: Call, gateway: Gateway) -> None:
    answer = send(call, "PUT", "/document", b"servre: {}\n", gateway.editor.revision)
    assert (422, "config_error-invalid") == (answer.status, answer.code)
    assert "did you mean `server`" in answer.json["error"]["faults"][0]["message"]
    assert [ROOT, INCLUDED] == texts(gateway)


def test_a_file_that_cannot_be_parsed_is_never_overwritten(call: Call, gateway: Gateway) -> None:
    gateway.editor.files = broken = source_files(f"providers: [{KEY}")
    for method, path, body in EDITS:
        answer = send(call, method, path, body, gateway.editor.revision)
        assert (409, "config_error-unreadable") == (answer.status, answer.code)
    assert broken == gateway.editor.files


def test_an_edit_that_not_all_workers_serve_yet_is_answered_202(call: Call, gateway: Gateway) -> None:
    gateway.editor.everywhere = False
    answer = send(call, "PATCH", "", {"server": {"workers": 2}}, gateway.editor.revision)
    assert (202, False) == (answer.status, answer.json["everywhere"])


def test_the_audit_has_the_revisions_and_a_diff_without_secrets(call: Call, gateway: Gateway) -> None:
    before = gateway.editor.revision
    body = ROOT.replace(KEY, planted("other-key", "sk-")).replace("# the first", "# ours").encode()
    send(call, "PUT", "/document", body, before)
    action, outcome, was, became = audited(gateway)
    assert ("config.put", "done", {"revision": before}) == (action, outcome, was)
    assert (gateway.editor.revision, ["config.yaml"]) == (became["revision"], became["files"])
    assert "-  - name: one   # the first\n+  - name: one   # ours\n" in became["diff"]
    assert KEY not in str(gateway.entries)


def test_a_long_diff_is_cut_in_the_audit(call: Call, gateway: Gateway) -> None:
    body = ROOT + "".join(f"# comment {number}\n" for number in range(5000))
    send(call, "PUT", "/document", body.encode(), gateway.editor.revision)
    diff = audited(gateway)[3]["diff"]
    assert MAX_AUDITED_DIFF < len(body)
    assert len(diff) < MAX_AUDITED_DIFF + 100
    assert diff.splitlines()[-1].endswith("characters more: compare the revisions")


# Trials.


def test_a_trial_tells_what_would_be_and_changes_nothing(call: Call, gateway: Gateway) -> None:
    answer = send(call, "POST", "/validate", {"patch": {"server": {"workers": 2}}})
    assert 200 == answer.status
    assert {"ok": True, "faults": [], "route_tests": "passed"}.items() <= answer.json.items()
    assert "+server: {workers: 2}\n" in answer.json["diff"]
    assert [ROOT, INCLUDED] == texts(gateway)
    assert [] == gateway.entries
    assert {"ok": True, "diff": ""}.items() <= send(call, "POST", "/validate").json.items()


def test_a_trial_tells_every_fault_with_its_place(call: Call) -> None:
    answer = send(call, "POST", "/validate", {"document": "servre: {}\ntokens: 1\n"})
    assert (False, "not_run") == (answer.json["ok"], answer.json["route_tests"])
    assert [1, 2] == [fault["line"] for fault in answer.json["faults"]]


def test_a_trial_of_a_secret_seals_nothing(call: Call, gateway: Gateway) -> None:
    secret = planted("tried-key", "sk-")
    patch = {
        "providers": [
            {
                "name": "new",
                "type": "openai",
                "credentials": [{"name": "main", "api_key": {"action": "set", "value": secret}}],
            }
        ]
    }
    answer = send(call, "POST", "/validate", {"patch": patch})
    assert True is answer.json["ok"]
    assert "+  - name: new\n" in answer.json["diff"]
    assert [] == gateway.sealer.sealed


@pytest.mark.parametrize(
    "body",
    [{"document": "{}", "patch": {}}, {}, {"patch": {}, "file": "conf.d/more.yaml"}, {"patch": []}, {"documents": ""}],
)
def test_a_draft_is_a_document_or_a_patch(call: Call, gateway: Gateway, body: Any) -> None:
    for path in ("/validate", "/apply"):
        answer = send(call, "POST", path, body, gateway.editor.revision)
        assert (400, "request_error-invalid_body") == (answer.status, answer.code)


@pytest.mark.parametrize("media_type", ["application/yaml", "text/yaml"])
def test_a_draft_may_be_the_text_of_a_file(call: Call, gateway: Gateway, media_type: str) -> None:
    def post(path: str, text: str) -> Any:
        fields = {"Content-Type": media_type, "If-Match": f'"{gateway.editor.revision}"'}
        return call("POST", f"/api/v1/config{path}", "admin", text.encode(), fields)

    refused = post("/validate", "servre: {}\n")
    assert (200, False, 1) == (refused.status, refused.json["ok"], refused.json["faults"][0]["line"])
    text = INCLUDED.replace("two", "three")
    tried = post("/validate?file=conf.d/more.yaml", text)
    assert (True, "+++ conf.d/more.yaml") == (tried.json["ok"], tried.json["diff"].splitlines()[1])
    applied = post("/apply?file=conf.d/more.yaml&confirm_within_seconds=60", text)
    assert (200, tried.json["revision"]) == (applied.status, applied.json["revision"])
    patched = send(call, "POST", "/apply?file=conf.d/more.yaml", {"patch": {}}, gateway.editor.revision)
    assert (400, "request_error-invalid_body") == (patched.status, patched.code)


# Commit and confirm.


def test_an_edit_waits_to_be_confirmed(call: Call, gateway: Gateway) -> None:
    draft = {"document": INCLUDED.replace("two", "three"), "file": "conf.d/more.yaml"}
    applied = send(call, "POST", "/apply?confirm_within_seconds=60", draft, gateway.editor.revision)
    assert (200, "2026-01-02T03:05:05Z") == (applied.status, applied.json["confirm_by"])
    pending = send(call, "GET", "/pending").json["pending"]
    assert {"revision": applied.json["revision"], "max_failure_increase": 0.1}.items() <= pending.items()
    another = send(call, "PATCH", "", {}, gateway.editor.revision)
    assert (409, "config_error-confirmation_pending") == (another.status, another.code)
    wrong = send(call, "POST", "/confirm", {"revision": "0" * 64})
    assert (409, "config_error-nothing_pending") == (wrong.status, wrong.code)
    assert 204 == send(call, "POST", "/confirm", {"revision": applied.json["revision"]}).status
    assert {"pending": None} == send(call, "GET", "/pending").json
    assert ["config.apply", "config.patch", "config.confirm", "config.confirm"] == [e.action for e in gateway.entries]


def test_an_edit_that_waits_is_taken_back(call: Call, gateway: Gateway) -> None:
    send(call, "POST", "/apply", {"patch": {"server": {"workers": 2}}}, gateway.editor.revision)
    answer = send(call, "POST", "/rollback")
    assert (200, gateway.editor.revision) == (answer.status, answer.json["revision"])
    assert [ROOT, INCLUDED] == texts(gateway)
    again = send(call, "POST", "/rollback")
    assert (409, "config_error-nothing_pending") == (again.status, again.code)


@pytest.mark.parametrize("query", ["confirm_within_seconds=0", "confirm_within_seconds=nan", "max_failure_increase=2"])
def test_the_time_to_confirm_has_its_bounds(call: Call, gateway: Gateway, query: str) -> None:
    answer = send(call, "POST", f"/apply?{query}", {"patch": {}}, gateway.editor.revision)
    assert (400, "request_error-invalid_query") == (answer.status, answer.code)


# Revisions.


@pytest.fixture
def ids(call: Call, gateway: Gateway) -> list[str]:
    """Of two revisions, the first of which holds a secret and an included file."""
    send(
        call, "PUT", "/document?comment=first", ROOT.replace("# the first", "# ours").encode(), gateway.editor.revision
    )
    send(call, "PATCH", "", {"server": {"workers": 2}}, gateway.editor.revision)
    return [revision.id for revision, _ in gateway.editor.kept]


def test_revisions_are_listed_newest_first_in_pages(call: Call, ids: list[str]) -> None:
    first = send(call, "GET", "/revisions?limit=1").json
    assert [ids[1]] == [each["id"] for each in first["data"]]
    second = send(call, "GET", f"/revisions?limit=1&cursor={first['next_cursor']}").json
    assert ([ids[0]], None) == ([each["id"] for each in second["data"]], second["next_cursor"])
    assert ("admin-key", "api", "first") == tuple(second["data"][0][key] for key in ("author", "trigger", "comment"))
    assert 400 == send(call, "GET", "/revisions?cursor=never-given").status


def test_a_revision_is_shown_with_its_files_and_without_secrets(call: Call, ids: list[str]) -> None:
    shown = send(call, "GET", f"/revisions/{ids[0]}").json
    assert ["config.yaml", "conf.d/more.yaml"] == [each["file"] for each in shown["files"]]
    assert '{name: main, api_key: "${kept}"}' in shown["files"][0]["text"]
    missing = send(call, "GET", "/revisions/none")
    assert (404, "config_error-revision_missing") == (missing.status, missing.code)


def test_a_revision_is_compared_with_the_one_before_with_another_and_with_the_present(
    call: Call, ids: list[str]
) -> None:
    added = "+server: {workers: 2}\n"
    answer = send(call, "GET", f"/revisions/{ids[1]}/diff")
    assert "text/plain; charset=utf-8" == answer.headers["content-type"]
    assert added in answer.body.decode()
    assert answer.body == send(call, "GET", f"/revisions/{ids[1]}/diff?against={ids[0]}").body
    assert added.replace("+", "-") in send(call, "GET", f"/revisions/{ids[0]}/diff?against=current").body.decode()
    assert b"--- /dev/null\n+++ config.yaml\n" in send(call, "GET", f"/revisions/{ids[0]}/diff").body
    assert 404 == send(call, "GET", f"/revisions/{ids[0]}/diff?against=none").status


def test_a_revision_is_put_back_as_a_whole(call: Call, gateway: Gateway, ids: list[str]) -> None:
    both = {"providers": [{"name": "two", "type": "echo", "models": ["b"]}, {"name": "one", "type": "echo"}]}
    assert 200 == send(call, "PATCH", "", both, gateway.editor.revision).status
    answer = send(call, "POST", f"/revisions/{ids[0]}/restore", match=gateway.editor.revision)
    assert (200, sorted(["config.yaml", "conf.d/more.yaml"])) == (answer.status, sorted(answer.json["files"]))
    assert [ROOT.replace("# the first", "# ours"), INCLUDED] == texts(gateway)
    kept = gateway.editor.kept[-1][0]
    assert ("restore", f"restores {ids[0]}") == (kept.trigger, kept.comment)
    assert "config.restore" == audited(gateway)[0]


def test_a_revision_that_is_not_kept_is_not_put_back(call: Call, gateway: Gateway) -> None:
    assert 428 == send(call, "POST", "/revisions/none/restore").status
    answer = send(call, "POST", "/revisions/none/restore", match=gateway.editor.revision)
    assert (404, "config_error-revision_missing") == (answer.status, answer.code)
