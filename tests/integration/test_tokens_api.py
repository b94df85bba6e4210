"""Tokens that the API makes, over real gateways: in force everywhere when the answer comes, kept, and free of the database."""

import asyncio
import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from gateway.issued_tokens import POLL_SECONDS
from tests.databases import PostgreSQL
from tests.gateway_process import ADMIN_KEY, Answer, Gateway, until
from tests.integration.conftest import NewUrl, StartGateway
from tests.integration.test_workers import _await_workers
from tests.steady import asking

ONE = """
    providers: [{name: echo, type: echo}]
    model_aliases: [{from: probe, to: echo/first}]
    storage: {url: "${env:DATABASE_URL:-sqlite:///data/sluice.db}"}
"""
TWO = "    server: {workers: 2}" + ONE
LATE = "tokens that the API has made cannot be read yet"
"""What a gateway says that has a database and was not told of the tokens in it within two seconds."""
CHAT = {"model": "probe", "messages": [{"role": "user", "content": "hello"}]}


def api(gateway: Gateway, method: str, path: str, body: object = None, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, f"/api/v1{path}", body, fields, key=ADMIN_KEY)


def made(gateway: Gateway, name: str, **members: object) -> dict[str, Any]:
    answer = api(gateway, "POST", "/tokens", {"name": name, "models": ["probe"], **members})
    assert 201 == answer.status, answer.body
    found: dict[str, Any] = answer.json()
    return found


def chat(gateway: Gateway, text: str, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request("POST", "/v1/chat/completions", CHAT, fields, key=text)


def statuses(gateway: Gateway, text: str, count: int = 24) -> set[int]:
    """Of requests on connections of their own, so that all workers are met."""
    with ThreadPoolExecutor(8) as threads:
        return {answer.status for answer in threads.map(lambda _: chat(gateway, text), range(count))}


async def test_a_token_lives_from_its_making_to_its_end(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ONE)
    assert not (gateway.config.parent / "data").exists(), "nothing is stored, so there is no database"
    token = made(gateway, "team-b", owner="ann")
    path = f"/tokens/{token['id']}"
    answer = chat(gateway, token["token"])
    assert (200, "echo/first") == (answer.status, answer.headers["x-sluice-target"])
    assert 401 == chat(gateway, token["token"][:-1] + "0").status
    # Patched: at once.
    assert 200 == api(gateway, "PATCH", path, {"models": []}).status
    refused = chat(gateway, token["token"])
    assert (403, "model_not_allowed") == (refused.status, refused.code)
    assert 200 == api(gateway, "PATCH", path, {"models": ["probe"], "ip_ranges": ["10.0.0.0/8"]}).status
    elsewhere = chat(gateway, token["token"])
    assert (403, "address_not_allowed") == (elsewhere.status, elsewhere.code)
    assert 200 == api(gateway, "PATCH", path, {"ip_ranges": ["127.0.0.0/8", "::1"]}).status
    assert 200 == chat(gateway, token["token"]).status
    # Rotated: both count, for as long as was said.
    new = api(gateway, "POST", f"{path}/rotate", {"grace_seconds": 3600})
    assert 201 == new.status
    assert (200, 200) == (chat(gateway, token["token"]).status, chat(gateway, new.json()["token"]).status)
    began = time.monotonic()
    last = api(gateway, "POST", f"/tokens/{new.json()['id']}/rotate", {"grace_seconds": 1.5})
    assert 201 == last.status
    await until(lambda: chat(gateway, new.json()["token"]).status == 401)
    assert time.monotonic() - began > 1.4
    assert (200, 200) == (chat(gateway, token["token"]).status, chat(gateway, last.json()["token"]).status)
    # Revoked: at once.
    for each in (token, last.json()):
        assert 204 == api(gateway, "DELETE", f"/tokens/{each['id']}").status
        assert 401 == chat(gateway, each["token"]).status
    assert [] == [each for each in api(gateway, "GET", "/tokens").json()["data"] if each["source"] == "api"]
    # What is over is forgotten.
    await until(lambda: {"count": 0, "loaded": True, "stale_since": None} == _health(gateway))
    # Nothing of a token but its prefix is anywhere but in its answer.
    for text in (token["token"], new.json()["token"], last.json()["token"]):
        assert text not in gateway.err + gateway.out
        assert all(text.encode() not in file.read_bytes() for file in (gateway.config.parent / "data").glob("*.db*"))


async def test_an_expired_token_is_told_that_it_has(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ONE)
    token = made(gateway, "brief", expires_at=_moment(time.time() + 3600), scope="scope_token_power_user")
    assert 200 == chat(gateway, token["token"]).status
    # A time that is over when it gets there, on a machine that is slow, is refused: then a later one.
    for seconds in (1, 10, 60):
        at = time.time() + seconds
        patched = api(gateway, "PATCH", f"/tokens/{token['id']}", {"expires_at": _moment(at)})
        if patched.status == 200:
            break
        assert time.time() >= at, patched.body
    await until(lambda: chat(gateway, token["token"]).status == 401, at + 60 - time.time())
    assert time.time() >= at
    answer = chat(gateway, token["token"])
    assert (401, "invalid_api_key") == (answer.status, answer.code)
    assert "has expired" in answer.json()["error"]["message"]
    managing = gateway.request("GET", "/api/v1/health", key=token["token"])
    assert (401, "access_error-unauthenticated") == (managing.status, managing.code)
    assert "has expired" in managing.json()["error"]["message"]
    assert "expired" == api(gateway, "GET", f"/tokens/{token['id']}").json()["state"]


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}Z"


def test_a_power_users_token_reads_the_health_from_where_it_may(start_gateway: StartGateway) -> None:
    gateway = start_gateway("    server: {trusted_proxies: [127.0.0.1]}" + ONE)
    token = made(gateway, "reader", scope="scope_token_power_user", ip_ranges=["192.0.2.0/24"])["token"]
    near = {"x-forwarded-for": "192.0.2.7"}
    assert 200 == gateway.request("GET", "/api/v1/health", headers=near, key=token).status
    far = gateway.request("GET", "/api/v1/health", headers={"x-forwarded-for": "192.0.3.7"}, key=token)
    assert (403, "access_error-address_not_allowed") == (far.status, far.code)
    assert 200 == chat(gateway, token, x_forwarded_for="192.0.2.9").status
    assert 403 == chat(gateway, token).status
    for method, path in (("POST", "/tokens"), ("GET", "/tokens"), ("GET", "/settings")):
        assert 403 == gateway.request(method, f"/api/v1{path}", headers=near, key=token).status


def test_tokens_of_the_file_keep_to_their_bounds_too(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ONE)
    text = gateway.config.read_text()
    for members, status, code in (
        ('expires_at: "2001-01-01T00:00:00Z"', 401, "invalid_api_key"),
        ("ip_ranges: [192.0.2.0/24]", 403, "address_not_allowed"),
    ):
        gateway.rewrite(text.replace("{name: tester,", f"{{name: tester, {members}, "))
        assert 200 == gateway.management("POST", "/api/v1/config/reload").status
        answer = gateway.chat("probe")
        assert (status, code) == (answer.status, answer.code)
    shown = api(gateway, "GET", "/tokens/file:tester").json()
    assert ("file", ["192.0.2.0/24"]) == (shown["source"], shown["ip_ranges"])


def test_what_one_worker_does_all_hold_when_it_has_answered(start_gateway: StartGateway) -> None:
    gateway = start_gateway(TWO)
    _await_workers(gateway)
    for number in range(4):
        # The first makes the database, while another worker knows of none.
        token = made(gateway, f"team-{number}")
        assert {200} == statuses(gateway, token["token"])
        answer = api(gateway, "POST", f"/tokens/{token['id']}/rotate", {"grace_seconds": 0})
        assert (201, {401}) == (answer.status, statuses(gateway, token["token"]))
        assert {200} == statuses(gateway, answer.json()["token"])
        assert 204 == api(gateway, "DELETE", f"/tokens/{answer.json()['id']}").status
        assert {401} == statuses(gateway, answer.json()["token"])


async def test_tokens_outlive_the_gateway(start_gateway: StartGateway) -> None:
    gateway = start_gateway(TWO)
    _await_workers(gateway)
    kept, revoked = made(gateway, "kept"), made(gateway, "revoked")
    assert 204 == api(gateway, "DELETE", f"/tokens/{revoked['id']}").status
    gateway.stop()
    again = start_gateway("", config=gateway.config)
    again.expect_log(LATE)
    _await_workers(again)
    await until(lambda: {200} == statuses(again, kept["token"]))
    assert {401} == statuses(again, revoked["token"])
    assert kept["id"] == api(again, "GET", "/tokens").json()["data"][0]["id"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_another_gateway_on_the_same_database_knows_within_two_seconds(
    start_gateway: StartGateway, new_url: NewUrl, kind: str
) -> None:
    environment = {"DATABASE_URL": new_url(kind)}
    # It asks so often; how long the question and its answer take is a matter of the machine.
    assert POLL_SECONDS < 2.0
    one, other = start_gateway(ONE, extra=environment), start_gateway(ONE, extra=environment)
    for each in (one, other):
        each.expect_log(LATE)
    token = made(one, "team-b")
    await until(lambda: chat(other, token["token"]).status == 200, 20)
    assert 204 == api(one, "DELETE", f"/tokens/{token['id']}").status
    await until(lambda: chat(other, token["token"]).status == 401, 20)


async def test_no_request_fails_while_the_database_is_stopped_and_started(
    start_gateway: StartGateway, new_url: NewUrl, postgresql_server: PostgreSQL
) -> None:
    gateway = start_gateway(TWO, extra={"DATABASE_URL": new_url("postgresql")})
    _await_workers(gateway)
    gateway.expect_log("tokens that the API has made cannot be read|database .* cannot be reached")
    token, other = made(gateway, "team-b"), made(gateway, "team-c")
    with asking(lambda: chat(gateway, token["token"]).status, 4) as found:
        await until(lambda: len(found) > 20)
        with postgresql_server.stopped("immediate"):
            await until(lambda: gateway.err.count("cannot be read, and stay as they were known") >= 2)
            for _ in range(2):
                answer = await asyncio.to_thread(api, gateway, "DELETE", f"/tokens/{other['id']}")
                assert (503, "storage_error-unavailable") == (answer.status, answer.code)
            answer = await asyncio.to_thread(api, gateway, "GET", "/tokens")
            assert 503 == answer.status
            assert {200} == await asyncio.to_thread(statuses, gateway, other["token"])
            await until(lambda: _health(gateway)["stale_since"] is not None)
            assert _health(gateway)["loaded"]
        count = len(found)
        await until(lambda: gateway.err.count("are read again") >= 2)
        await until(lambda: len(found) > count + 20)
        answer = await asyncio.to_thread(api, gateway, "DELETE", f"/tokens/{other['id']}")
        assert 204 == answer.status
    assert {200} == set(found)
    assert {401} == statuses(gateway, other["token"])


def _health(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = gateway.management("GET", "/api/v1/health").json()["issued_tokens"]
    return found


async def test_a_database_that_is_down_at_the_start_keeps_nobody_out_who_is_in_the_file(
    start_gateway: StartGateway, new_url: NewUrl, postgresql_server: PostgreSQL
) -> None:
    environment = {"DATABASE_URL": new_url("postgresql")}
    first = start_gateway(ONE, extra=environment)
    first.expect_log(LATE)
    token = made(first, "team-b")["token"]
    first.stop()
    with postgresql_server.stopped():
        gateway = start_gateway("", config=first.config, extra=environment)
        gateway.expect_log("tokens that the API has made cannot be read|database .* cannot be reached")
        assert 200 == gateway.chat("probe").status
        waiting = chat(gateway, token)
        assert (503, "tokens_not_loaded", "2") == (waiting.status, waiting.code, waiting.headers["retry-after"])
        managing = gateway.request("GET", "/api/v1/health", key=token)
        assert (503, "access_error-tokens_not_loaded") == (managing.status, managing.code)
        assert 401 == gateway.request("GET", "/v1/models", key="no token of ours").status
        assert (False, 0) == (_health(gateway)["loaded"], _health(gateway)["count"])
    await until(lambda: chat(gateway, token).status == 200)
    await until(lambda: {"loaded": True, "count": 1, "stale_since": None} == _health(gateway))


def test_a_name_of_the_file_is_not_given_to_another(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ONE)
    answer = api(gateway, "POST", "/tokens", {"name": "tester"})
    assert (409, "token_error-name_taken") == (answer.status, answer.code)
    token = made(gateway, "late")
    # The file takes the name later: both texts count, and the name is the file's.
    text = gateway.config.read_text()
    gateway.rewrite(text.replace("{name: tester,", "{name: late,"))
    assert 200 == gateway.management("POST", "/api/v1/config/reload").status
    assert (200, 200) == (gateway.chat("probe").status, chat(gateway, token["token"]).status)
    ids = [(each["id"], each["name"]) for each in api(gateway, "GET", "/tokens").json()["data"]]
    assert [(token["id"], "late"), ("file:late", "late")] == ids


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_no_database_could_hold_is_refused_before_it_is_asked(
    start_gateway: StartGateway, new_url: NewUrl, kind: str
) -> None:
    gateway = start_gateway(ONE, extra={"DATABASE_URL": new_url(kind)})
    gateway.expect_log(LATE)
    token = made(gateway, "odd", models=["a\0b", "\udbff\udfff"], metadata={"\0": "\0", "é": "🦥"})
    assert {"\0": "\0", "é": "🦥"} == api(gateway, "GET", f"/tokens/{token['id']}").json()["metadata"]
    assert 400 == api(gateway, "GET", "/tokens/%00").status
    assert 404 == api(gateway, "DELETE", "/tokens/%C3%A9").status
    for query in (
        "owner=%00",
        "cursor=%00",
        "owner=" + "x" * 5000,
        "include_revoked=maybe",
        "limit=99999999999999999999",
    ):
        assert api(gateway, "GET", f"/tokens?{query}").status in (200, 400)
    huge = base64.urlsafe_b64encode(msgspec.json.encode([10**30, "\0"])).decode().rstrip("=")
    for inner in (huge, "x", ""):
        cursor = base64.urlsafe_b64encode(f"api:{inner}".encode()).decode()
        assert api(gateway, "GET", f"/tokens?cursor={cursor}").status in (200, 400)
    for tag in ("9" * 18, "0", "x"):
        assert 412 == api(gateway, "PATCH", f"/tokens/{token['id']}", {"owner": "é"}, If_Match=f'"{tag}"').status
