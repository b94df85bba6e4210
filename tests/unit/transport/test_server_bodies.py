"""Request bodies: early answers, what holds them back, and delegates that fail."""

import asyncio
from collections.abc import Awaitable

import pytest
from tornado.httputil import HTTPInputError

from tests.clock_by_hand import ClockByHand
from tests.conftest import ExpectLog
from tests.wire import Door, Request, Wire, answer_nothing
from transport import server

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class TooLarge(Request):
    """Answered with 413 as soon as some of its body comes."""

    given = 0

    def data_received(self, chunk: bytes) -> None:
        self.given += len(chunk)
        self.connection.start_answer(413, [], b"no", complete=True)


def post(body: bytes, *more: bytes) -> bytes:
    head = [b"POST /p HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_an_answer_may_come_before_the_body_and_keep_the_connection(wire: Wire) -> None:
    class Early(Request):
        def headers_received(self, start_line: object, headers: object) -> None:
            super().headers_received(start_line, headers)  # type: ignore[arg-type]  # as they are
            self.connection.start_answer(413, [], b"no", complete=True)

    door = Door(kind=Early)
    await wire.serve(door)
    client = await wire.client()
    for body in (b"", b"hello"):
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        for request in (post(body), chunked):
            client.send(request[:-3])
            await asyncio.sleep(0.005)
            client.send(request[-3:])
            answer = await client.answer()
            assert 413 == answer.status
            assert "connection" not in answer.headers
    await wire.until(lambda: [["head", "close"]] * 4 == [request.calls for request in door.requests])


async def test_a_body_that_goes_on_after_the_answer_is_dropped_for_a_while_without_a_reset(
    wire: Wire, by_hand: ClockByHand
) -> None:
    door = Door(kind=TooLarge)
    await wire.serve(door)
    client = await wire.client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"x" * 100_000)
    assert 413 == (await client.answer()).status
    client.send(b"x" * 100_000)
    (request,) = door.requests
    assert isinstance(request, TooLarge)
    await wire.until(lambda: request.given + wire.connections[0]._dropped == 200_000)
    by_hand.pass_on(server._LINGER_SECONDS)
    assert b"" == await client.rest()


async def test_a_body_that_goes_on_and_on_after_the_answer_closes_the_connection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transport.server._LINGER_BYTES", 300_000)

    await wire.serve(Door(kind=TooLarge))
    client = await wire.client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"x" * 100_000)
    assert 413 == (await client.answer()).status
    client.send(b"x" * 1_000_000)
    await wire.until(lambda: len(wire.over) == 1)


async def test_a_client_that_expects_continue_gets_it_when_the_body_is_wanted(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    for expect in (b"100-continue", b"100-Continue"):
        client.send(post(b"hello", b"Expect: " + expect)[:-5])
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == await client.reader.readuntil(b"\r\n\r\n")
        client.send(b"hello")
        assert b"POST /p hello" == (await client.answer()).body


async def test_no_continue_when_the_body_is_there_already_or_none_comes(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    client.send(post(b"hello", b"Expect: 100-continue"), post(b"", b"Expect: 100-continue"))
    assert [200, 200] == [(await client.answer()).status for _ in range(2)]


async def test_a_refused_client_that_expected_continue_must_not_reuse_the_connection(wire: Wire) -> None:
    class Early(Request):
        def headers_received(self, start_line: object, headers: object) -> None:
            super().headers_received(start_line, headers)  # type: ignore[arg-type]  # as they are
            asyncio.get_running_loop().call_soon(lambda: self.connection.start_answer(401, [], b"no", complete=True))

    await wire.serve(Door(kind=Early))
    client = await wire.client()
    client.send(post(b"hello", b"Expect: 100-continue")[:-5])
    answer = await client.answer()
    assert 401 == answer.status
    assert "close" == answer.headers["connection"]
    assert b"" == await client.rest()


async def test_futures_of_the_body_hold_it_back(wire: Wire) -> None:
    gates: list[asyncio.Future[None]] = []

    class Slow(Request):
        def headers_received(self, start_line: object, headers: object) -> asyncio.Future[None]:
            super().headers_received(start_line, headers)  # type: ignore[arg-type]  # as they are
            return self.gate()

        def data_received(self, chunk: bytes) -> asyncio.Future[None]:
            super().data_received(chunk)
            return self.gate()

        def gate(self) -> asyncio.Future[None]:
            gates.append(asyncio.get_running_loop().create_future())
            return gates[-1]

    door = Door(kind=Slow)
    await wire.serve(door)
    client = await wire.client()
    client.send(post(b"hello")[:-2])
    request = await door.request()
    await asyncio.sleep(0.02)
    assert ["head"] == request.calls
    gates[0].set_result(None)
    await wire.until(lambda: len(gates) == 2)
    client.send(b"lo" + GET)
    await asyncio.sleep(0.02)
    assert b"hel" == request.body
    gates[1].set_result(None)
    await wire.until(lambda: len(gates) == 3)
    assert ["head", "data", "data"] == request.calls
    gates[2].set_result(None)
    assert b"POST /p hello" == (await client.answer()).body
    await wire.until(lambda: len(gates) == 4)
    gates[3].set_result(None)
    assert b"GET / " == (await client.answer()).body


async def test_coroutines_of_the_body_hold_it_back_too(wire: Wire) -> None:
    class Slow(Request):
        async def data_received(self, chunk: bytes) -> None:
            await asyncio.sleep(0.01)
            self.body += chunk

    await wire.serve(Door(kind=Slow))
    client = await wire.client()
    client.send(post(b"hello"))
    assert b"POST /p hello" == (await client.answer()).body


async def test_a_paused_body_waits_at_the_client(wire: Wire, by_hand: ClockByHand) -> None:
    class Paused(Request):
        def data_received(self, chunk: bytes) -> None:
            super().data_received(chunk)
            self.connection.pause_body()

    door = Door(kind=Paused)
    await wire.serve(door, body_idle_seconds=10)
    client = await wire.client()
    body = b"x" * 8_000_000
    client.send(post(body))
    request = await door.request()
    # Longer than the client's clock: it is not the client that pauses.
    by_hand.pass_on(30)
    await asyncio.sleep(0.3)
    assert len(request.body) <= 1 << 20
    while not request.ended.is_set():
        request.connection.resume_body()
        await asyncio.sleep(0)
    assert body == request.body
    # It was paused at the last piece: nobody waits for the body any more.
    request.connection.resume_body()
    assert 200 == (await client.answer()).status


async def test_a_failing_delegate_is_answered_with_500_and_logged(wire: Wire, expect_log: ExpectLog) -> None:
    def act(request: Request) -> None:
        raise KeyError("planned")

    door = Door(act)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    with expect_log("planned"):
        answer = await client.answer()
    assert 500 == answer.status
    assert b"internal_error" in answer.body
    assert b"planned" not in answer.body
    assert b"" == await client.rest()
    assert ["head", "finish", "close"] == door.requests[0].calls


async def test_a_delegate_that_fails_inside_its_answer_cuts_it(wire: Wire, expect_log: ExpectLog) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [], b"beginning", complete=False)
        raise KeyError("planned")

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    with expect_log("planned"), pytest.raises(asyncio.IncompleteReadError):
        await client.answer()


@pytest.mark.parametrize("where", ["headers_received", "data_received", "later"])
async def test_what_a_delegate_calls_malformed_is_answered_with_400(wire: Wire, where: str) -> None:
    class Picky(Request):
        def headers_received(self, start_line: object, headers: object) -> None:
            super().headers_received(start_line, headers)  # type: ignore[arg-type]  # as they are
            if where == "headers_received":
                raise HTTPInputError("I do not like it")

        def data_received(self, chunk: bytes) -> Awaitable[None]:
            if where == "later":
                return self.later()
            raise HTTPInputError("I do not like it")

        async def later(self) -> None:
            await asyncio.sleep(0)
            raise HTTPInputError("I do not like it")

    door = Door(kind=Picky)
    await wire.serve(door)
    answer = await wire.exchange(post(b"hello"))
    assert 400 == answer.status
    assert b"I do not like it" in answer.body
    assert "close" == answer.headers["connection"]
    assert ["head", "close"] == door.requests[0].calls


async def test_a_handlers_own_limit_of_the_body(wire: Wire) -> None:
    class Limited(Request):
        def headers_received(self, start_line: object, headers: object) -> None:
            super().headers_received(start_line, headers)  # type: ignore[arg-type]  # as they are
            self.connection.set_max_body_size(4)

    await wire.serve(Door(kind=Limited))
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert 200 == (await wire.exchange(post(b"1234"))).status
    assert 413 == (await wire.exchange(post(b"12345")[:-5])).status
    assert 200 == (await wire.exchange(chunked + b"2\r\n12\r\n2\r\n34\r\n0\r\n\r\n")).status
    assert 413 == (await wire.exchange(chunked + b"2\r\n12\r\n3\r\n345\r\n")).status


async def test_a_malformed_body_behind_the_answer_closes_the_connection(wire: Wire) -> None:
    await wire.serve(Door(kind=TooLarge))
    client = await wire.client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
    assert 413 == (await client.answer()).status
    client.send(b"nonsense", GET)
    assert b"" == await client.rest()


async def test_what_comes_behind_a_refused_request_is_dropped_without_a_reset(wire: Wire) -> None:
    door = Door()
    await wire.serve(door)
    client = await wire.client()
    client.send(b"nonsense\r\n\r\n", GET, b"x" * 1_000_000)
    await asyncio.sleep(0.02)
    client.send(b"x" * 1_000_000)
    answer = await client.answer()
    assert 400 == answer.status
    assert "close" == answer.headers["connection"]
    assert b"" == await client.rest()
    assert [] == door.requests


async def test_a_refused_head_request_has_no_body(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    client.send(b"HEAD / HTTP/1.1\r\n\r\n")
    assert (await client.rest()).endswith(b"\r\n\r\n")


async def test_an_early_answer_to_http_1_0_ends_at_once(wire: Wire) -> None:
    class Early(Request):
        def data_received(self, chunk: bytes) -> None:
            self.connection.start_answer(413, [], b"no", complete=False)
            self.connection.finish()

    await wire.serve(Door(kind=Early))
    assert b"no" == (await wire.exchange(b"POST / HTTP/1.0\r\nContent-Length: 9\r\n\r\nx")).body


async def test_a_delegate_that_fails_when_its_client_goes_is_logged(wire: Wire, expect_log: ExpectLog) -> None:
    class Fragile(Request):
        def on_connection_close(self) -> None:
            raise KeyError("planned")

    door = Door(answer_nothing, Fragile)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    await (await door.request()).ended.wait()
    with expect_log("planned"):
        await client.close()
        await wire.until(lambda: bool(wire.over))


async def test_a_delegate_that_fails_behind_its_answer_is_logged_and_no_more(wire: Wire, expect_log: ExpectLog) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [("connection", "close")], b"fine", complete=True)
        raise KeyError("planned")

    await wire.serve(Door(act))
    client = await wire.client()
    with expect_log("planned"):
        client.send(GET)
        assert b"fine" == (await client.answer()).body
    assert b"" == await client.rest()


@pytest.mark.parametrize("how", ["cancelled", "finish", "stalled"])
async def test_delegates_that_fail_later(wire: Wire, expect_log: ExpectLog, how: str) -> None:
    class Fragile(Request):
        def data_received(self, chunk: bytes) -> Awaitable[None] | None:
            later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(later.cancel if how == "cancelled" else lambda: later.set_result(None))
            return later

        def finish(self) -> None:
            raise KeyError("planned")

        def body_stalled(self) -> None:
            raise KeyError("planned")

    await wire.serve(Door(kind=Fragile), body_idle_seconds=0.05)
    with expect_log("a handler failed"):
        assert 500 == (await wire.exchange(post(b"x") if how != "stalled" else post(b"xy")[:-1])).status


async def test_an_answer_inside_a_future_that_holds_the_body(wire: Wire) -> None:
    class Refusing(Request):
        def headers_received(self, start_line: object, headers: object) -> Awaitable[None]:
            return asyncio.ensure_future(self.refuse())

        async def refuse(self) -> None:
            await asyncio.sleep(0)
            self.connection.start_answer(403, [], b"no", complete=True)

    await wire.serve(Door(kind=Refusing))
    client = await wire.client()
    for _ in range(2):
        client.send(post(b"hello"))
        assert 403 == (await client.answer()).status
