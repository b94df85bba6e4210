"""Accounts by the API of a running gateway, signed in at a strict server that others have written."""

import asyncio
from typing import Any
from urllib.parse import quote

from tests.gateway_process import ADMIN_KEY, Answer, Gateway, put_text, until
from tests.integration.conftest import StartGateway
from tests.oauth_server import browser, oauth_server
from tests.planted import planted

CONFIG = """
    server: {workers: 2}
    oauth:
      providers: [{name: corp, issuer: "ISSUER", client_id: public, scopes: [openid, offline_access]}]
    providers:
      - {name: real, type: openai-compatible, base_url: "https://real.invalid/v1", oauth: corp}
      - name: filed
        type: openai-compatible
        base_url: "https://filed.invalid/v1"
        credentials:
          - {name: run, disabled: true, command: {run: ["false"], environment: {KEY: "SECRET"}}}
          - {name: key, api_key: "SECRET"}
"""
SECRET = planted("of-the-file")
COMMAND = {"name": "new", "command": {"run": ["id"]}}


def api(gateway: Gateway, method: str, path: str, body: object = None, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, f"/api/v1{path}", body, fields, key=ADMIN_KEY)


def main_of(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    return {name: found[name] for name in ("id", "state", "oauth", "weight", "note", "version")}


async def test_an_account_lives_from_its_sign_in_to_its_removal(start_gateway: StartGateway, tmp_path: Any) -> None:
    with oauth_server(tmp_path) as server:
        gateway = start_gateway(CONFIG.replace("ISSUER", server.url).replace("SECRET", SECRET))
        await asyncio.to_thread(_guarded, gateway, held=False)
        await _sign_in(gateway)
        await asyncio.to_thread(_seen_and_changed, gateway)
        await asyncio.to_thread(_guarded, gateway, held=True)
        exported = api(gateway, "POST", "/credentials/real%2Fmain/export").json()
        assert 409 == api(gateway, "POST", "/credentials/import", exported).status
        elsewhere = api(gateway, "POST", "/credentials/import", {**exported, "provider": "filed"})
        assert (422, "credential_error-unknown_provider") == (elsewhere.status, elsewhere.code)
        cut = api(gateway, "POST", "/credentials/import", {**exported, "name": "b", "sealed": exported["sealed"][:-8]})
        assert (422, "credential_error-import_damaged") == (cut.status, cut.code)

        tag = api(gateway, "GET", "/credentials/real%2Fmain").headers["etag"]
        removed = api(gateway, "DELETE", "/credentials/real%2Fmain", If_Match=tag)
        assert (200, {"revoked": True, "message": None}) == (removed.status, removed.json())
        assert 404 == api(gateway, "GET", "/credentials/real%2Fmain").status

        # What was exported before is of no use any more: its tokens were given back.
        imported = api(gateway, "POST", "/credentials/import", exported)
        assert (201, "/api/v1/credentials/real%2Fmain") == (imported.status, imported.headers["location"])
        refused = api(gateway, "POST", "/credentials/real%2Fmain/refresh")
        assert (409, "credential_error-needs_login") == (refused.status, refused.code)
        assert "needs_login" == api(gateway, "GET", "/credentials/real%2Fmain").json()["state"]
        gateway.expect_log("real/main")
        gateway.expect_log("made a master key")
        await until(lambda: _actions(gateway) >= ACTIONS, what="the audit")


ACTIONS = {
    ("credential.update", "done"),
    ("credential.refresh", "done"),
    ("credential.refresh", "credential_error-needs_login"),
    ("credential.export", "done"),
    ("credential.import", "credential_error-name_taken"),
    ("credential.import", "credential_error-import_damaged"),
    ("credential.import", "done"),
    ("credential.delete", "done"),
    ("credential.create", "done"),
    ("config.restore", "provider_error-command_in_file_only"),
}


def _actions(gateway: Gateway) -> set[tuple[str, str]]:
    found = api(gateway, "GET", "/audit?limit=1000").json()["data"]
    return {(each["action"], each["outcome"]) for each in found}


async def _sign_in(gateway: Gateway) -> None:
    begun = await asyncio.to_thread(api, gateway, "POST", "/credentials/login", {"provider": "real", "weight": 2})
    assert 200 == begun.status, begun.body
    async with browser() as person:
        back = await person.sign_in(begun.json()["authorization_url"])
    done = await asyncio.to_thread(api, gateway, "POST", "/credentials/login/complete", {"redirect_url": back})
    assert (200, "complete") == (done.status, done.json()["status"]), done.body


def _seen_and_changed(gateway: Gateway) -> None:
    path = "/credentials/real%2Fmain"
    shown = api(gateway, "GET", path)
    assert {"id": "real/main", "state": "ready", "oauth": "corp", "weight": 2, "note": None, "version": 1} == main_of(
        shown
    )
    assert '"1"' == shown.headers["etag"]
    assert ["filed/key", "filed/run", "real/main"] == [
        each["id"] for each in api(gateway, "GET", "/credentials").json()["data"]
    ]
    assert ["real/main"] == [each["id"] for each in api(gateway, "GET", "/credentials?provider=real").json()["data"]]

    unsaid = api(gateway, "PATCH", path, {"note": "hers"})
    assert (428, "request_error-if_match_required") == (unsaid.status, unsaid.code)
    changed = api(gateway, "PATCH", path, {"note": "hers", "weight": 5}, If_Match='"1"')
    assert {"id": "real/main", "state": "ready", "oauth": "corp", "weight": 5, "note": "hers", "version": 2} == main_of(
        changed
    )
    stale = api(gateway, "PATCH", path, {"note": "his"}, If_Match='"1"')
    assert (412, "credential_error-stale", '"2"') == (stale.status, stale.code, stale.headers["etag"])
    for taken in ("real", "filed"):
        answer = api(gateway, "PATCH", path, {"prefix": taken}, If_Match='"2"')
        assert (400, "request_error-invalid_body") == (answer.status, answer.code)
    # Whichever worker answers.
    assert {5} == {api(gateway, "GET", path).json()["weight"] for _ in range(12)}

    refreshed = api(gateway, "POST", f"{path}/refresh")
    assert (200, "ready", 5) == (refreshed.status, refreshed.json()["state"], refreshed.json()["weight"])
    assert refreshed.json()["version"] > 2
    filed = api(gateway, "PATCH", "/credentials/filed%2Fkey", {"note": "x"}, If_Match='"1"')
    assert (409, "credential_error-in_file") == (filed.status, filed.code)
    key = api(gateway, "POST", "/credentials/filed%2Fkey/refresh")
    assert (409, "credential_error-cannot_refresh") == (key.status, key.code)

    given = {"action": "set", "value": planted("given-token")}
    added = api(gateway, "POST", "/credentials", {"provider": "real", "name": "given", "access_token": given})
    assert (201, "/api/v1/credentials/real%2Fgiven") == (added.status, added.headers["location"])
    again = api(gateway, "POST", "/credentials", {"provider": "real", "name": "given", "access_token": given})
    assert (409, "credential_error-name_taken") == (again.status, again.code)
    gone = api(gateway, "DELETE", "/credentials/real%2Fgiven", If_Match=added.headers["etag"])
    assert 200 == gone.status, gone.body


def _guarded(gateway: Gateway, *, held: bool) -> None:
    """What the API may not do to credentials by an edit of the configuration."""
    original = gateway.config.read_text()
    etag = api(gateway, "GET", "/config").headers["etag"]
    text = api(gateway, "GET", "/config/document").body.decode()
    assert SECRET not in text
    provider = {"name": "evil", "type": "openai-compatible", "base_url": "https://evil.invalid"}
    with_command = text.replace("      - {name: key,", "      - {name: new, command: {run: [id]}}\n      - {name: key,")
    assert with_command != text
    asked = [
        api(gateway, "POST", "/providers", {**provider, "credentials": [COMMAND]}),
        api(gateway, "PATCH", "/providers/real", {"credentials": [COMMAND]}, If_Match=etag),
        api(gateway, "PUT", "/providers/real", {**provider, "name": "real", "credentials": [COMMAND]}, If_Match=etag),
        api(gateway, "PATCH", "/config", {"providers": [{**provider, "credentials": [COMMAND]}]}, If_Match=etag),
        api(
            gateway,
            "POST",
            "/config/apply",
            {"patch": {"providers": [{**provider, "credentials": [COMMAND]}]}},
            If_Match=etag,
        ),
        _put(gateway, with_command, etag),
    ]
    assert [(403, "provider_error-command_in_file_only")] * len(asked) == [(each.status, each.code) for each in asked]
    elsewhere = [
        api(gateway, "PATCH", "/providers/real", {"base_url": "https://evil.invalid"}, If_Match=etag),
        _put(gateway, text.replace("https://real.invalid", "https://evil.invalid"), etag),
    ]
    if held:
        assert [(422, "provider_error-secret_required")] * 2 == [(each.status, each.code) for each in elsewhere]
        assert "delete the accounts" in elsewhere[0].body.decode()
        return
    # Nobody has signed in yet.
    assert [200, 412] == [each.status for each in elsewhere]
    gateway.settle()
    first = api(gateway, "GET", "/config/revisions").json()["data"][-1]["id"]
    etag = api(gateway, "GET", "/config").headers["etag"]
    etag = api(gateway, "PATCH", "/providers/filed", {"credentials": []}, If_Match=etag).headers["etag"]
    brought_back = api(gateway, "POST", f"/config/revisions/{quote(first)}/restore", If_Match=etag)
    assert (403, "provider_error-command_in_file_only") == (brought_back.status, brought_back.code)
    put_text(gateway.config, original)
    assert 200 == api(gateway, "POST", "/config/reload").status


def _put(gateway: Gateway, text: str, etag: str) -> Answer:
    return api(gateway, "PUT", "/config/document", text.encode(), If_Match=etag, Content_Type="application/yaml")
