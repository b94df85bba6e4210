"""Settings over real gateways: where a value comes from, setting one, and what the environment does."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import ADMIN_KEY, Answer, Gateway, document, run_cli
from tests.integration.conftest import StartGateway
from tests.integration.test_workers import _await_workers

CONFIG = """
    # Kept by every edit.
    server: {workers: 2, drain_seconds: 5}  # and this too
    providers: [{name: echo, type: echo}]
    telemetry:
      access_log: false
"""


def api(gateway: Gateway, method: str, path: str = "", body: object = None, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, f"/api/v1/settings{path}", body, fields, key=ADMIN_KEY)


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway) -> Gateway:
    running = start_shared_gateway(CONFIG, extra={"SLUICE_SERVER_MAX_URL_BYTES": "1024"})
    _await_workers(running)
    return running


def setting(gateway: Gateway, key: str) -> dict[str, Any]:
    answer = api(gateway, "GET", f"/{key}")
    assert 200 == answer.status
    found: dict[str, Any] = answer.json()
    return found


def test_each_setting_says_where_its_value_comes_from(gateway: Gateway) -> None:
    listed = api(gateway, "GET").json()
    assert None is listed["next_cursor"]
    sources = {
        each["key"]: (each["source"], each["value"], each["default"], each["editable"]) for each in listed["data"]
    }
    assert {
        "server.listen": ("command_line", "127.0.0.1:0", "127.0.0.1:8080", False),
        "server.max_url_bytes": ("environment", 1024, 16384, False),
        "server.drain_seconds": ("file", 5.0, 30.0, True),
        "server.workers": ("file", 2, 1, True),
        "telemetry.access_log": ("file", False, True, True),
        "telemetry.log_level": ("default", "info", "info", True),
        "system.workers": ("system", 2, None, False),
        "system.config": ("system", str(gateway.config), None, False),
        "system.data_directory": ("system", str(gateway.config.parent / "data"), None, False),
    }.items() <= sources.items()
    assert {
        "key": "server.workers",
        "value": 2,
        "default": 1,
        "source": "file",
        "variable": "SLUICE_SERVER_WORKERS",
        "editable": True,
        "restart": True,
        "description": "processes that share the listener",
    } == setting(gateway, "server.workers")
    # It counts, too.
    assert 414 == gateway.request("GET", f"/v1/models?{'x' * 1100}").status


def test_a_setting_is_set_and_reset_in_the_file_on_all_workers(gateway: Gateway) -> None:
    before = gateway.config.read_text()
    etag = api(gateway, "GET").headers["etag"]
    answer = api(gateway, "PUT", "/telemetry.log_level", {"value": "debug"}, If_Match=etag)
    assert (200, "debug", "file") == (answer.status, answer.json()["value"], answer.json()["source"])
    assert answer.headers["etag"] == api(gateway, "GET").headers["etag"] != etag
    assert {"debug"} == {setting(gateway, "telemetry.log_level")["value"] for _ in range(12)}
    written = gateway.config.read_text()
    assert before == written.replace("  log_level: debug\n", "")
    answer = api(gateway, "PUT", "/telemetry.log_level", {"value": "info"}, If_Match=etag)
    assert (412, "config_error-stale") == (answer.status, answer.code)
    etag = answer.headers["etag"]
    answer = api(gateway, "DELETE", "/telemetry.log_level", If_Match=etag)
    assert (200, "info", "default") == (answer.status, answer.json()["value"], answer.json()["source"])
    assert before == gateway.config.read_text()
    again = api(gateway, "DELETE", "/telemetry.log_level", If_Match=answer.headers["etag"])
    assert (200, answer.json(), answer.headers["etag"]) == (again.status, again.json(), again.headers["etag"])
    other = api(gateway, "DELETE", "/transport.max_waiting", If_Match=answer.headers["etag"])
    assert (200, "default") == (other.status, other.json()["source"])
    assert before == gateway.config.read_text()


@pytest.mark.parametrize(
    ("key", "body", "status", "code", "words"),
    [
        ("server.listen", {"value": "127.0.0.1:1"}, 409, "settings_error-masked", "the command line"),
        ("server.max_url_bytes", {"value": 512}, 409, "settings_error-masked", "`SLUICE_SERVER_MAX_URL_BYTES`"),
        ("system.workers", {"value": 3}, 409, "settings_error-read_only", "told by the system"),
        ("management.admin_key_hash", {"value": "x"}, 404, "settings_error-unknown_key", "no such setting"),
        ("server", {"value": 1}, 404, "settings_error-unknown_key", "no such setting"),
        ("server.drain_seconds", {"value": -1}, 422, "config_error-invalid", "server.drain_seconds"),
        ("server.drain_seconds", {"value": "soon"}, 422, "config_error-invalid", "server.drain_seconds"),
        ("server.drain_seconds", {"value": None}, 400, "request_error-invalid_body", "$.value"),
        ("server.drain_seconds", {"value": [1]}, 400, "request_error-invalid_body", "$.value"),
        ("server.drain_seconds", {}, 400, "request_error-invalid_body", "value"),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(
    gateway: Gateway, key: str, body: object, status: int, code: str, words: str
) -> None:
    before = gateway.config.read_bytes()
    etag = api(gateway, "GET").headers["etag"]
    answer = api(gateway, "PUT", f"/{key}", body, If_Match=etag)
    assert (status, code) == (answer.status, answer.code)
    assert words in answer.body.decode()
    if status in (404, 409):
        answer = api(gateway, "DELETE", f"/{key}", If_Match=etag)
        assert (status, code) == (answer.status, answer.code)
    assert before == gateway.config.read_bytes()


def test_an_edit_needs_to_know_what_it_edits(gateway: Gateway) -> None:
    for method, body in (("PUT", {"value": 3}), ("DELETE", None)):
        answer = api(gateway, method, "/server.drain_seconds", body)
        assert (428, "request_error-if_match_required") == (answer.status, answer.code)


def test_a_check_sees_the_environment(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(document(CONFIG))
    checked = ("check", "--config", tmp_path / "config.yaml")
    status, out, _ = run_cli(*checked, cwd=tmp_path, extra={"SLUICE_TELEMETRY_LOG_LEVEL": "debug"})
    assert 0 == status, out
    status, out, err = run_cli(*checked, cwd=tmp_path, extra={"SLUICE_TELEMETRY_LOG_LEVEL": "loud"})
    assert 0 != status
    assert "SLUICE_TELEMETRY_LOG_LEVEL" in out + err
    (tmp_path / "env").write_text("SLUICE_SERVER_WORKERS=none\n")
    status, out, err = run_cli(*checked, "--env-file", tmp_path / "env", cwd=tmp_path)
    assert 0 != status
    assert "SLUICE_SERVER_WORKERS" in out + err
