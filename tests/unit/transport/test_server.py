"""Exchanges on one connection: order, framing, persistence, early answers, and who is told what."""

import asyncio
import re
import socket
from collections.abc import Awaitable

import pytest
from tornado.httputil import HTTPHeaders, HTTPInputError, HTTPOutputError, ResponseStartLine

from tests.conftest import ExpectLog
from tests.wire import Door, Request, Wire, answer_nothing, answer_ok
from transport.server import ServerConnection

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, *more: bytes) -> bytes:
    head = [b"POST /p HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_a_request_and_its_answer(wire: Wire) -> None:
    door = Door()
    await wire.serve(door)
    answer = await wire.exchange(post(b"hello", b"X-Name:  value "))
    assert 200 == answer.status
    assert b"POST /p hello" == answer.body
    assert "13" == answer.headers["content-length"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.headers["date"])
    assert "connection" not in answer.headers
    [request] = door.requests
    assert ["head", "data", "finish"] == request.calls
    assert ("x-name", "value") in tuple(request.headers.fields)
    assert "127.0.0.1" == request.connection.context.remote_ip == str(request.connection.context)
    assert "http" == request.connection.context.protocol


async def test_a_request_may_come_byte_by_byte(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    for byte in post(b"hello"):
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert b"POST /p hello" == (await client.answer()).body


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(*(post(b"%d" % number) for number in range(3)))
    for number in range(3):
        request = await door.request(number)
        await asyncio.sleep(0.02)
        assert number + 1 == len(door.requests)
        answer_ok(request)
    assert [b"POST /p 0", b"POST /p 1", b"POST /p 2"] == [(await client.answer()).body for _ in range(3)]


async def test_a_thousand_pipelined_requests_are_no_recursion(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    client.send(GET * 1000)
    for _ in range(1000):
        assert 200 == (await client.answer()).status


async def test_too_much_behind_an_unanswered_request_closes_the_connection(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    request = await door.request()
    client.send(GET * 4000)
    await client.lost()
    assert ["head", "finish", "close"] == request.calls


async def test_empty_lines_before_a_request_are_skipped(wire: Wire) -> None:
    await wire.serve(Door())
    client = await wire.client()
    for piece in (b"\r\n\r\n" + GET, b"\r", b"\n", b"\r\n", GET):
        client.send(piece)
        await asyncio.sleep(0.005)
    assert [200, 200] == [(await client.answer()).status for _ in range(2)]


@pytest.mark.parametrize("how", ["callback", "close"])
async def test_a_client_that_goes_is_told_to_the_one_who_answers(wire: Wire, how: str) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(post(b"x"))
    request = await door.request()
    await request.ended.wait()
    if how == "callback":
        request.connection.set_close_callback(lambda: request.calls.append("callback"))
    await client.close()
    await wire.until(lambda: request.connection.closed)
    assert ["head", "data", "finish", how] == request.calls
    # Nothing of this reaches anybody, and nothing is raised.
    request.connection.start_answer(200, [], b"x", complete=False)
    request.connection.send(b"y")
    with pytest.raises(ConnectionError):
        await request.connection.drained()
    request.connection.finish()
    request.connection.cut()


async def test_a_client_that_goes_inside_its_body(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(post(b"hello")[:-2])
    request = await door.request()
    await client.close()
    await request.ended.wait()
    assert ["head", "data", "close"] == request.calls
    await wire.until(lambda: door.closed == 1)


async def test_a_client_that_closes_its_half_has_gone_with_all_that_it_pipelined(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET + GET)
    request = await door.request()
    client.writer.write_eof()
    assert b"" == await client.rest()
    assert ["head", "finish", "close"] == request.calls
    assert 1 == len(door.requests)


@pytest.mark.parametrize(
    ("request_head", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", True),
    ],
)
async def test_the_request_says_whether_the_connection_stays(wire: Wire, request_head: bytes, closes: bool) -> None:
    await wire.serve(Door())
    client = await wire.client()
    client.send(request_head)
    answer = await client.answer()
    old = b"HTTP/1.0" in request_head
    assert ("close" if closes else "keep-alive" if old else None) == answer.headers.get("connection")
    if closes:
        assert b"" == await client.rest()
    else:
        client.send(GET)
        assert 200 == (await client.answer()).status


async def test_a_draining_server_announces_the_end_with_its_answer(wire: Wire) -> None:
    def act(request: Request) -> None:
        request.connection.close_after_answer()
        answer_ok(request)

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    assert "close" == (await client.answer()).headers["connection"]
    assert b"" == await client.rest()


async def test_a_handler_may_close_the_connection(wire: Wire) -> None:
    await wire.serve(
        Door(lambda request: request.connection.start_answer(200, [("Connection", "close")], complete=True))
    )
    client = await wire.client()
    client.send(GET)
    assert ["close"] == (await client.answer()).headers.get_list("connection")
    assert b"" == await client.rest()


async def test_a_connection_ends_after_its_last_request(wire: Wire) -> None:
    await wire.serve(Door(), requests_per_connection=2)
    client = await wire.client()
    client.send(GET * 3)
    assert [None, "close"] == [(await client.answer()).headers.get("connection") for _ in range(2)]
    assert b"" == await client.rest()


async def test_an_answer_of_unknown_length_is_chunked(wire: Wire) -> None:
    def act(request: Request) -> None:
        connection = request.connection
        connection.start_answer(200, [("transfer-encoding", "gzip")], b"first", complete=False)
        connection.send(b"")
        connection.send(b"x" * 20_000)
        connection.send(b"last")
        connection.finish()

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET + GET)
    for _ in range(2):
        answer = await client.answer()
        assert ["chunked"] == answer.headers.get_list("transfer-encoding")
        assert b"first" + b"x" * 20_000 + b"last" == answer.body


async def test_an_answer_of_unknown_length_to_http_1_0_ends_with_the_connection(wire: Wire) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [], b"first", complete=False)
        request.connection.send(b"last")
        request.connection.finish()

    await wire.serve(Door(act))
    answer = await wire.exchange(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"firstlast" == answer.body
    assert "close" == answer.headers["connection"]
    assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"HEAD", 404)])
@pytest.mark.parametrize("complete", [True, False])
async def test_answers_without_a_body(wire: Wire, method: bytes, status: int, complete: bool) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(status, [("content-length", "5")], b"hello", complete=complete)
        if not complete:
            request.connection.send(b"more")
            request.connection.finish()

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET.replace(b"GET", method) * 2)
    for _ in range(2):
        answer = await client.answer(head_only=True)
        assert status == answer.status
        assert (None if status == 204 else "5") == answer.headers.get("content-length")
        assert "transfer-encoding" not in answer.headers


async def test_a_body_longer_than_stated_aborts_the_connection(wire: Wire) -> None:
    raised = []

    def act(request: Request) -> None:
        request.connection.start_answer(200, [("content-length", "5")], b"123", complete=False)
        with pytest.raises(HTTPOutputError) as error:
            request.connection.send(b"456")
        raised.append(error)

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    await client.lost()
    assert raised


async def test_a_body_shorter_than_stated_aborts_the_connection(wire: Wire, expect_log: ExpectLog) -> None:
    def act(request: Request) -> None:
        request.connection.start_answer(200, [("content-length", "5")], b"123", complete=False)
        request.connection.finish()

    await wire.serve(Door(act))
    client = await wire.client()
    client.send(GET)
    with expect_log("2 bytes short"):
        await client.lost()


@pytest.mark.parametrize("field", [("x-a", "b\r\nc: d"), ("x-a", "b\nc"), ("x\0", "b"), ("x", "b\r"), ("x", "\u20ac")])
async def test_a_field_that_could_end_its_line_is_not_written(wire: Wire, field: tuple[str, str]) -> None:
    def act(request: Request) -> None:
        with pytest.raises(ValueError):  # UnicodeEncodeError is one
            request.connection.start_answer(200, [field], complete=True)
        answer_ok(request)

    await wire.serve(Door(act))
    assert 200 == (await wire.exchange(GET)).status


async def test_a_field_without_a_number_where_one_belongs_is_not_written(wire: Wire) -> None:
    def act(request: Request) -> None:
        with pytest.raises(ValueError, match="not a number"):
            request.connection.start_answer(200, [("content-length", "+5")], complete=False)
        with pytest.raises(RuntimeError):
            request.connection.finish()
        answer_ok(request)
        with pytest.raises(RuntimeError):
            request.connection.start_answer(200, [], complete=True)

    await wire.serve(Door(act))
    assert 200 == (await wire.exchange(GET)).status


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
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transport.server._LINGER_SECONDS", 0.2)

    class Early(Request):
        def data_received(self, chunk: bytes) -> None:
            self.connection.start_answer(413, [], b"no", complete=True)

    await wire.serve(Door(kind=Early))
    client = await wire.client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", b"x" * 100_000)
    assert 413 == (await client.answer()).status
    client.send(b"x" * 100_000)
    assert b"" == await client.rest()


async def test_a_body_that_goes_on_and_on_after_the_answer_closes_the_connection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transport.server._LINGER_BYTES", 300_000)

    class Early(Request):
        def data_received(self, chunk: bytes) -> None:
            self.connection.start_answer(413, [], b"no", complete=True)

    await wire.serve(Door(kind=Early))
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


async def test_cutting_an_answer_shows(wire: Wire) -> None:
    def act(request: Request) -> None:
        fields = [("content-length", "100")] if request.line.path == "/length" else []
        request.connection.start_answer(200, fields, b"beginning", complete=False)
        request.connection.cut()
        request.connection.cut()
        request.connection.finish()

    await wire.serve(Door(act))
    for path in (b"/", b"/length"):
        client = await wire.client()
        client.send(GET.replace(b"/ ", path + b" "))
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
    client = await wire.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await client.answer()


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


async def test_a_paused_body_waits_at_the_client(wire: Wire) -> None:
    class Paused(Request):
        def data_received(self, chunk: bytes) -> None:
            super().data_received(chunk)
            self.connection.pause_body()

    door = Door(kind=Paused)
    await wire.serve(door, body_idle_seconds=0.1)
    client = await wire.client()
    body = b"x" * 8_000_000
    client.send(post(body))
    request = await door.request()
    # Longer than the client's clock: it is not the client that pauses.
    await asyncio.sleep(0.3)
    assert len(request.body) <= 1 << 20
    while not request.ended.is_set():
        request.connection.resume_body()
        await asyncio.sleep(0)
    assert body == request.body
    # It was paused at the last piece: nobody waits for the body any more.
    request.connection.resume_body()
    assert 200 == (await client.answer()).status


async def test_a_client_that_reads_slowly_makes_the_answer_wait(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    client.send(GET)
    request = await door.request()
    connection = request.connection
    await request.ended.wait()
    connection.start_answer(200, [], complete=False)
    sent = 0
    while connection.send(b"x" * 65536):
        sent += 65536
        await connection.drained()
    waiting = [asyncio.ensure_future(connection.drained()) for _ in range(2)]
    flushed = connection.write(b"last")
    await asyncio.sleep(0.02)
    assert not any(future.done() for future in (*waiting, flushed))
    waiting[0].cancel()
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    answered = asyncio.ensure_future(client.answer())
    await waiting[1]
    await flushed
    connection.finish()
    assert sent + 65536 + 4 == len((await answered).body)


async def test_whoever_waits_for_a_client_that_goes_is_told(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    request.connection.start_answer(200, [], complete=False)
    while request.connection.send(b"x" * 65536):
        pass
    client.writer.transport.abort()
    with pytest.raises(ConnectionError):
        await request.connection.drained()


async def test_tornados_futures(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    connection = (await door.request()).connection
    await door.requests[0].ended.wait()
    headers = HTTPHeaders({"X-A": "b"})
    headers.add("Set-Cookie", "a=b")
    headers.add("Set-Cookie", "c=d")
    await connection.write_headers(ResponseStartLine("", 299, "Fine"), headers, b"one")
    await connection.write(b"two")
    connection.finish()
    answer = await client.answer()
    assert answer.raw.startswith(b"HTTP/1.1 299 Fine\r\nX-A: b\r\n")
    assert ["a=b", "c=d"] == answer.headers.get_list("set-cookie")
    assert b"onetwo" == answer.body


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


async def test_small_writes_go_out_at_once(wire: Wire) -> None:
    door = Door()
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    await client.answer()
    accepted: socket.socket = wire.connections[0]._transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_closing_a_server_cuts_what_is_under_way(wire: Wire) -> None:
    door = Door(answer_nothing)
    await wire.serve(door)
    client = await wire.client()
    client.send(GET)
    request = await door.request()
    await request.ended.wait()
    idle = await wire.client()
    await wire.until(lambda: len(wire.connections) == 2)
    request.connection.start_answer(200, [], b"beginning", complete=False)
    for connection in wire.connections:
        connection.close()
        connection.close()
    assert (await client.rest()).endswith(b"9\r\nbeginning\r\n")
    assert b"" == await idle.rest()
    assert ["head", "finish", "close"] == request.calls


async def test_a_certificate_is_not_there_without_tls(wire: Wire) -> None:
    seen = []

    def act(request: Request) -> None:
        stream = request.connection.stream
        seen.append((stream.closed(), stream.socket.getpeercert(binary_form=True)))
        answer_ok(request)

    await wire.serve(Door(act))
    await wire.exchange(GET)
    assert [(False, None)] == seen
    assert isinstance(wire.connections[0], ServerConnection)
