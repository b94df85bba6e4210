"""Limits of tokens that the API makes, over real gateways; for several workers with a real Redis."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import redis_server
from tests.gateway_process import Answer, Gateway, until
from tests.integration.conftest import StartGateway
from tests.integration.test_tokens_api import ONE, TWO, api, chat, made, statuses
from tests.integration.test_workers import _await_workers

REDIS = '    redis: {url: "${env:REDIS_URL}", timeout_seconds: 5}\n'
THREE, FIVE = ({"requests": count, "per": "hour"} for count in (3, 5))
POWER_USER = "scope_token_power_user"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis() as server:
        yield server.url


def admitted(gateway: Gateway, text: str, count: int) -> int:
    """How many of so many requests are answered, on connections of their own, so that all workers are met."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: chat(gateway, text), range(count)))
    assert {answer.status for answer in answers} <= {200, 429}
    return sum(answer.status == 200 for answer in answers)


def standing(gateway: Gateway, token: dict[str, Any]) -> tuple[float, float]:
    """What the token itself is told that it has used of its one limit, and has left."""
    answer = gateway.request("GET", f"/api/v1/tokens/{token['id']}/limits", key=token["token"])
    assert 200 == answer.status, answer.body
    (found,) = answer.json()["data"]
    return found["used"], found["remaining"]


def patched(gateway: Gateway, token: dict[str, Any], **members: object) -> Answer:
    return api(gateway, "PATCH", f"/tokens/{token['id']}", members)


def _spend_change_and_rotate(gateway: Gateway) -> None:
    token = made(gateway, "team-b", scope=POWER_USER, limits=[THREE])
    assert (0, 3) == standing(gateway, token)
    assert (3, (3, 0)) == (admitted(gateway, token["token"], 8), standing(gateway, token))
    refused = chat(gateway, token["token"])
    assert (429, "rate_limit_exceeded", "3", "0") == (
        refused.status,
        refused.code,
        refused.headers["x-ratelimit-limit-requests"],
        refused.headers["x-ratelimit-remaining-requests"],
    )
    # What is used stays counted, whatever else of the token changes.
    assert 200 == patched(gateway, token, limits=[FIVE], name="renamed").status
    assert (3, 2) == standing(gateway, token)
    assert (2, (5, 0)) == (admitted(gateway, token["token"], 8), standing(gateway, token))
    # The successor goes on where the old one was, and both count together.
    answer = api(gateway, "POST", f"/tokens/{token['id']}/rotate", {"grace_seconds": 3600})
    assert (201, [FIVE]) == (answer.status, answer.json()["limits"])
    successor = answer.json()
    assert (0, 0) == (admitted(gateway, token["token"], 4), admitted(gateway, successor["token"], 4))
    for each in (token, successor):
        assert 200 == patched(gateway, each, limits=[{"requests": 7, "per": "hour"}]).status
    assert (1, 1, 0) == tuple(
        admitted(gateway, text, count)
        for text, count in ((token["token"], 1), (successor["token"], 6), (token["token"], 4))
    )
    assert (7, 0) == standing(gateway, token) == standing(gateway, successor)
    # Another of the same name begins anew.
    for each in (token, successor):
        assert 204 == api(gateway, "DELETE", f"/tokens/{each['id']}").status
        assert {401} == statuses(gateway, each["token"], 4)
    assert 3 == admitted(gateway, made(gateway, "renamed", limits=[THREE])["token"], 5)


def test_what_is_used_outlives_changes_and_rotations(start_gateway: StartGateway) -> None:
    _spend_change_and_rotate(start_gateway(ONE))


def test_several_workers_count_together_in_redis(start_gateway: StartGateway, redis_url: str) -> None:
    gateway = start_gateway(TWO + REDIS, extra={"REDIS_URL": redis_url})
    _await_workers(gateway)
    _spend_change_and_rotate(gateway)


def test_several_workers_without_redis_take_no_limits(start_gateway: StartGateway) -> None:
    gateway = start_gateway(TWO)
    refused = api(gateway, "POST", "/tokens", {"name": "team-b", "limits": [THREE]})
    assert (409, "token_error-limits_need_redis") == (refused.status, refused.code)
    assert "2 workers" in refused.json()["error"]["message"]
    token = made(gateway, "team-b")
    assert "token_error-limits_need_redis" == patched(gateway, token, limits=[THREE]).code
    assert {200} == statuses(gateway, token["token"], 4)


async def test_limits_of_the_file_and_of_tokens_are_told_without_being_charged(start_gateway: StartGateway) -> None:
    access = ONE + "    limits: [{requests: 100, per: day, each: [token]}, {requests: 50, per: day}]\n"
    gateway = start_gateway(access)
    text = gateway.config.read_text()
    gateway.rewrite(text.replace("{name: tester,", "{name: tester, limits: [{concurrency: 2}],"))
    assert 200 == gateway.management("POST", "/api/v1/config/reload").status
    assert 200 == gateway.chat("probe").status
    # That it is under way no more is counted a moment after its answer.
    path = "/tokens/file:tester/limits"
    await until(lambda: api(gateway, "GET", path).json()["data"][0]["used"] == 0)
    for _ in range(3):
        shown = api(gateway, "GET", path).json()["data"]
        assert [("token", 0), ("limits", 1), ("limits", 1)] == [(one["source"], one["used"]) for one in shown]
        assert ["token"] == shown[1]["each"]
        assert {"token": "tester"} == shown[1]["names"]
        listed = api(gateway, "GET", "/limits").json()["data"]
        assert [None, 1] == [one["used"] for one in listed]
