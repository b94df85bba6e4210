"""Limits in the request path: admitted before anything is sent, settled whatever happens."""

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from access.quotas.amounts import ONE, Amounts
from access.quotas.counters import Counters
from access.quotas.limits import Limits, Scope, ScopeKind, limit, parse_terms
from access.quotas.outcomes import Admission, Lease, Unavailable
from core.clock import ManualClock
from core.events import BudgetThreshold, Event, QuotaExceeded, QuotaThreshold
from proxy.limit_news import LimitNews
from tests.exchange import TOKEN, TOKENS, MemoryExchange, Plane, Provider, answer, request, stream, until
from transport.script import Cut, Stall

ONE_A_MINUTE = {"requests": 1, "per": "minute"}
USED = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
REPLY = msgspec.json.encode({"id": "c", "model": "m", "choices": [], "usage": USED})
CHUNK = b'data: {"model":"m","choices":[{"delta":{"content":"hi"}}]}\n\n'
LAST = b'data: {"model":"m","choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
BODY = {"model": "m", "max_tokens": 100}


def limited(*limits: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document whose first token has these limits."""
    first, *rest = TOKENS
    return {"tokens": [{**first, "limits": limits, **more}, *rest]}


def plane(*providers: Provider, **document: Any) -> Plane:
    return Plane(*(providers or (Provider("up", [answer(REPLY)]),)), clock=ManualClock(), **document)


def fields(exchange: MemoryExchange) -> dict[str, str]:
    return {name.removeprefix("x-ratelimit-"): value for name, value in exchange.headers if "ratelimit" in name}


def told(gateway: Plane, kind: type[Event]) -> list[Any]:
    return [event for event in gateway.told if isinstance(event, kind)]


def _admitted(gateway: Plane) -> int:
    return gateway.counted.decisions["admitted"].total


async def remaining(gateway: Plane, kind: str = "tokens") -> int:
    """What the next request is told."""
    return int(fields(await gateway.post(BODY))[f"remaining-{kind}"])


async def test_a_request_within_its_limits_is_told_how_they_stand() -> None:
    gateway = plane(**limited({"requests": 3, "per": "minute"}, {"tokens": 1000, "per": "day"}))
    reserved = len(msgspec.json.encode(BODY)) // 4 + 100
    assert {
        "limit-requests": "3",
        "remaining-requests": "2",
        "reset-requests": "1m0s",
        "limit-tokens": "1000",
        "remaining-tokens": str(1000 - reserved),
        "reset-tokens": "24h0m0s",
    } == fields(await gateway.post(BODY))
    # What was used is counted instead of what was reserved.
    assert 1000 - 14 - reserved == await remaining(gateway)


async def test_a_request_over_a_limit_is_refused_before_anything_is_sent() -> None:
    provider = Provider("up", [answer(REPLY)])
    gateway = plane(provider, **limited(ONE_A_MINUTE, {"tokens": 1000, "per": "day"}))
    await gateway.post(BODY)
    refused = await gateway.post(BODY)
    assert (429, "60", "0") == (refused.status, refused.field("retry-after"), fields(refused)["remaining-requests"])
    assert {
        "message": "a limit is reached (1 requests per minute for this token): try again in 60 s",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    } == refused.json()["error"]
    assert 1 == len(provider.requests)
    assert isinstance(gateway.clock, ManualClock)
    gateway.clock.advance(60)
    assert 200 == (await gateway.post(BODY)).status
    assert {"admitted": 2, "refused": 1} == {
        result: count.total for result, count in gateway.counted.decisions.items() if count.total
    }
    assert {("requests", "token"): 1} == {names: count.total for names, count in gateway.counted.refusals.items()}


async def test_where_no_limits_apply_nothing_is_told() -> None:
    account = [("content-type", "application/json"), ("x-ratelimit-limit-requests", "9")]
    gateway = plane(Provider("up", [answer(REPLY, account)]))
    assert {} == fields(await gateway.post(BODY))
    # A request that is not sent on is not counted either.
    gateway = plane(**limited(ONE_A_MINUTE))
    for _ in range(3):
        assert 200 == (await gateway.get("/v1/models")).status


async def test_a_request_that_needs_more_than_there_ever_is_is_not_told_to_come_again() -> None:
    gateway = plane(**limited({"tokens": 50, "per": "minute"}))
    refused = await gateway.post(BODY)
    assert (429, None) == (refused.status, refused.field("retry-after"))
    assert "more than a limit allows at all (50 tokens per minute for this token)" in refused.json()["error"]["message"]


async def test_money_that_is_spent_has_a_code_of_its_own() -> None:
    prices = [{"model": "up/*", "input_usd": 1, "output_usd": 10}]
    gateway = plane(**limited({"usd": 0.00105, "per": "day"}), prices=prices)
    assert 200 == (await gateway.post(BODY)).status
    assert 59_000 == gateway.record.cost_nano_usd
    refused = await gateway.post(BODY)
    assert (429, "insufficient_quota", "86400") == (
        refused.status,
        refused.json()["error"]["code"],
        refused.field("retry-after"),
    )


@pytest.mark.parametrize(
    ("script", "counted"),
    [
        ([answer(REPLY)], 1),
        ([answer(b"{}", status=400)], 1),
        ([answer(b"{}", status=500)], 0),
        ([answer(b"{}", status=429)], 0),
        ([(Cut(),)], 0),
    ],
)
async def test_a_request_that_failed_by_no_doing_of_its_caller_is_given_back(script: list[Any], counted: int) -> None:
    failing = Provider("up", script)
    gateway = plane(
        failing,
        **limited({"requests": 9, "per": "minute"}, {"concurrency": 1}, {"tokens": 1000, "per": "day"}),
        routes=[{"name": "r", "targets": ["up/m"], "retry": {"attempts": 1}, "cooldown": {"after_failures": 99}}],
    )
    await gateway.post(BODY)
    failing.scripts[:] = [answer(REPLY)]
    gateway.cooldowns.restore("up", "m")
    assert 9 - counted - 1 == await remaining(gateway, "requests")


async def test_a_stream_that_is_cut_settles_what_was_used() -> None:
    gateway = plane(
        Provider("up", [stream(CHUNK, Cut())]),
        **limited({"tokens": 1000, "per": "day"}, {"concurrency": 1}),
    )
    await gateway.post({**BODY, "stream": True})
    usage = gateway.record.usage
    assert usage is not None
    assert usage.estimated
    reserved = len(msgspec.json.encode(BODY)) // 4 + 100
    assert 1000 - usage.input_tokens - usage.output_tokens - reserved == await remaining(gateway)


async def test_what_is_under_way_ends_with_the_exchange_and_not_with_the_head() -> None:
    gateway = plane(Provider("up", [stream(CHUNK, Stall(), LAST), answer(REPLY)]), **limited({"concurrency": 1}))
    exchange = request(body=b'{"model":"m","stream":true}')
    running = gateway.begin(exchange)
    await exchange.sent.wait()
    assert 429 == (await gateway.post(BODY)).status
    exchange.leave()
    await asyncio.gather(running, return_exceptions=True)
    assert 200 == (await gateway.post(BODY)).status


async def test_an_exchange_that_is_cut_as_the_gateway_ends_gives_its_place_back() -> None:
    for script in ((Stall(),), stream(CHUNK, Stall())):
        gateway = plane(Provider("up", [script, answer(REPLY)]), **limited({"concurrency": 1}))
        running = gateway.begin(request(body=b'{"model":"m","stream":true}'))
        await until(partial(_admitted, gateway))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert 200 == (await gateway.post(BODY)).status


async def test_who_leaves_before_the_answer_has_made_a_request() -> None:
    provider = Provider("up", [(Stall(),), answer(REPLY)])
    gateway = plane(provider, **limited({"requests": 2, "per": "day"}))
    exchange = request(body=b'{"model":"m"}')
    running = gateway.begin(exchange)
    await until(lambda: provider.requests)
    await asyncio.sleep(0.01)
    exchange.leave()
    await asyncio.gather(running, return_exceptions=True)
    assert 0 == await remaining(gateway, "requests")


async def test_who_waits_for_a_limit_takes_the_next_place_and_who_leaves_frees_it() -> None:
    gateway = plane(
        Provider("up", [stream(CHUNK, Stall(), LAST), answer(REPLY)]),
        **limited({"concurrency": 1, "max_wait_seconds": 60}),
    )
    first, second, third = (request(body=b'{"model":"m","stream":true}') for _ in "123")
    tasks = [gateway.begin(first)]
    await first.sent.wait()
    tasks += [gateway.begin(second), gateway.begin(third)]
    await until(lambda: gateway.quotas.waiting == 2)
    second.leave()
    await until(lambda: gateway.quotas.waiting == 1)
    first.leave()
    await third.sent.wait()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (200, 0, 1) == (third.status, gateway.quotas.waiting, gateway.counted.decisions["waited"].total)


async def test_a_limit_in_shadow_refuses_nothing_and_is_told_of() -> None:
    gateway = plane(**limited({**ONE_A_MINUTE, "shadow": True}), quotas={"thresholds": []})
    for _ in range(3):
        shown = await gateway.post(BODY)
        assert (200, {}) == (shown.status, fields(shown))
    (event,) = told(gateway, QuotaExceeded)
    assert (True, "all", 2, 1) == (event.shadow, event.token, event.used, event.amount)
    assert 2 == gateway.counted.decisions["shadow"].total


async def test_each_share_and_each_end_of_a_limit_is_told_once_a_window() -> None:
    gateway = plane(**limited({"requests": 4, "per": "minute"}), quotas={"thresholds": [0.5, 0.75]})
    for _ in range(2):
        for _ in range(6):
            await gateway.post(BODY)
        assert isinstance(gateway.clock, ManualClock)
        gateway.clock.advance(60)
    assert [(0.5, 2), (0.75, 3)] * 2 == [(event.share, event.used) for event in told(gateway, QuotaThreshold)]
    exceeded = told(gateway, QuotaExceeded)
    assert [4, 4] == [event.used for event in exceeded]
    assert ("4 requests per minute", "requests", "minute", "token `all`", "all", 60.0) == (
        exceeded[0].limit,
        exceeded[0].metric,
        exceeded[0].per,
        exceeded[0].scope,
        exceeded[0].token,
        exceeded[0].reset_seconds,
    )


async def test_the_price_of_a_request_without_tokens_counts_as_money() -> None:
    prices = [{"model": "up/m", "input_usd": 0, "output_usd": 0, "request_usd": 0.4}]
    gateway = plane(prices=prices, **limited({"usd": 1, "per": "month"}))
    image = {"model": "m", "prompt": "a cat"}
    assert [200, 200, 429] == [(await gateway.post(image, "/v1/images/generations")).status for _ in range(3)]


async def test_money_has_thresholds_by_another_name() -> None:
    prices = [{"model": "up/*", "input_usd": 0, "output_usd": 10}]
    gateway = plane(**limited({"usd": 0.001, "per": "month"}), prices=prices)
    await gateway.post(BODY)
    (event,) = told(gateway, BudgetThreshold)
    assert (0.8, 1_000_000, 1_000_000) == (event.share, event.used, event.amount)


def test_what_was_told_takes_a_bounded_place() -> None:
    heard: list[Event] = []
    news = LimitNews(heard.append)
    token = plane().plane.tokens.find(TOKEN)
    assert token is not None
    counters = Counters()
    for number in range(10_100):
        scope = Scope(((ScopeKind.MODEL, f"m{number}"),))
        limits = Limits([limit(parse_terms({"requests": 1, "per": "day", "shadow": True}), scope)])
        for _ in range(2):
            lease = counters.admit(limits, ONE, 1_700_000_000_000)
            assert isinstance(lease, Lease)
            if lease.notable:
                assert news.admitted(lease, token)
    assert 10_100 == len(heard)
    assert len(news._told) <= 10_000


async def test_a_limit_of_a_provider_makes_the_next_target_serve() -> None:
    one, other = Provider("one", [answer(REPLY)]), Provider("other", [answer(REPLY)])
    gateway = plane(
        one,
        other,
        limits=[{**ONE_A_MINUTE, "match": {"provider": "one"}}],
        routes=[{"name": "r", "targets": ["one/m"], "fallbacks": [["other/m"]]}],
    )
    targets = [(await gateway.post(BODY)).field("x-sluice-target") for _ in range(3)]
    assert ["one/m", "other/m", "other/m"] == targets
    assert (1, 2) == (len(one.requests), len(other.requests))
    assert ["1 one/m: target_limited, delivered no: fallback"] * 2 == gateway.attempts
    # It was our own limit: nothing is wrong with the target.
    assert () == tuple(gateway.cooldowns.current(gateway.clock.monotonic()))


async def test_a_limit_of_a_credential_makes_the_next_credential_serve() -> None:
    up = Provider("up", [answer(REPLY)])
    keys = [{"name": "a", "api_key": "key-a-key-a", "limits": [ONE_A_MINUTE]}, {"name": "b", "api_key": "key-b-key-b"}]
    gateway = plane(
        up,
        providers=[
            {
                "name": "up",
                "type": "openai-compatible",
                "base_url": "http://up.test/v1",
                "models": ["*"],
                "credentials": keys,
            }
        ],
    )
    for _ in range(3):
        assert 200 == (await gateway.post(BODY)).status
    sent = [each.headers.get("authorization") for each in up.requests]
    assert ["Bearer key-a-key-a", "Bearer key-b-key-b", "Bearer key-b-key-b"] == sent


async def test_where_every_target_is_held_back_the_soonest_is_told() -> None:
    one, other = Provider("one", [answer(REPLY)]), Provider("other", [answer(REPLY)])
    gateway = plane(
        one,
        other,
        limits=[
            {"requests": 1, "per": "day", "match": {"provider": "one"}},
            {"requests": 1, "per": "hour", "match": {"provider": "other"}},
        ],
        routes=[{"name": "r", "targets": ["one/m", "other/m"]}],
    )
    for _ in range(2):
        assert 200 == (await gateway.post(BODY)).status
    refused = await gateway.post(BODY)
    assert (429, "3600", "rate_limit_exceeded", {}) == (
        refused.status,
        refused.field("retry-after"),
        refused.json()["error"]["code"],
        fields(refused),
    )


@pytest.mark.parametrize(("status", "expected"), [(500, 1), (429, 2), (400, 1)])
async def test_what_may_have_reached_a_provider_counts_there(status: int, expected: int) -> None:
    up = Provider("up", [answer(b"{}", status=status), answer(REPLY)])
    gateway = plane(
        up,
        limits=[{"requests": 1, "per": "day", "match": {"provider": "up"}}],
        routes=[{"name": "r", "targets": ["up/m"], "retry": {"attempts": 1}, "cooldown": {"after_failures": 99}}],
    )
    await gateway.post(BODY)
    gateway.cooldowns.restore("up", "m")
    await gateway.post(BODY)
    assert expected == len(up.requests)


async def test_several_limits_are_all_or_nothing() -> None:
    gateway = plane(
        **limited({"requests": 9, "per": "minute"}, owner="alice"),
        limits=[
            {"requests": 2, "per": "minute", "each": ["owner"]},
            {"requests": 8, "per": "minute", "match": {"model": "m", "path": "/v1/chat/*"}},
        ],
    )
    statuses = [(await gateway.post(BODY)).status for _ in range(4)]
    assert [200, 200, 429, 429] == statuses
    refused = await gateway.post(BODY)
    assert "2 requests per minute for its owner" in refused.json()["error"]["message"]
    # Refused requests count nowhere.
    other = await gateway.post({"model": "n"})
    assert 429 == other.status
    assert ("2", "0") == (fields(other)["limit-requests"], fields(other)["remaining-requests"])


class Away:
    """A store that cannot be asked."""

    def decide(self, limits: Limits, charges: Amounts) -> Admission:
        return Unavailable(1.0)

    async def admit(self, limits: Limits, charges: Amounts) -> Admission:
        raise AssertionError("decide has told it")

    def settle(self, lease: Lease, actual: Amounts) -> None:
        raise AssertionError("there is no lease")

    release = settle

    async def start(self) -> None:
        pass

    close = start


async def test_where_nobody_can_tell_the_request_is_refused_for_a_moment() -> None:
    for document, attempts in ((limited(ONE_A_MINUTE), 0), ({"limits": [{**ONE_A_MINUTE, "each": ["provider"]}]}, 1)):
        gateway = plane(store=Away(), **document)
        refused = await gateway.post(BODY)
        assert (503, "quotas_unavailable", "1") == (
            refused.status,
            refused.json()["error"]["code"],
            refused.field("retry-after"),
        )
        assert (attempts, 1) == (len(gateway.attempts), gateway.counted.decisions["unavailable"].total)
