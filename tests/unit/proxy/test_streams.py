"""Streams under way: passed on event by event, and honest about their end, whoever brings it about."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from core.events import RequestCompleted, RequestFailed
from core.headers import Headers
from core.usage import Usage
from proxy.sse import event_data
from tests.exchange import DONE, JSON, SSE, MemoryExchange, Plane, Provider, answer, authorized, request, stream, until
from transport.messages import UpstreamRequest
from transport.script import Cut, Head, Script, Send, Stall, Step, Wait

ONE = b'data: {"model":"gpt-9","choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
TWO = b'data: {"model":"gpt-9","choices":[{"delta":{"content":"b"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}\n\n'
ASKED = {"model": "m", "stream": True}
ALIAS = [{"from": "fast", "to": "up/gpt-9"}]


async def test_events_pass_one_by_one_as_they_come() -> None:
    gateway = Plane(Provider("up", [stream(b": hi\n\n" + ONE, TWO[:9], TWO[9:], STOP, USAGE, DONE)]))
    exchange = await gateway.post(ASKED)
    assert [b": hi\n\n" + ONE, TWO, STOP, USAGE, DONE] == exchange.pieces
    assert ["start 200", "write", "write", "write", "write", "finish"] == exchange.transcript
    assert "text/event-stream" == exchange.field("content-type")
    told = gateway.record
    assert isinstance(told, RequestCompleted)
    assert Usage(5, 2, 1) == told.usage
    assert told.stream


async def test_comments_wait_for_the_first_output_and_go_with_it() -> None:
    gateway = Plane(Provider("up", [stream(b": hold\n\n", b"event: ping\n\n", ONE, DONE)]))
    exchange = await gateway.post(ASKED)
    assert [b": hold\n\nevent: ping\n\n" + ONE, DONE] == exchange.pieces


async def test_a_flood_of_comments_is_not_held_for_ever() -> None:
    comment = b":" + b"x" * 40_000 + b"\n\n"
    gateway = Plane(Provider("up", [stream(comment, comment, ONE, DONE)]))
    assert [comment + comment, ONE, DONE] == (await gateway.post(ASKED)).pieces


async def test_a_stream_of_one_event_without_its_blank_line_is_complete() -> None:
    gateway = Plane(Provider("up", [stream(b"data: [DONE]")]))
    assert [b"data: [DONE]"] == (await gateway.post(ASKED)).pieces
    assert "request.completed" == gateway.record.name


async def test_an_alias_is_shown_in_every_event() -> None:
    gateway = Plane(Provider("up", [stream(ONE, TWO, DONE)]), model_aliases=ALIAS)
    exchange = await gateway.post({"model": "fast", "stream": True})
    assert (ONE + TWO + DONE).replace(b'"gpt-9"', b'"fast"') == exchange.body


# How a stream may end: the steps after its first event, what the client gets after that, and what is recorded.

ENDINGS: dict[str, tuple[tuple[bytes | Step, ...], list[bytes], str | None]] = {
    "with [DONE]": ((STOP, DONE), [STOP, DONE], None),
    "with [DONE] that lacks its blank line": ((STOP, b"data: [DONE]"), [STOP, b"data: [DONE]"], None),
    "with a reason to stop alone": ((STOP,), [STOP], None),
    "cut after [DONE]": ((DONE, Cut()), [DONE], None),
    "open after [DONE]": ((DONE, Stall()), [DONE], None),
    "politely in the middle": ((TWO,), [TWO, b"!upstream_disconnected"], "upstream_disconnected"),
    "politely within an event": ((TWO[:20],), [b"!upstream_disconnected"], "upstream_disconnected"),
    "cut in the middle": ((TWO, Cut()), [TWO, b"!upstream_disconnected"], "upstream_disconnected"),
    "cut within an event": ((TWO[:-1], Cut()), [b"!upstream_disconnected"], "upstream_disconnected"),
    "cut after a reason to stop": ((STOP, Cut()), [STOP, b"!upstream_disconnected"], "upstream_disconnected"),
    "stalled": ((Stall(),), [b"!upstream_timeout"], "upstream_timeout"),
    "with the provider's error": (
        (b'data: {"error":{"message":"boom"}}\n\n',),
        [b'data: {"error":{"message":"boom"}}\n\n'],
        "upstream_error",
    ),
    "with the provider's error and [DONE]": (
        (b'data: {"error":"boom"}\n\n', DONE),
        [b'data: {"error":"boom"}\n\n', DONE],
        "upstream_error",
    ),
    "with the provider's error and a cut": (
        (b'event: error\ndata: {"message":"boom"}\n\n', Cut()),
        [b'event: error\ndata: {"message":"boom"}\n\n'],
        "upstream_disconnected",
    ),
    "with no error though it looks so": (
        (b'data: {"error":null,"choices":[{"content_filter_results":{"error":{"code":"x"}}}]}\n\n', DONE),
        [b'data: {"error":null,"choices":[{"content_filter_results":{"error":{"code":"x"}}}]}\n\n', DONE],
        None,
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
async def test_a_stream_ends_for_the_client_as_it_ended_for_the_gateway(case: str) -> None:
    steps, expected, code = ENDINGS[case]
    gateway = Plane(
        Provider("up", [stream(ONE, *steps)]),
        routes=[{"name": "r", "targets": ["up/m"], "timeouts": {"idle_seconds": 0.03}}],
    )
    exchange = await gateway.post(ASKED)
    got = exchange.pieces[1:]
    if expected and expected[-1].startswith(b"!"):
        # An error event of the gateway's own stands alone and comes last.
        last = got.pop()
        data = event_data(last, 0, len(last))
        assert data is not None
        assert last == b"data: " + data + b"\n\n"
        assert expected[-1][1:] in data
        assert b"[DONE]" not in exchange.body
        expected = expected[:-1]
    assert expected == got
    assert (200, "finish") == (exchange.status, exchange.ended)
    assert (200, code) == (gateway.record.status, gateway.record.error_code)
    assert (RequestCompleted if code is None else RequestFailed) is type(gateway.record)


CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"model":"gpt-9","error":null}}\n\n'
COMPLETED = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"model":"gpt-9","usage":'
    b'{"input_tokens":3,"output_tokens":1,"input_tokens_details":{"cached_tokens":2}}}}\n\n'
)
FAILED = b'data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"boom"}}}\n\n'


async def test_a_stream_of_a_response_is_complete_with_its_last_event() -> None:
    gateway = Plane(Provider("up", [stream(CREATED, COMPLETED, Cut())]), model_aliases=ALIAS)
    exchange = await gateway.post({"model": "fast", "stream": True}, "/v1/responses")
    assert [each.replace(b"gpt-9", b"fast") for each in (CREATED, COMPLETED)] == exchange.pieces
    assert ("request.completed", Usage(3, 1, 2)) == (gateway.record.name, gateway.record.usage)


async def test_a_response_that_failed_by_its_own_word_is_recorded_so() -> None:
    gateway = Plane(Provider("up", [stream(CREATED, FAILED)]))
    exchange = await gateway.post(ASKED, "/v1/responses")
    assert [CREATED, FAILED] == exchange.pieces
    told = gateway.record
    assert ("request.failed", "upstream_error") == (told.name, told.error_code)
    assert "the provider answered with an error: boom" == told.error_message


async def test_a_response_that_is_cut_is_told_in_its_own_dialect() -> None:
    gateway = Plane(Provider("up", [stream(CREATED, Cut())]))
    exchange = await gateway.post(ASKED, "/v1/responses")
    assert exchange.pieces[1].startswith(b'event: error\ndata: {"type":"error","code":"upstream_disconnected",')


async def test_streams_of_other_families_may_end_anywhere() -> None:
    gateway = Plane(Provider("up", [stream(b"data: 1\n\n", b"data: tail")]))
    exchange = await gateway.post({"model": "m"}, "/v1/audio/speech")
    assert [b"data: 1\n\n", b"data: tail"] == exchange.pieces
    assert "request.completed" == gateway.record.name


async def test_an_event_over_1_mib_is_passed_on_before_its_end() -> None:
    pieces = [b'data: {"x":"' + b"y" * (1 << 20), b"z" * 1000, b'"}\n\n' + TWO, DONE]
    gateway = Plane(Provider("up", [stream(ONE, *pieces)]))
    exchange = await gateway.post(ASKED)
    assert ONE + b"".join(pieces) == exchange.body
    assert "request.completed" == gateway.record.name


async def test_the_error_of_a_stream_that_breaks_within_a_large_event_stands_alone() -> None:
    gateway = Plane(Provider("up", [stream(ONE, b'data: {"x":"' + b"y" * (1 << 20), b"z", Cut())]))
    exchange = await gateway.post(ASKED)
    assert exchange.pieces[-1].startswith(b'\n\ndata: {"error":{')


async def test_a_first_event_of_any_length_passes_whole() -> None:
    large = b'data: {"x":"' + b"y" * 300_000 + b'"}\n\n'
    exchange = await Plane(Provider("up", [stream(large, DONE)])).post(ASKED)
    assert (["start 200", "write", "finish"], large + DONE) == (exchange.transcript, exchange.body)


# The client goes


def hanging(*steps: Step | bytes) -> Provider:
    return Provider("up", [stream(*steps, Stall())])


STAGES: dict[str, tuple[Provider, MemoryExchange, Callable[[MemoryExchange, Provider], bool], int]] = {
    "while it sends its body": (
        hanging(ONE),
        request(body=b'{"model":', stall_seconds=60),
        lambda exchange, _: exchange.bytes_in > 0,
        499,
    ),
    "before the head of the answer": (
        Provider("up", [(Stall(),)]),
        request(),
        lambda _, provider: bool(provider.requests),
        499,
    ),
    "before the first output": (
        hanging(b": hi\n\n"),
        request(),
        lambda _, provider: bool(provider.requests),
        499,
    ),
    "within a whole answer": (
        Provider("up", [(Head(200, Headers(JSON)), Send(b"{"), Stall())]),
        request(),
        lambda _, provider: bool(provider.requests),
        499,
    ),
    "within a stream": (
        hanging(ONE, TWO),
        request(),
        lambda exchange, _: len(exchange.pieces) == 2,
        200,
    ),
    "within a body that is no stream": (
        Provider("up", [(Head(200), Send(b"a"), Send(b"b"), Stall())]),
        request("/v1/audio/speech"),
        lambda exchange, _: len(exchange.pieces) == 2,
        200,
    ),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_a_client_that_goes_ends_the_exchange_and_is_recorded(stage: str) -> None:
    provider, exchange, reached, status = STAGES[stage]
    gateway = Plane(provider)
    task = gateway.begin(exchange)
    await until(lambda: reached(exchange, provider))
    await asyncio.sleep(0.01)
    exchange.leave()
    await task
    told = gateway.record
    assert ("request.failed", "client_closed", status) == (told.name, told.error_code, told.status)
    assert exchange.ended not in ("finish", "abort")
    assert [] == gateway.attempts


async def test_a_client_that_goes_closes_the_providers_answer() -> None:
    closed: list[bool] = []
    gateway = Plane(hanging(ONE))
    client = gateway.plane.providers["up"].client
    send = client.send

    async def watched(asked: UpstreamRequest) -> object:
        answered = await send(asked)
        line = answered._line  # type: ignore[attr-defined]
        task.add_done_callback(lambda _: closed.append(line.down))
        return answered

    client.send = watched  # type: ignore[method-assign,assignment]
    exchange = request()
    task = gateway.begin(exchange)
    await exchange.sent.wait()
    exchange.leave()
    await task
    await asyncio.sleep(0)
    assert [True] == closed


@pytest.mark.parametrize(
    "provider",
    [
        Provider("up", [stream(ONE, TWO, DONE)]),
        Provider("up", [answer(b'"' + b"x" * 300_000 + b'"')]),
        Provider("up", [(Head(200, Headers([("content-type", "audio/mpeg")])), Send(b"a"), Send(b"b"))]),
    ],
    ids=["stream", "large", "opaque"],
)
async def test_a_client_that_takes_nothing_is_cut_and_recorded(provider: Provider) -> None:
    gateway = Plane(provider)
    exchange = request()
    exchange.gives_up = True
    await gateway.run(exchange)
    assert ["start 200", "abort"] == [done for done in exchange.transcript if done != "write"]
    assert ("request.failed", "client_closed", 200) == (
        gateway.record.name,
        gateway.record.error_code,
        gateway.record.status,
    )


async def test_a_slow_client_holds_the_provider_back() -> None:
    taken: list[int] = []

    def counting(_request: UpstreamRequest) -> Script:
        def steps() -> Iterator[Step]:
            yield Head(200, Headers(SSE))
            for number in range(1000):
                taken.append(number)
                yield Send(ONE)
            yield Send(DONE)

        return Script(steps())

    gateway = Plane(Provider("up", [counting]))
    exchange = request()
    exchange.takes.clear()
    task = gateway.begin(exchange)
    await asyncio.sleep(0.02)
    assert len(taken) <= 3
    exchange.takes.set()
    await task
    assert 1000 == len(taken)


# Shutdown: the task is cancelled while the client is there


async def cancelled(gateway: Plane, exchange: MemoryExchange, ready: Callable[[], object]) -> None:
    task = gateway.begin(exchange)
    async with asyncio.timeout(60):
        await until(ready)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ("request.failed", "gateway_draining") == (gateway.record.name, gateway.record.error_code)


async def test_a_stream_that_outlasts_the_drain_is_told_so() -> None:
    gateway, exchange = Plane(hanging(ONE, TWO[:30])), request()
    await cancelled(gateway, exchange, exchange.sent.is_set)
    assert [ONE, 200, "finish"] == [exchange.pieces[0], exchange.status, exchange.ended]
    assert b'"code":"gateway_draining"' in exchange.pieces[1]
    assert 2 == len(exchange.pieces)


async def test_a_stream_that_was_complete_at_the_end_of_the_drain_ends_well() -> None:
    gateway, exchange = Plane(hanging(ONE, DONE)), request()
    task = gateway.begin(exchange)
    await until(lambda: len(exchange.pieces) == 2)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ([ONE, DONE], "finish") == (exchange.pieces, exchange.ended)
    assert "request.completed" == gateway.record.name


async def test_a_body_that_is_no_stream_is_cut_at_the_end_of_the_drain() -> None:
    provider = Provider("up", [(Head(200), Send(b"a"), Stall())])
    gateway, exchange = Plane(provider), request("/v1/audio/speech")
    await cancelled(gateway, exchange, exchange.sent.is_set)
    assert ([b"a"], "abort") == (exchange.pieces, exchange.ended)


async def test_a_large_answer_that_the_client_takes_slowly_is_cut_at_the_end_of_the_drain() -> None:
    gateway, exchange = Plane(Provider("up", [answer(b'"' + b"x" * 300_000 + b'"')])), request()
    exchange.takes.clear()
    await cancelled(gateway, exchange, lambda: exchange.pieces)
    assert (["start 200", "abort"], 200) == (exchange.transcript, gateway.record.status)


async def test_a_request_without_output_is_refused_at_the_end_of_the_drain() -> None:
    provider = Provider("up", [(Wait(60), *answer(b"{}"))])
    gateway, exchange = Plane(provider), request()
    await cancelled(gateway, exchange, lambda: bool(provider.requests))
    assert (503, "gateway_draining") == (exchange.status, exchange.json()["error"]["code"])


async def test_a_client_that_takes_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.delivery.FAREWELL_SECONDS", 0.02)
    gateway, exchange = Plane(hanging(ONE, TWO)), request()
    exchange.takes.clear()
    task = gateway.begin(exchange)
    async with asyncio.timeout(60):
        await exchange.sent.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "gateway_draining" == gateway.record.error_code
    assert "abort" == exchange.ended


async def test_an_error_after_the_head_that_nobody_foresaw_cuts_the_answer(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., object]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("proxy.answer.Answer.deliver", broken)
    gateway = Plane(Provider("up", [stream(ONE, DONE)]))
    exchange = MemoryExchange("POST", "/v1/chat/completions", authorized(JSON), b'{"model":"m"}')
    with expect_log("unforeseen"):  # type: ignore[attr-defined]
        await gateway.run(exchange)
    assert ([ONE], "abort") == (exchange.pieces, exchange.ended)
    assert "internal_error" == gateway.record.error_code


async def test_a_flood_of_small_comments_costs_no_more_than_its_bytes() -> None:
    async def flood(count: int) -> float:
        """The time of this thread alone: what other processes take of it is not counted."""
        comment = b":\n\n"
        gateway = Plane(Provider("up", [stream(*(comment for _ in range(count)), DONE)]))
        began = time.thread_time()
        assert comment * count + DONE == (await gateway.post(ASKED)).body
        return time.thread_time() - began

    few = min([await flood(750) for _ in range(3)])
    # Twenty times as many, not four hundred.
    assert await flood(15_000) < 100 * few


async def test_a_json_answer_that_only_its_connection_delimits_is_cut_where_it_is_not_whole() -> None:
    half = (
        Head(200, Headers([("content-type", "application/json")])),
        Send(b'{"choices":[{"message":{"content":"half of'),
    )
    whole = (Head(200, Headers([("content-type", "application/json")])), Send(b'{"choices":[]}'))
    assert 200 == (await Plane(Provider("up", [half, whole])).post({"model": "m"})).status
    exchange = await Plane(Provider("up", [half])).post({"model": "m"})
    assert (502, "upstream_disconnected") == (exchange.status, exchange.json()["error"]["code"])
