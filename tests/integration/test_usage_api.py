"""Usage and requests by the API of a running gateway: what its ledger has, and for whom."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

from access.tokens import digest, new_token
from tests.gateway_process import ADMIN_KEY, Answer, Gateway, until
from tests.integration.conftest import NewUrl, StartGateway

OWN = new_token(b"\1" * 24)
ECHO = """
    providers: [{name: echo, type: echo}]
    model_aliases: [{from: fast, to: echo/first}]
    storage: {url: "${env:DATABASE_URL:-sqlite:///data/sluice.db}"}
"""
DECLARED = f"""\
tokens:
  - {{name: own, sha256: "{digest(OWN)}", models: ["*"], scope: scope_token_power_user}}
"""


def api(gateway: Gateway, path: str, key: str = ADMIN_KEY) -> Answer:
    return gateway.request("GET", f"/api/v1{path}", key=key)


def chat(gateway: Gateway, key: str, model: str = "fast") -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hello there"}]}
    return gateway.request("POST", "/v1/chat/completions", body, key=key)


def requests_of(gateway: Gateway, key: str = ADMIN_KEY, query: str = "") -> list[dict[str, Any]]:
    answer = api(gateway, f"/requests{query}", key)
    assert 200 == answer.status, answer.body
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_without_a_database_there_is_no_usage_and_none_is_made(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ECHO)
    usage = api(gateway, "/usage?group_by=token").json()
    assert ([], 0) == (usage["data"], usage["totals"]["requests"])
    assert [] == requests_of(gateway)
    assert 404 == api(gateway, "/requests/req_1").status
    assert b"" == api(gateway, "/usage/export?format=jsonl").body
    assert not (gateway.config.parent / "data").exists()


async def test_a_request_is_told_to_managers_and_to_its_own_token(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ECHO)

    def make(name: str) -> dict[str, Any]:
        wanted = {"name": name, "models": ["fast"], "scope": "scope_token_power_user", "owner": "ann"}
        answer = gateway.request("POST", "/api/v1/tokens", wanted, key=ADMIN_KEY)
        assert 201 == answer.status, answer.body
        found: dict[str, Any] = answer.json()
        return found

    first, other = make("team"), make("other")
    answers = [chat(gateway, first["token"]), chat(gateway, other["token"]), chat(gateway, first["token"], "secret")]
    assert [200, 200, 403] == [each.status for each in answers]
    await until(lambda: len(requests_of(gateway)) == 3)
    mine = requests_of(gateway, first["token"])
    assert ["model_not_allowed", None] == [each["error_code"] for each in mine]
    assert {"team"} == {each["token"] for each in mine}
    served = mine[1]
    assert answers[0].headers["x-request-id"] == served["request_id"]
    assert served == api(gateway, f"/requests/{served['request_id']}", first["token"]).json()
    # Another's is as one that there is not.
    for path in (f"/requests/{served['request_id']}", "/requests/req_nothing"):
        refused = api(gateway, path, other["token"])
        assert (404, "usage_error-not_found") == (refused.status, refused.json()["error"]["code"])
    usage = api(gateway, "/usage?group_by=token,status").json()
    assert [("other", 200, 1, 0), ("team", 200, 1, 0), ("team", 403, 1, 1)] == [
        (each["token"], each["status"], each["requests"], each["failed"]) for each in usage["data"]
    ]
    assert 2 == api(gateway, "/usage", first["token"]).json()["totals"]["requests"]
    assert 403 == api(gateway, "/usage?token=other", first["token"]).status
    # Whoever has the name next has none of the usage of who had it before.
    assert 204 == gateway.request("DELETE", f"/api/v1/tokens/{first['id']}", key=ADMIN_KEY).status
    second = make("team")
    assert [] == requests_of(gateway, second["token"])
    assert [] == requests_of(gateway, second["token"], "?token=team")
    assert 0 == api(gateway, "/usage?token=team", second["token"]).json()["totals"]["requests"]
    assert b"" == api(gateway, "/usage/export?format=jsonl", second["token"]).body
    assert 2 == len(requests_of(gateway, query="?token=team"))


async def test_a_token_of_the_file_sees_what_tokens_of_the_file_of_its_name_have_used(
    start_gateway: StartGateway, new_url: NewUrl, kind: str
) -> None:
    url = new_url(kind)
    gateway = start_gateway(ECHO, access=DECLARED, extra={"DATABASE_URL": url})
    assert 200 == chat(gateway, OWN).status
    await until(lambda: requests_of(gateway, OWN))
    found = requests_of(gateway, OWN)
    assert ["own"] == [each["token"] for each in found]
    lines = api(gateway, "/usage/export?format=jsonl", OWN).body.splitlines()
    assert found == [json.loads(line) for line in lines]
    (cells,) = csv.DictReader(io.StringIO(api(gateway, "/usage/export", OWN).body.decode(), newline=""))
    assert found[0]["request_id"] == cells["request_id"]
    assert Decimal(str(found[0]["duration_seconds"])) == Decimal(cells["duration_seconds"])
