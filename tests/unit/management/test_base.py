import contextlib
import logging
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.routing import URLSpec
from tornado.web import Application, HTTPError

from access.address import TrustedProxies
from config.faults import Fault
from core.identity import AdminKey, Anonymous, ApiToken, AuthContext, ExternalApp, Role, Scope, Session
from management.dependencies import Dependencies
from management.editing.editor import Refused
from management.handler import base
from management.handler.base import ManagementHandler
from management.handler.operation import DEFAULT_MAX_BODY_BYTES, operation, unaudited
from management.handler.permit import Permit, any_caller, opened, requires
from management.routes import build_application

Call = Callable[..., Any]
ExpectLog = Callable[[str], AbstractContextManager[object]]
RELOAD = ("POST", "/api/v1/config/reload")


class Odd(ManagementHandler):
    """Takes a name out of the path, as resources do."""

    @operation(any_caller(), summary="Odd.", answers={})
    async def get(self, name: str) -> None:
        raise HTTPError(418, name)


@pytest.fixture
def app(gateway: Any) -> Application:
    dependencies = gateway.dependencies()
    application = build_application(dependencies)
    application.add_handlers(".*", [URLSpec("/odd/(.*)", Odd, {"dependencies": dependencies})])
    return application


@pytest.mark.parametrize("path", ["/odd/%ff", "/odd/name"])
def test_what_tornado_refuses_has_the_fields_form_too(call: Call, path: str) -> None:
    answer = call("GET", path, "admin")
    assert (400, "request_error-malformed") == (answer.status, answer.code)
    assert "application/json" == answer.headers["content-type"]


def test_a_method_that_is_no_operation_cannot_be_written() -> None:
    with pytest.raises(TypeError, match=r"Careless\.post does not say who may call it"):

        class Careless(ManagementHandler):
            async def post(self) -> None: ...


def test_a_method_that_is_written_anew_in_a_subclass_is_marked_anew() -> None:
    class Careful(ManagementHandler):
        @operation(requires(Role.ADMIN), summary="Careful.", answers={200: None})
        async def get(self) -> None: ...

    with pytest.raises(TypeError, match="Careless"):

        class Careless(Careful):
            async def get(self) -> None: ...


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_what_may_change_something_says_what_the_audit_calls_it(method: str) -> None:
    async def change(self: ManagementHandler) -> None: ...

    change.__name__ = method
    with pytest.raises(TypeError, match="does not say what the audit calls it"):
        operation(requires(Role.ADMIN), summary="Silent.", answers={200: None})(change)
    with pytest.raises(ValueError, match="states why"):
        unaudited(" ")
    operation(requires(Role.ADMIN), summary="Told.", answers={200: None}, audit="thing.change")(change)


def test_the_audit_has_what_was_done_before_it_is_answered(call: Call, gateway: Any) -> None:
    request_id = call(*RELOAD, "admin").headers["x-request-id"]
    [entry] = gateway.entries
    assert ("config.reload", "done", request_id) == (entry.action, entry.outcome, entry.request_id)
    assert ("admin-key", "admin_key", "127.0.0.1") == (entry.actor, entry.actor_kind, entry.address)


def test_the_audit_has_what_was_refused_too(call: Call, gateway: Any) -> None:
    gateway.outcome = Refused((Fault(("routes",), "no such provider", "config.yaml", 3, 5),))
    call(*RELOAD, "admin")
    call(*RELOAD, "admin", b"[]")
    assert ["config_error-invalid", "request_error-invalid_body"] == [entry.outcome for entry in gateway.entries]


def test_a_stranger_leaves_nothing_in_the_audit(call: Call, gateway: Any) -> None:
    call(*RELOAD, None)
    call(*RELOAD, "scope_token_user")
    assert [] == gateway.entries


def test_nothing_is_done_that_the_audit_cannot_take(call: Call, gateway: Any) -> None:
    gateway.audit_is_full = True
    assert (503, "audit_error-full") == ((answer := call(*RELOAD, "admin")).status, answer.code)
    assert [] == gateway.triggers
    assert 200 == call("GET", "/api/v1/health", "admin").status


def test_an_open_handler_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="states why"):
        opened(" ")


@pytest.mark.parametrize(
    ("permit", "caller", "admitted"),
    [
        (opened("a reason"), Anonymous(), True),
        (any_caller(), Anonymous(), False),
        (any_caller(), ApiToken("t", Scope.USER), True),
        (any_caller(), AdminKey(), True),
        (requires(Role.USER), Anonymous(), False),
        (requires(Role.USER), ApiToken("t", Scope.USER), False),
        (requires(Role.USER), ApiToken("t", Scope.POWER_USER), True),
        (requires(Role.POWER_USER), ApiToken("t", Scope.POWER_USER), True),
        (requires(Role.MANAGER), ApiToken("t", Scope.POWER_USER), False),
        (requires(Role.MANAGER), ApiToken("t", Scope.ADMIN), True),
        (requires(Role.ADMIN), ApiToken("t", Scope.METRICS), False),
        (requires(Role.ADMIN), AdminKey(), True),
        (requires(Role.USER), Session("ann", Role.USER), True),
        (requires(Role.MANAGER), Session("ann", Role.POWER_USER), False),
        (requires(Role.POWER_USER), ExternalApp("app", Scope.POWER_USER, Role.ADMIN), True),
        (requires(Role.MANAGER), ExternalApp("app", Scope.POWER_USER, Role.ADMIN), False),
        (requires(Role.POWER_USER), ExternalApp("app", Scope.POWER_USER, Role.USER), False),
        (requires(Role.USER), ExternalApp("app", Scope.USER, Role.ADMIN), False),
        (requires(Role.USER, tokens=False), ApiToken("t", Scope.ADMIN), False),
        (requires(Role.USER), ApiToken("t", Scope.METRICS, owner_role=Role.USER), False),
        (requires(Role.ADMIN, or_scope=Scope.METRICS), ApiToken("t", Scope.METRICS, owner_role=Role.USER), False),
        (requires(Role.USER, tokens=False), ExternalApp("app", Scope.ADMIN, Role.ADMIN), False),
        (requires(Role.USER, tokens=False), Session("ann", Role.USER), True),
        (requires(Role.ADMIN, tokens=False), AdminKey(), True),
        (requires(Role.ADMIN, or_scope=Scope.METRICS), ApiToken("t", Scope.METRICS), True),
        (requires(Role.ADMIN, or_scope=Scope.METRICS), ApiToken("t", Scope.POWER_USER), False),
    ],
)
def test_a_permit_admits_its_role_and_those_above(permit: Permit, caller: AuthContext, admitted: bool) -> None:
    assert admitted == permit.admits(caller)


@pytest.mark.parametrize(
    ("permit", "shown"),
    [
        (opened("a reason"), "open"),
        (any_caller(), "any known caller"),
        (requires(Role.POWER_USER), "`power_user`"),
        (requires(Role.ADMIN, or_scope=Scope.METRICS), "`admin` or `scope_metrics`"),
        (requires(Role.ADMIN, tokens=False), "`admin`, no token"),
    ],
)
def test_a_permit_reads_as_the_docs_show_it(permit: Permit, shown: str) -> None:
    assert shown == str(permit)


@pytest.mark.parametrize(
    ("key", "status", "code", "wait"),
    [("locked-out", 429, "access_error-locked_out", "300"), ("busy", 503, "access_error-busy", "1")],
)
def test_who_must_wait_is_told_for_how_long(call: Call, key: str, status: int, code: str, wait: str) -> None:
    answer = call("GET", "/api/v1/health", key)
    assert (status, code, wait) == (answer.status, answer.code, answer.headers["retry-after"])


def test_an_error_has_the_fields_form(call: Call) -> None:
    assert {
        "error": {
            "message": "The API key is not known.",
            "type": "authentication_error",
            "code": "access_error-unauthenticated",
            "param": None,
        }
    } == call("GET", "/api/v1/health").json


def test_the_address_is_the_clients_where_the_peer_is_a_trusted_proxy(call: Call, gateway: Any) -> None:
    headers = {"X-Forwarded-For": "203.0.113.5"}
    call("GET", "/api/v1/health", "admin", headers=headers)
    gateway.change_view(trusted_proxies=TrustedProxies(("127.0.0.1",)))
    call("GET", "/api/v1/health", "admin", headers=headers)
    assert ["127.0.0.1", "203.0.113.5"] == gateway.addresses


def test_open_routes_look_at_no_credentials(call: Call, gateway: Any) -> None:
    assert 200 == call("GET", "/healthz", "unknown").status
    assert [] == gateway.addresses


@pytest.mark.parametrize("body", [b"", b" \n", b"{}"])
def test_a_body_without_members_may_as_well_be_left_out(call: Call, body: bytes) -> None:
    assert 200 == call(*RELOAD, "admin", body).status


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"force": true}', "unknown field `force`"),
        (b"\xff", "malformed"),
    ],
)
def test_a_body_that_is_not_understood_is_refused_with_the_place(
    call: Call, gateway: Any, body: bytes, place: str
) -> None:
    answer = call(*RELOAD, "admin", body)
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)
    assert place in answer.json["error"]["message"]
    assert [] == gateway.triggers


def test_a_body_that_is_not_there_is_said_to_be_empty(call: Call) -> None:
    answer = call("POST", "/api/v1/tokens", "admin")
    assert (400, "request_error-invalid_body") == (answer.status, answer.code)
    assert "The body is empty" in answer.json["error"]["message"]


def test_what_changes_something_does_nothing_with_a_parameter_that_it_does_not_know(call: Call, gateway: Any) -> None:
    answer = call("POST", f"{RELOAD[1]}?dry_run=true", "admin")
    assert (400, "request_error-invalid_query", "dry_run") == (
        answer.status,
        answer.code,
        answer.json["error"]["param"],
    )
    assert [] == gateway.triggers
    assert ["request_error-invalid_query"] == [each.outcome for each in gateway.entries]
    # Nothing comes of it where nothing is changed.
    assert 200 == call("GET", "/api/v1/health?now=1", "admin").status


def test_a_body_over_the_limit_is_refused_before_the_caller_is_known(call: Call, gateway: Any) -> None:
    answer = call(*RELOAD, None, b" " * (DEFAULT_MAX_BODY_BYTES + 1))
    assert (413, "request_error-body_too_large") == (answer.status, answer.code)
    assert [] == gateway.addresses


def chunked_reload(io_loop: IOLoop, port: int, key: str, chunks: int) -> bytes:
    """A reload whose body of ``chunks`` times 64 KiB has no length, over a plain socket; gives the answer's head."""

    def send() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(
                f"POST /api/v1/config/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
                "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
            )
            # Whoever is refused is answered and closed upon while the body is on its way.
            with contextlib.suppress(ConnectionError):
                for _ in range(chunks):
                    connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                connection.sendall(b"0\r\n\r\n")
            try:
                return connection.recv(65536)
            except ConnectionError:
                return b""

    return in_thread(io_loop, send)


def in_thread(io_loop: IOLoop, work: Callable[[], bytes]) -> bytes:
    """What ``work`` gives, which blocks, while the gateway serves on ``io_loop``."""

    async def run() -> bytes:
        return await IOLoop.current().run_in_executor(None, work)

    return bytes(io_loop.run_sync(run, timeout=90))


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> list[ManagementHandler]:
    """Those of all requests so far."""
    made: list[ManagementHandler] = []
    initialize = ManagementHandler.initialize

    def recorded(self: ManagementHandler, dependencies: Dependencies) -> None:
        made.append(self)
        initialize(self, dependencies)

    monkeypatch.setattr(ManagementHandler, "initialize", recorded)
    return made


@pytest.mark.parametrize(("chunks", "status"), [(16, b"200"), (17, b"413"), (100, b"413")])
def test_a_body_without_a_length_is_counted_as_it_comes(
    http_server: object, io_loop: IOLoop, http_port: int, chunks: int, status: bytes
) -> None:
    assert status == chunked_reload(io_loop, http_port, "admin", chunks)[9:12]


def test_a_strangers_body_is_not_kept(
    http_server: object, io_loop: IOLoop, http_port: int, gateway: Any, handlers: list[ManagementHandler]
) -> None:
    # A reset may overtake the refusal on its way to the client, not at the gateway.
    assert chunked_reload(io_loop, http_port, "unknown", 1)[9:12] in (b"401", b"")
    assert [(401, [])] == [(handler.get_status(), handler._chunks) for handler in handlers]
    assert [] == gateway.triggers


def unfinished(io_loop: IOLoop, port: int, request: str, key: str = "") -> bytes:
    """What is answered to a request that sends 1 MiB of a body, and then nothing, until the gateway closes."""

    def send() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(
                f"{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            connection.sendall(16 * (b"10000\r\n" + b" " * 0x10000 + b"\r\n"))
            return connection.recv(65536)

    return in_thread(io_loop, send)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_stops_is_neither_kept_nor_waited_for(
    http_server: object,
    io_loop: IOLoop,
    http_port: int,
    monkeypatch: pytest.MonkeyPatch,
    handlers: list[ManagementHandler],
    method: str,
) -> None:
    monkeypatch.setattr(base, "MAX_BODY_SECONDS", 0.3)
    assert b"HTTP/1.1 408" == unfinished(io_loop, http_port, f"{method} /healthz")[:12]
    assert [[]] == [handler._chunks for handler in handlers]


def test_a_body_of_a_known_caller_has_a_clock_too(
    http_server: object, io_loop: IOLoop, http_port: int, monkeypatch: pytest.MonkeyPatch, gateway: Any
) -> None:
    monkeypatch.setattr(base, "MAX_BODY_SECONDS", 0.3)
    assert b"HTTP/1.1 408" == unfinished(io_loop, http_port, "POST /api/v1/config/reload", "admin")[:12]
    assert [] == gateway.triggers


def test_a_fault_of_ours_is_logged_under_the_requests_id_and_tells_nothing(
    call: Call, gateway: Any, expect_log: ExpectLog
) -> None:
    gateway.outcome = RuntimeError("details that are nobody's business")
    with expect_log("details that are nobody's business"):
        answer = call(*RELOAD, "admin")
    assert (500, "internal_error-unexpected") == (answer.status, answer.code)
    assert "details" not in answer.body.decode()
    assert answer.headers["x-request-id"] in answer.json["error"]["message"]


def test_a_request_is_logged_by_the_names_of_its_handler_and_caller(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "sluice.management"):
        call("GET", "/api/v1/health", "scope_token_power_user")
        call("GET", "/a%0apath", "unknown")
        call("A" * 60_000, "/healthz")
    records = [record for record in caplog.records if record.name == "sluice.management"]
    # What was only looked at is for DEBUG; a refusal is told.
    assert [logging.DEBUG, logging.INFO, logging.INFO] == [record.levelno for record in records]
    health, unknown, long = (record.getMessage() for record in records)
    assert len(long) < 500
    assert health.startswith("GET HealthReport 200 by token-power_user in ")
    assert unknown.startswith("GET UnknownPath 401 by anonymous in ")


@pytest.mark.parametrize(
    ("method", "path", "who", "status", "settled"),
    [
        ("GET", "/api/v1/health", "admin", 200, 0),
        (*RELOAD, "admin", 200, 1),
        # Also where there is nothing to be audited.
        ("POST", "/api/v1/config/validate", "admin", 200, 1),
        # Strangers change nothing, but their addresses may be locked out.
        ("GET", "/api/v1/health", "stranger", 401, 1),
    ],
)
def test_an_answer_waits_for_the_events_of_what_was_done(
    call: Call, gateway: Any, method: str, path: str, who: str, status: int, settled: int
) -> None:
    assert status == call(method, path, who).status
    assert settled == gateway.settled
