"""What a request is told to have cost, however it ends."""

import pytest

from core.usage import Usage
from tests.exchange import DONE, Plane, Provider, Steps, answer, stream
from transport.script import Cut

PRICES = [
    {"model": "up/gpt-9", "input_usd": 2, "output_usd": 10, "cached_input_usd": 0.5},
    {"model": "second/*", "input_usd": 1, "output_usd": 0, "request_usd": 0.001},
]
COUNTS = b'"usage":{"prompt_tokens":1000,"completion_tokens":10,"prompt_tokens_details":{"cached_tokens":400},'
COUNTS += b'"completion_tokens_details":{"reasoning_tokens":8}}'
WHOLE = b'{"choices":[],' + COUNTS + b"}"
ONE = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[],' + COUNTS + b"}\n\n"
USED = Usage(1000, 10, 400, 8)


@pytest.mark.parametrize(
    ("told", "streamed"),
    [(answer(WHOLE), False), (stream(ONE, LAST, DONE), True), (stream(ONE, LAST, Cut()), True)],
)
async def test_usage_that_was_told_has_its_cost_even_where_the_answer_is_cut(told: Steps, streamed: bool) -> None:
    gateway = Plane(Provider("up", [told]), prices=PRICES)
    await gateway.post({"model": "gpt-9", "stream": streamed})
    assert USED == gateway.record.usage
    # 600 at 2 USD a million, 400 at 0.50 and 10 at 10.
    assert 1_500_000 == gateway.record.cost_nano_usd


async def test_the_price_is_that_of_the_target_that_answered() -> None:
    up, second = Provider("up", [answer(b"{}", status=503)]), Provider("second", [answer(WHOLE)])
    route = {"name": "r", "targets": ["up/gpt-9"], "fallbacks": [["second/gpt-9"]], "retry": {"attempts": 1}}
    gateway = Plane(up, second, prices=PRICES, routes=[route])
    await gateway.post({"model": "gpt-9"})
    assert ("second", 2_000_000) == (gateway.record.provider, gateway.record.cost_nano_usd)


async def test_an_unknown_price_is_unknown() -> None:
    gateway = Plane(Provider("up", [answer(WHOLE)]), prices=PRICES)
    await gateway.post({"model": "gpt-10"})
    assert (USED, None) == (gateway.record.usage, gateway.record.cost_nano_usd)


FLAT = {"input_usd": 0, "output_usd": 0}
IMAGE = {"model": "painter", "prompt": "a cat"}


@pytest.mark.parametrize(
    ("price", "path", "nano_usd"),
    [
        ({**FLAT, "request_usd": 0.04}, "/v1/images/generations", 40_000_000),
        ({**FLAT, "request_usd": 0.002}, "/v1/rerank", 2_000_000),
        (FLAT, "/v1/images/generations", 0),
        # What tokens it took nobody tells.
        ({"input_usd": 5, "output_usd": 40, "request_usd": 0.04}, "/v1/images/generations", None),
    ],
)
async def test_a_request_without_tokens_has_the_price_of_a_request(
    price: dict[str, float], path: str, nano_usd: int | None
) -> None:
    prices = [{"model": "up/painter", **price}]
    gateway = Plane(Provider("up", [answer(b'{"data":[]}')]), prices=prices)
    assert 200 == (await gateway.post(IMAGE, path)).status
    assert (None, nano_usd) == (gateway.record.usage, gateway.record.cost_nano_usd)
    refused = Plane(Provider("up", [answer(b'{"error":{"message":"no"}}', status=400)]), prices=prices)
    await refused.post(IMAGE, path)
    assert refused.record.cost_nano_usd is None


async def test_a_request_that_was_refused_has_no_cost() -> None:
    gateway = Plane(Provider("up", [answer(b'{"error":{"message":"no"}}', status=400)]), prices=PRICES)
    await gateway.post({"model": "gpt-9"})
    assert (None, None) == (gateway.record.usage, gateway.record.cost_nano_usd)
