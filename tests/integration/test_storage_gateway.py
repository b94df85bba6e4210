"""Running gateways and their database: what is done through the API is in the audit, also while the database is away."""

import base64
import fcntl
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from management.routes import ROUTES
from tests.databases import KINDS, PostgreSQL
from tests.gateway_process import ADMIN_KEY, Answer, Gateway, run_cli
from tests.integration.conftest import NewUrl, StartGateway
from tests.openapi_answers import check_answer
from tests.steady import asking

ECHO = "providers: [{name: echo, type: echo}]\n"
LATE = "tokens that the API has made cannot be read yet"
"""What a gateway says that has a database and was not told of the tokens in it within two seconds."""


def audited(running: Gateway, extra: dict[str, str] | None = None) -> list[dict[str, object]]:
    deadline = time.monotonic() + 60
    while waiting(running) and time.monotonic() < deadline:
        time.sleep(0.05)
    status, out, err = run_cli("export", cwd=running.config.parent, extra=extra)
    assert 0 == status, err
    return [line["row"] for line in map(json.loads, out.splitlines()) if line.get("table") == "audit"]


def test_what_is_done_on_any_worker_is_in_the_audit(start_gateway: StartGateway) -> None:
    running = start_gateway(f"server: {{workers: 2}}\n{ECHO}")
    place = running.config.parent
    assert not (place / "data").exists()
    answers = [running.management("POST", "/api/v1/config/reload") for _ in range(6)]
    assert [200] * 6 == [answer.status for answer in answers]
    # Beside the gateway, which goes on. Where a worker was slow, its entries have come after the others'.
    asked = [answer.headers["x-request-id"] for answer in answers]
    rows = sorted(audited(running), key=lambda row: asked.index(str(row["request_id"])))
    assert [("config.reload", "done", "admin-key", "127.0.0.1")] * 6 == [
        (row["action"], row["outcome"], row["actor"], row["address"]) for row in rows
    ]
    assert asked == [row["request_id"] for row in rows]
    status, out, err = run_cli("audit", "verify", cwd=place)
    assert (0, "", True) == (status, err, out.startswith("the audit is whole: the head is 6 ")), out
    running.stop()
    heads = [record["event"] for record in running.log() if record["logger"] == "sluice.audit"]
    assert f"audit: {out.strip().removeprefix('the audit is whole: ')}" in heads
    # It lives on.
    later = start_gateway("", config=running.config)
    later.expect_log(LATE)
    assert 200 == later.management("POST", "/api/v1/config/reload").status
    assert 7 == len(audited(running))


def api(running: Gateway, method: str, path: str, body: object = None, match: str | None = None) -> Answer:
    fields = {} if match is None else {"if-match": match}
    answer = running.request(method, f"/api/v1/{path}", body, fields, ADMIN_KEY)
    check_answer(method, f"/api/v1/{path}", answer.status, answer.headers, answer.body)
    return answer


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.02)


class Manager:
    """Whoever changes things by the API of a running gateway, and remembers what."""

    def __init__(self, running: Gateway) -> None:
        self._running = running
        self.asked: list[str] = []
        """Requests that must be in the audit, each once."""
        self._number = 0

    def edit(self) -> None:
        """It goes through, and does not wait for the database."""
        self._number += 1
        etag = api(self._running, "GET", "aliases").headers["etag"]
        began = time.monotonic()
        answer = api(self._running, "PATCH", "aliases/fast", {"to": f"echo/{self._number}"}, etag)
        assert (200, True) == (answer.status, time.monotonic() - began < 20), answer.body
        self.asked.append(answer.headers["x-request-id"])

    def make_token(self) -> int | str:
        """201, or the code of the refusal."""
        self._number += 1
        answer = api(self._running, "POST", "tokens", {"name": f"t-{self._number}", "models": ["*"]})
        self.asked.append(answer.headers["x-request-id"])
        return 201 if answer.status == 201 else answer.code


def test_no_request_fails_and_nothing_is_lost_while_the_database_is_stopped_and_started_under_load(
    start_gateway: StartGateway, new_url: NewUrl, postgresql_server: PostgreSQL
) -> None:
    extra = {"DATABASE_URL": new_url("postgresql")}
    text = "server: {workers: 2}\nstorage: {url: '${env:DATABASE_URL}'}\nmodel_aliases: [{from: fast, to: echo/0}]\n"
    running = start_gateway(text + ECHO, extra=extra)
    running.expect_log("the database postgresql://|tokens that the API has made cannot be read")
    manager = Manager(running)
    with asking(lambda: running.chat("echo/any").status, 3) as statuses:
        for _ in range(4):
            manager.edit()
            assert 201 == manager.make_token()
        with postgresql_server.stopped():
            before = len(statuses)
            for _ in range(3):
                manager.edit()
                assert "storage_error-unavailable" == manager.make_token()
            until(lambda: before < len(statuses))
            assert 0 < waiting(running)
            # Of either worker, as soon as it has asked the database for something.
            until(lambda: (found := storage(running))["reason"] == "unreachable" and found["since"] is not None)
            until(lambda: storage(running)["state"] == "unavailable")
            assert 503 == api(running, "GET", "audit").status
            until(lambda: running.metric("sluice_audit_spooled_entries") >= 6)
            until(lambda: running.metric("sluice_storage_up") == 0)
        before = len(statuses)
        # At once, while what waits is being written.
        manager.edit()
        until(lambda: manager.make_token() == 201)
        until(lambda: not waiting(running))
        until(lambda: before + 20 < len(statuses))
    assert {200} == set(statuses)
    until(lambda: running.metric("sluice_storage_up") == 1)
    found = api(running, "GET", "audit?limit=1000").json()
    assert (0, sorted(manager.asked)) == (found["waiting"], sorted(each["request_id"] for each in found["data"]))
    assert sorted(manager.asked) == sorted(f"{row['request_id']}" for row in audited(running, extra))
    status, out, err = run_cli("audit", "verify", cwd=running.config.parent, extra=extra)
    assert (0, "", True) == (status, err, out.startswith(f"the audit is whole: the head is {len(manager.asked)} ")), out
    well = {"state": "ok", "reason": None, "since": None, "waiting": 0, "spooled": 0}
    until(lambda: storage(running) == well)
    until(lambda: running.metric("sluice_audit_spooled_entries") == 0)
    until(lambda: running.metric("sluice_audit_waiting_entries") == 0)
    spooled = running.metric("sluice_audit_spooled_total")
    assert 6 <= spooled <= len(manager.asked)
    until(lambda: running.metric("sluice_audit_replayed_total") == spooled)


def test_a_list_of_the_audit_says_that_entries_are_missing_as_long_as_they_wait(start_gateway: StartGateway) -> None:
    running = start_gateway(ECHO)
    assert 200 == running.management("POST", "/api/v1/config/reload").status
    # The first entry has made the database, and waits on the disk meanwhile where that takes long.
    until(lambda: api(running, "GET", "audit").json()["waiting"] == 0)
    spool = running.config.parent / "data/spool"
    spool.mkdir(exist_ok=True)
    with (spool / "audit.1-a.spool").open("wb") as file:
        # Of another process, which lives and cannot write to the database now.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"00000000 {}\n" * 3 + b"half a li")
        file.flush()
        listed = api(running, "GET", "audit").json()
        assert (3, 1) == (listed["waiting"], len(listed["data"]))
        (spool / "audit.1-a.spool").unlink()
    assert 0 == api(running, "GET", "audit").json()["waiting"]


def storage(running: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = api(running, "GET", "health").json()["storage"]
    return found


def waiting(running: Gateway) -> int:
    """Files of what waits for the database: each goes when all of it has been written."""
    spool: Path = running.config.parent / "data/spool"
    return len(list(spool.iterdir())) if spool.exists() else 0


CURSORS = (
    r'[1,"\u0000"]',
    r'[1,"\ud800"]',
    r'["\u0000",1]',
    f"[{2**63},1]",
    f"[1,{-(2**70)}]",
    "[null,null]",
    "[[1],{}]",
    "1",
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_database_is_asked_for_what_is_no_text(start_gateway: StartGateway, new_url: NewUrl, kind: str) -> None:
    text = f"storage: {{url: '${{env:DATABASE_URL}}'}}\n{ECHO}"
    running = start_gateway(text, extra={"DATABASE_URL": new_url(kind)})
    running.expect_log(LATE)
    # From here on there is one.
    assert 201 == api(running, "POST", "tokens", {"name": "made"}).status
    inner = [base64.urlsafe_b64encode(each.encode()).rstrip(b"=").decode() for each in CURSORS]
    cursors = [*inner, *(base64.urlsafe_b64encode(f"api:{each}".encode()).decode() for each in inner)]
    for route in ROUTES:
        path = re.sub(r"\{[a-z_]+\}", "%00", route.path).removeprefix("/api/v1/")
        if route.parameters:
            assert 400 == api(running, route.method, path, match='"abc"').status
        if route.method != "GET" or route.parameters or route.operation.query is None:
            continue
        for name in (field.encode_name for field in msgspec.structs.fields(route.operation.query)):
            for given in ("%00", "%ed%a0%80", *(cursors if name == "cursor" else ())):
                answer = api(running, "GET", f"{path}?{name}={given}")
                assert (400, "request_error-invalid_query") == (answer.status, answer.code), (path, name, given)
