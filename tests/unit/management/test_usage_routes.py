import asyncio
import csv
import io
import json
import socket
from decimal import Decimal
from typing import Any, Self

import msgspec
import pytest
from tornado.ioloop import IOLoop

from core.identity import AdminKey, ApiToken, AuthContext, ExternalApp, Role, Scope, Session
from management.errors import ManagementError
from management.usage_asked import own
from management.usage_service import UsageBusy
from storage.errors import QueryTooLarge, Reason, StorageUnavailable
from storage.ledger_records import LedgerRow
from storage.usage_records import LedgerFilter, Percentiles, Usage, UsageGroup, UsagePage
from tests.conftest import ExpectLog
from tests.ledger_rows import BEGIN, DAY, ROW, random_rows, row
from tests.unit.management.conftest import CALLERS, Call, Gateway

RANGE = "from=2026-01-01T00:00:00Z&to=2026-01-03T00:00:00Z"
ALL = LedgerFilter(since=BEGIN, until=BEGIN + 2 * DAY)
SUMS = Usage(3, 1, 10, 20, 5, 2, 123_456_789_012_345_678, 1, 2, Percentiles(1, 1_500_000, 2_000_000, 3_000_001), None)
SHOWN = {
    "requests": 3,
    "failed": 1,
    "input_tokens": 10,
    "output_tokens": 20,
    "cached_tokens": 5,
    "reasoning_tokens": 2,
    "cost_usd": Decimal("123456789.012345678"),
    "unpriced_requests": 1,
    "estimated_requests": 2,
    "duration_seconds": {
        "p50": Decimal("1e-6"),
        "p90": Decimal("1.5"),
        "p95": Decimal("2.0"),
        "p99": Decimal("3.000001"),
    },
    "ttft_seconds": None,
}
REQUEST = {
    "request_id": "req_000000000000000000000000",
    "at": "2026-01-01T00:00:00Z",
    "token": "team-a",
    "token_id": None,
    "owner": "ann",
    "endpoint": "chat_completions",
    "dialect": "openai-chat",
    "stream": False,
    "requested_model": "fast",
    "route": "gold",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "credential": "main",
    "input_tokens": 10,
    "output_tokens": 20,
    "cached_tokens": 5,
    "reasoning_tokens": 0,
    "estimated": False,
    "cost_usd": Decimal("0.0000135"),
    "status": 200,
    "error_code": None,
    "attempts": 1,
    "duration_seconds": Decimal("1.25"),
    "ttft_seconds": None,
    "upstream_seconds": Decimal("1.2"),
    "overhead_seconds": Decimal("0.00015"),
    "revision": "abc",
}


def exactly(body: bytes) -> Any:
    """JSON whose numbers no float has rounded."""
    return json.loads(body, parse_float=Decimal)


def test_usage_is_shown_by_group_with_money_to_the_last_digit(call: Call, gateway: Gateway) -> None:
    gateway.usage.page = UsagePage((UsageGroup(("team-a", None, BEGIN), SUMS),), SUMS, "more")
    answer = call("GET", f"/api/v1/usage?group_by=token,owner,day&limit=7&{RANGE}", "admin")
    shown = exactly(answer.body)
    following = shown.pop("next_cursor")
    assert {
        "data": [{"token": "team-a", "owner": None, "day": "2026-01-01T00:00:00Z", **SHOWN}],
        "totals": SHOWN,
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-01-03T00:00:00Z",
    } == shown
    # The pages that follow are of the same time, whatever the clock says.
    call("GET", f"/api/v1/usage?group_by=token,owner,day&percentiles=false&cursor={following}", "admin")
    assert [ALL, ALL] == gateway.usage.asked
    grouped = {"group_by": ("token", "owner", "day"), "limit": 7, "cursor": None, "percentiles": True}
    assert [grouped, grouped | {"limit": 100, "cursor": "more", "percentiles": False}] == gateway.usage.grouped


def test_the_last_day_is_meant_where_no_time_is_said(call: Call, gateway: Gateway) -> None:
    for path in ("usage", "usage/export", "requests"):
        assert 200 == call("GET", f"/api/v1/{path}", "admin").status
    assert 200 == call("GET", "/api/v1/usage?to=2026-01-02T00:00:00Z", "admin").status
    assert [DAY] * 4 == [each.until - each.since for each in gateway.usage.asked]
    assert BEGIN == gateway.usage.asked[-1].since


@pytest.mark.parametrize("path", ["usage", "usage/export", "requests"])
def test_the_ledger_is_asked_for_what_the_query_says(call: Call, gateway: Gateway, path: str) -> None:
    names = (
        "token",
        "token_id",
        "owner",
        "model",
        "requested_model",
        "provider",
        "credential",
        "endpoint",
        "error_code",
    )
    said = "&".join(f"{name}={name}-x" for name in names)
    assert 200 == call("GET", f"/api/v1/{path}?{RANGE}&{said}&stream=false&status=429", "admin").status
    assert 200 == call("GET", f"/api/v1/{path}?{RANGE}&stream=true&status=5xx", "admin").status
    texts = {name: f"{name}-x" for name in names}
    assert [
        msgspec.structs.replace(ALL, **texts, stream=False, status=429),
        msgspec.structs.replace(ALL, stream=True, status_class=5),
    ] == gateway.usage.asked


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ("from=yesterday", "from", "`from` is no time: write it as 2026-01-31T12:00:00Z"),
        ("to=2026-01-02T03:04:05", "to", "`to` is no time: write it as"),
        ("to=2026-01-02T03:04:05+01:00", "to", "`%2B` in a query"),
        ("from=1767225600", "from", "`from` is no time: write it as"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", "from", "`from` is not before `to`"),
        ("from=9000-01-01T00:00:00Z", "from", "`from` is not before `to`"),
        ("from=2001-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", "from", "more than 3660 days apart"),
        ("from=0001-01-01T00:00:00%2B23:59", "from", "`from` is out of all bounds"),
        ("to=9999-12-31T23:59:59-23:59", "to", "`to` is out of all bounds"),
        ("status=99", "status", "Expected `str` matching regex"),
        ("limit=0", "limit", "Expected `int` >= 1"),
        ("cursor=nonsense", "cursor", "begin without one"),
        ("cursor=WzAsMV0", "cursor", "begin without one"),
        ("cursor=Wy0xLDEsImEiXQ", "cursor", "begin without one"),
        ("group_by=token,colour", "group_by", "Nothing can be grouped by `colour`: take some of token, "),
        ("group_by=", "group_by", "Nothing can be grouped by ``"),
        ("group_by=token,token", "group_by", "names something twice"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_by_name(call: Call, query: str, param: str, words: str) -> None:
    answer = call("GET", f"/api/v1/usage?{query}", "admin")
    assert (400, "request_error-invalid_query", param) == (answer.status, answer.code, answer.json["error"]["param"])
    assert words in answer.json["error"]["message"]


def test_a_cursor_is_of_one_range_of_time(call: Call, gateway: Gateway) -> None:
    gateway.usage.rows = [row(number) for number in range(3)]
    first = call("GET", f"/api/v1/requests?{RANGE}&limit=2", "admin").json
    following = f"/api/v1/requests?limit=2&cursor={first['next_cursor']}"
    assert 200 == call("GET", f"{following}&{RANGE}", "admin").status
    for name in ("from", "to"):
        assert 400 == call("GET", f"{following}&{name}=2026-01-02T00:00:00Z", "admin").status


def test_requests_are_listed_in_pages_and_shown_one_by_one(call: Call, gateway: Gateway) -> None:
    gateway.usage.rows = [ROW, row(1, cost_nano_usd=None, ttft_us=1, token_id="tok_1")]
    first = call("GET", f"/api/v1/requests?{RANGE}&limit=1", "admin")
    assert [REQUEST] == exactly(first.body)["data"]
    second = call("GET", f"/api/v1/requests?{RANGE}&limit=1&cursor={first.json['next_cursor']}", "admin").json
    assert (None, [None]) == (second["next_cursor"], [each["cost_usd"] for each in second["data"]])
    assert REQUEST == exactly(call("GET", f"/api/v1/requests/{ROW.request_id}", "admin").body)
    assert 0 == gateway.usage.asked[-1].since
    answer = call("GET", f"/api/v1/requests/req_other?{RANGE}", "admin")
    assert (404, "usage_error-not_found") == (answer.status, answer.code)
    assert ALL == gateway.usage.asked[-1]


@pytest.mark.parametrize("path", ["usage", "usage/export", "requests", "requests/req_1"])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (StorageUnavailable("the database is gone", Reason.UNREACHABLE), 503, "storage_error-unavailable"),
        (QueryTooLarge("it takes longer than 8 s, and was ended"), 422, "usage_error-too_large"),
        (UsageBusy(), 503, "usage_error-busy"),
    ],
)
def test_a_ledger_that_cannot_answer_says_why(
    call: Call, gateway: Gateway, path: str, failure: Exception, status: int, code: str
) -> None:
    gateway.usage.failure = failure
    answer = call("GET", f"/api/v1/{path}", "admin")
    assert (status, code) == (answer.status, answer.code)
    assert (status == 503) == ("retry-after" in answer.headers)


# Who asks, and what of the ledger they may see: by whatever they name nothing else.
OWN: dict[str, tuple[AuthContext, dict[str, Any] | None]] = {
    "the admin key": (AdminKey(), {}),
    "an administrator": (Session("root", Role.ADMIN), {}),
    "a manager": (Session("ann", Role.MANAGER), {}),
    "a person": (Session("ann", Role.USER), {"owner": "ann"}),
    "a person with power": (Session("ann", Role.POWER_USER), {"owner": "ann"}),
    "a token of the file": (ApiToken("t", Scope.POWER_USER), {"token": "t", "declared": True}),
    "a token of the API": (ApiToken("t", Scope.POWER_USER, id="tok_1", owner="ann"), {"token_id": "tok_1"}),
    "a token of a lowly owner": (
        ApiToken("t", Scope.ADMIN, id="tok_1", owner_role=Role.POWER_USER),
        {"token_id": "tok_1"},
    ),
    "an app of a manager": (ExternalApp("app", Scope.MANAGER, Role.MANAGER), {}),
    "an app of a person": (ExternalApp("app", Scope.POWER_USER, Role.POWER_USER), None),
}


@pytest.mark.parametrize("who", OWN)
def test_whoever_is_no_manager_sees_their_own(who: str) -> None:
    caller, expected = OWN[who]
    if expected is None:
        with pytest.raises(ManagementError, match="no requests of its own"):
            own(ALL, caller)
    else:
        assert msgspec.structs.replace(ALL, **expected) == own(ALL, caller)


@pytest.mark.parametrize("who", OWN)
@pytest.mark.parametrize("name", ["token", "token_id", "owner"])
def test_others_are_refused_and_not_left_out_silently(who: str, name: str) -> None:
    caller, expected = OWN[who]
    wanted = msgspec.structs.replace(ALL, **{name: "another"})
    if expected == {}:
        assert wanted == own(wanted, caller)
    elif isinstance(caller, Session) and name != "owner":
        # Whose it is, is known only from the rows.
        assert "ann" == own(wanted, caller).owner
    else:
        with pytest.raises(ManagementError) as refused:
            own(wanted, caller)
        assert 403 == refused.value.status


def test_one_may_name_oneself() -> None:
    caller = ApiToken("t", Scope.POWER_USER, id="tok_1", owner="ann")
    wanted = msgspec.structs.replace(ALL, token="t", token_id="tok_1", owner="ann")
    assert wanted == own(wanted, caller)
    declared = msgspec.structs.replace(ALL, token="t")
    assert msgspec.structs.replace(declared, declared=True) == own(declared, ApiToken("t", Scope.POWER_USER))


@pytest.mark.parametrize("path", ["usage", "usage/export", "requests", f"requests/{ROW.request_id}"])
def test_a_token_gets_its_own_usage_and_403_for_anothers(call: Call, gateway: Gateway, path: str) -> None:
    gateway.usage.rows = [ROW]
    key = Scope.POWER_USER.value
    name = CALLERS[key].name
    assert 200 == call("GET", f"/api/v1/{path}", key).status
    assert (name, True) == (gateway.usage.asked[0].token, gateway.usage.asked[0].declared)
    if "/req_" not in path:
        answer = call("GET", f"/api/v1/{path}?token=team-a", key)
        assert (403, "access_error-forbidden", "token") == (
            answer.status,
            answer.code,
            answer.json["error"]["param"],
        )
    assert 1 == len(gateway.usage.asked)


def unescaped(text: str) -> str | None:
    return text.removeprefix("'") or None


def read_csv(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode(), newline="")))


def shown(each: LedgerRow, *, as_text: bool) -> dict[str, Any]:
    """As the list of requests shows a row; ``as_text``: as CSV does."""
    nano = each.cost_nano_usd
    return {
        "request_id": each.request_id,
        "token": each.token,
        "requested_model": each.requested_model if not as_text else each.requested_model or None,
        "cost_usd": None if nano is None else Decimal(nano).scaleb(-9),
        "input_tokens": each.input_tokens,
        "duration_seconds": Decimal(each.duration_us).scaleb(-6),
        "ttft_seconds": None if each.ttft_us is None else Decimal(each.ttft_us).scaleb(-6),
        "stream": each.stream,
        "status": each.status,
    }


TEXTS = ("request_id", "token", "requested_model")


def read_cell(name: str, text: str) -> Any:
    if name in TEXTS:
        return unescaped(text)
    if not text:
        return None
    return {"true": True, "false": False}.get(text, Decimal(text) if text[0].isdigit() else text)


@pytest.mark.parametrize("part", [500, 7])
def test_an_export_holds_every_row(call: Call, gateway: Gateway, part: int) -> None:
    gateway.usage.part = part
    gateway.usage.rows = rows = random_rows(40)
    answer = call("GET", f"/api/v1/usage/export?{RANGE}", "admin")
    assert "text/csv; charset=utf-8; header=present" == answer.headers["content-type"]
    assert 'attachment; filename="requests.csv"' == answer.headers["content-disposition"]
    found = read_csv(answer.body)
    assert list(REQUEST) == list(found[0])
    expected = [shown(each, as_text=True) for each in rows]
    assert expected == [{name: read_cell(name, each[name]) for name in expected[0]} for each in found]
    answer = call("GET", f"/api/v1/usage/export?{RANGE}&format=jsonl", "admin")
    assert "application/jsonl" == answer.headers["content-type"]
    lines = [exactly(line) for line in answer.body.splitlines()]
    assert [shown(each, as_text=False) for each in rows] == [
        {name: line[name] for name in expected[0]} for line in lines
    ]
    assert (part == 500) == ("content-length" in answer.headers)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "\uff1d1"])
def test_no_cell_of_an_export_is_a_formula_to_a_spreadsheet(call: Call, gateway: Gateway, text: str) -> None:
    gateway.usage.rows = [row(requested_model=text, model=text, owner=text)]
    (found,) = read_csv(call("GET", "/api/v1/usage/export", "admin").body)
    assert ["'" + text] * 3 == [found["requested_model"], found["model"], found["owner"]]


def test_an_export_of_nothing_is_a_header_or_nothing(call: Call) -> None:
    assert ",".join(REQUEST) + "\r\n" == call("GET", "/api/v1/usage/export", "admin").body.decode()
    assert b"" == call("GET", "/api/v1/usage/export?format=jsonl", "admin").body


def test_head_of_an_export_tells_no_length_that_it_does_not_know(call: Call, gateway: Gateway) -> None:
    gateway.usage.part, gateway.usage.rows = 1, random_rows(3)
    answer = call("HEAD", "/api/v1/usage/export", "admin")
    assert (200, None, b"") == (answer.status, answer.headers.get("content-length"), answer.body)


class RawClient:
    """Sends one request, and reads what comes as it comes."""

    def __init__(self, io_loop: IOLoop, port: int, version: str) -> None:
        self._loop = io_loop
        self._link = socket.create_connection(("127.0.0.1", port))
        self._link.setblocking(False)
        head = f"GET /api/v1/usage/export?format=jsonl HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer admin"
        self._link.sendall(f"{head}\r\n\r\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def read(self) -> bytes:
        """What has come; waits for it."""

        async def read() -> bytes:
            return await asyncio.get_running_loop().sock_recv(self._link, 1 << 16)

        found: bytes = self._loop.run_sync(read, timeout=60)
        return found

    def read_all(self) -> bytes:
        """Until the connection ends; an end by force is one, too."""
        found = b""
        try:
            while piece := self.read():
                found += piece
        except ConnectionResetError:
            found += b"<reset>"
        return found


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "failure",
    [StorageUnavailable("the database is gone", Reason.UNREACHABLE), UsageBusy(), RuntimeError("a fault of ours")],
    ids=lambda each: type(each).__name__,
)
def test_an_export_that_fails_in_the_middle_does_not_look_complete(
    io_loop: IOLoop,
    http_server: object,
    http_port: int,
    gateway: Gateway,
    expect_log: ExpectLog,
    version: str,
    failure: Exception,
) -> None:
    gateway.usage.part, gateway.usage.rows = 1, random_rows(9)
    gateway.usage.failure, gateway.usage.fails_after = failure, 4
    with expect_log("an export was cut"), RawClient(io_loop, http_port, version) as client:
        received = client.read_all()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    if version == "1.1":
        assert 4 == received.count(b'"request_id"')
        assert not received.endswith(b"0\r\n\r\n")
    else:
        # Without chunks a close would be the proper end.
        assert received.endswith(b"<reset>")


def test_an_export_waits_for_a_client_that_reads_slowly(
    io_loop: IOLoop, http_server: object, http_port: int, gateway: Gateway
) -> None:
    gateway.usage.part = 100
    gateway.usage.rows = [row(number, revision="x" * 1000) for number in range(100)] * 300
    part_bytes = 100 * 1000
    # What the systems of both sides hold of a connection: the rest waits in the ledger.
    most_ahead = 16 << 20
    assert len(gateway.usage.rows) * 1000 > most_ahead

    with RawClient(io_loop, http_port, "1.1") as client:
        received = 0
        while piece := client.read():
            received += len(piece)
            assert gateway.usage.parts * part_bytes - received < most_ahead
            if piece.endswith(b"0\r\n\r\n"):
                break
    assert 300 == gateway.usage.parts


def test_an_export_ends_when_its_client_goes(
    io_loop: IOLoop, http_server: object, http_port: int, gateway: Gateway
) -> None:
    gateway.usage.part = 100
    gateway.usage.rows = [row(number, revision="x" * 1000) for number in range(100)] * 300
    with RawClient(io_loop, http_port, "1.1") as client:
        client.read()
    # The next request is answered, and no log tells of a fault.
    with RawClient(io_loop, http_port, "1.1") as client:
        assert client.read().startswith(b"HTTP/1.1 200 OK")
