"""Webhooks by the API of a running gateway: added, tried, told, rotated, disabled, told again and removed."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

from tests.gateway_process import ADMIN_KEY, Answer, Gateway
from tests.integration.conftest import StartGateway
from tests.openapi_answers import check_answer
from tests.planted import planted, planted_key
from tests.webhook_receiver import Receiver, receiver, status

PATH = planted("api-hook-path")
GIVEN = "whsec_" + base64.b64encode(planted_key("api-hook")).decode()
TEXT = """\
server: {allow_private_targets: true}
providers: [{name: echo, type: echo}]
# Who is told.
webhooks:
  # Written by hand.
  - name: hand   # it stays
    url: http://127.0.0.1:9/hook
    secret: ${env:HAND}
    events: [provider.down]   # seldom
"""
SECONDS = 60.0


class Api:
    """The API of ``running``; each answer is held against the OpenAPI document, and searched for planted secrets."""

    def __init__(self, running: Gateway) -> None:
        self.running = running

    async def call(self, method: str, path: str, body: Any = None, match: str | None = None) -> Answer:
        fields = {} if match is None else {"if-match": match}
        # In a thread, as receivers answer in this one.
        answer = await asyncio.to_thread(self.running.request, method, f"/api/v1/{path}", body, fields, ADMIN_KEY)
        check_answer(method, f"/api/v1/{path}", answer.status, answer.headers, answer.body)
        return answer

    async def edit(self, method: str, path: str, body: Any = None) -> Answer:
        return await self.call(method, path, body, (await self.call("GET", path)).headers["etag"])

    async def deliveries(self, state: str | None = None) -> list[Any]:
        query = "" if state is None else f"?state={state}"
        data: list[Any] = (await self.call("GET", f"webhooks/ops/deliveries{query}")).json()["data"]
        return data

    async def until(self, path: str, condition: Callable[[Any], object]) -> Any:
        async with asyncio.timeout(SECONDS):
            while not condition(found := (await self.call("GET", path)).json()):
                await asyncio.sleep(0.05)
        return found

    async def add_token(self, name: str) -> None:
        answer = await self.call("POST", "tokens", {"name": name, "models": ["*"]})
        assert 201 == answer.status, answer

    async def test(self) -> tuple[str, str | None]:
        """What became of it."""
        found = (await self.call("POST", "webhooks/ops/test")).json()
        return found["state"], found["failure"]


async def test_webhooks_by_the_api(start_gateway: StartGateway) -> None:
    async with receiver() as hook:
        running = await asyncio.to_thread(start_gateway, TEXT, extra={"HAND": GIVEN})
        running.expect_log("made a master key|answered 410|kept as dead letters")
        api = Api(running)
        before = running.config.read_text()

        made = await api.call(
            "POST",
            "webhooks",
            {
                "name": "ops",
                "url": f"http://127.0.0.1:{hook.port}/{PATH}",
                "secret": {"action": "generate"},
                "events": ["token.*"],
            },
        )
        assert (201, "/api/v1/webhooks/ops") == (made.status, made.headers["location"]), made.body
        assert f"http://127.0.0.1:{hook.port}/${{kept}}" == made.json()["url"]
        assert {"failing": False, "disabled_since": None} == made.json()["state"]
        hook.secret = made.json()["new_secret"]
        await _test_tried_and_told(api, hook)
        await _test_rotated(api, hook)
        await _test_disabled(api, hook)

        refused = await api.edit("PATCH", "webhooks/ops", {"url": f"http://127.0.0.1:{hook.port}/elsewhere"})
        assert (422, "config_error-secret_required") == (refused.status, refused.code)
        assert 200 == (await api.edit("PATCH", "webhooks/hand", {"events": ["provider.*"]})).status
        assert 204 == (await api.edit("DELETE", "webhooks/ops")).status
        assert before.replace("[provider.down]", '["provider.*"]') == running.config.read_text()
        assert 404 == (await api.call("GET", "webhooks/ops")).status
        delivered = await api.deliveries("delivered")
        assert [] != delivered
        answer = await api.call("POST", f"webhooks/ops/deliveries/{delivered[0]['event_id']}/redeliver")
        assert (404, "webhook_error-not_found") == (answer.status, answer.code)
        await _test_audited(api)


async def _test_tried_and_told(api: Api, hook: Receiver) -> None:
    assert ("delivered", None) == await api.test()
    await api.add_token("one")
    await api.until(
        "webhooks/ops/deliveries", lambda found: ["delivered"] * 2 == [one["state"] for one in found["data"]]
    )
    assert ["webhook.test", "token.created"] == [payload["type"] for _, payload in hook.got]
    event_id, payload = hook.got[-1]
    shown = (await api.call("GET", f"webhooks/ops/deliveries/{event_id}")).json()
    assert (payload, 204, 1) == (shown["payload"], shown["status"], shown["attempts"])
    again = await api.call("POST", f"webhooks/ops/deliveries/{event_id}/redeliver")
    assert (202, 1) == (again.status, again.json()["count"])
    async with asyncio.timeout(SECONDS):
        while [event_id] * 2 != hook.ids[1:]:
            await asyncio.sleep(0.01)


async def _test_rotated(api: Api, hook: Receiver) -> None:
    former = hook.secret
    rotated = await api.edit("PATCH", "webhooks/ops", {"secret": {"action": "rotate"}})
    assert (200, ["sealed"]) == (rotated.status, [each["kind"] for each in rotated.json()["former_secrets"]])
    assert ("delivered", None) == await api.test(), "a receiver that knows the former one alone"
    hook.secret = rotated.json()["new_secret"]
    assert ("delivered", None) == await api.test()
    assert former not in api.running.config.read_text()
    assert 200 == (await api.edit("PATCH", "webhooks/ops", {"former_secrets": None})).status
    assert ("delivered", None) == await api.test()
    assert [1, 2, 2, 1] == [
        len(call.headers["webhook-signature"].split()) for call in (hook.calls[0], *hook.calls[-3:])
    ]


async def _test_disabled(api: Api, hook: Receiver) -> None:
    hook.answer = status(410)
    await api.add_token("two")
    await api.until("webhooks/ops", lambda found: found["state"]["disabled_since"] is not None)
    (dead,) = (await api.until("webhooks/ops/deliveries?state=dead", lambda found: found["data"]))["data"]
    assert ("gone", 410) == (dead["failure"], dead["status"])
    refused = await api.call("POST", "webhooks/ops/redeliver", {"event_ids": [dead["event_id"]]})
    assert (409, "webhook_error-disabled") == (refused.status, refused.code)
    assert ("dead", "gone") == await api.test()
    hook.answer = status(204)
    assert ("delivered", None) == await api.test()
    assert None is (await api.call("GET", "webhooks/ops")).json()["state"]["disabled_since"]
    again = await api.call("POST", "webhooks/ops/redeliver", {"since": dead["ended_at"]})
    # The test that failed is a dead letter too.
    assert (202, 2) == (again.status, again.json()["count"])
    await api.until("webhooks/ops/deliveries?state=dead", lambda found: not found["data"])
    await api.until("webhooks/ops/deliveries?state=pending", lambda found: not found["data"])
    assert 1 == hook.taken[dead["event_id"]]


async def _test_audited(api: Api) -> None:
    await asyncio.to_thread(api.running.settle)
    entries = (await api.call("GET", "audit?resource=webhook")).json()["data"]
    assert {
        "webhook.create",
        "webhook.update",
        "webhook.delete",
        "webhook.test",
        "webhook.redeliver",
        "delivery.redeliver",
    } == {each["action"] for each in entries}
    assert "whsec_" not in str(entries)
