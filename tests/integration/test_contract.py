"""Promises of the documentation that no other test holds the gateway to, asked of a running one as its callers would."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.gateway_process import ADMIN_KEY, Gateway
from tests.integration.conftest import StartGateway
from tests.ports import free_port
from tests.provider import Call, Provider, entry, provider

DATE = "Wed, 21 Oct 2065 07:28:00 GMT"

RETRY_AFTER: dict[str, tuple[str, str | None]] = {
    "seconds": ("17", "17"),
    "a date": (DATE, DATE),
    "a date in another form": ("Wednesday, 21-Oct-65 07:28:00 GMT", DATE),
    "a date in another zone": ("Wed, 21 Oct 2065 09:28:00 +0200", DATE),
    "a date beyond the last year": ("Fri, 31 Dec 9999 23:59:59 -0100", None),
    "nonsense": ("soon", None),
}
"""What a provider without a `Date` says, and what the client is told."""


async def is_busy(call: Call) -> None:
    """Says when to come again as the question asks for."""
    await call.body()
    name = call.json()["messages"][0]["content"]
    await call.answer({"error": {"message": "busy"}}, 503, {"retry-after": RETRY_AFTER[name][0]})


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(start_shared_gateway: StartGateway, port: int) -> Gateway:
    return start_shared_gateway(f"""
        providers:
          - {entry(port)}
        routes:
          - name: once
            match: {{model: "real/*"}}
            targets: ["real/*"]
            retry: {{attempts: 1}}
            # So that no test's failure is another's.
            cooldown: {{max_seconds: 0}}
    """)


@pytest.fixture
async def real(port: int) -> AsyncIterator[Provider]:
    async with provider(is_busy, port) as running:
        yield running


@pytest.mark.parametrize("name", RETRY_AFTER)
async def test_retry_after_survives(gateway: Gateway, real: Provider, name: str) -> None:
    answer = await asyncio.to_thread(gateway.chat, "real/known", name)
    assert (503, RETRY_AFTER[name][1]) == (answer.status, answer.headers.get("retry-after"))


def test_a_refusal_that_asks_back_ends_with_its_question(gateway: Gateway) -> None:
    answer = gateway.request("POST", "/api/v1/aliases", {"from": "a", "too": "real/known"}, key=ADMIN_KEY)
    assert 400 == answer.status
    assert answer.json()["error"]["message"].endswith("did you mean `to`?")
