"""The HTTP client against servers that misbehave, over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter, thread_time

import pytest

from core.errors import (
    ConnectFailed,
    ConnectTimeout,
    Delivered,
    InvalidRequest,
    UpstreamCut,
    UpstreamError,
    UpstreamMalformed,
    UpstreamTimeout,
)
from core.tasks import Tasks
from tests.clock_by_hand import ClockByHand
from tests.gateway_process import until
from tests.planted import planted
from tests.ports import closed_port
from tests.raw_server import (
    AT_ONCE_SECONDS,
    CHUNKED,
    OK,
    Line,
    body_of,
    clock_by_hand,
    post,
    replies,
    served,
    settled,
)
from transport.client import HttpClient, PoolLimits
from transport.messages import Clocks, ConnectionOptions, UpstreamRequest

SECRET = planted("provider-key", "sk-")
CERTIFICATE = Path(__file__).with_name("localhost.pem")


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> ClockByHand:
    """The clocks of connections, but for the connect clock."""
    return clock_by_hand(monkeypatch)


NONE_OPEN = "<HttpClient <pool 0 open, 0 idle, 0 waiting>>"


# What goes out


async def test_the_request_is_written_as_given_and_nothing_is_added(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK + b"content-length: 0\r\n\r\n")

    async with served(behave) as server:
        url = f"{server.base}/v1/a%2Fb%20c/../x;y?q=a+b&r=%C3%A9&empty="
        fields = (
            ("x-b", "2"),
            ("x-a", "1"),
            ("x-a", "caf\xc3\xa9"),
            ("x-b", "\xff\xe9"),
            ("content-length", "99"),
            ("expect", "100-continue"),
        )
        answer = await client.send(post(url, b'{"model":1}', headers=fields))
        assert b"" == await answer.read()
        assert [
            b"POST /v1/a%2Fb%20c/../x;y?q=a+b&r=%C3%A9&empty= HTTP/1.1",
            b"Host: localhost:%d" % server.port,
            b"x-b: 2",
            b"x-a: 1",
            b"x-a: caf\xc3\xa9",
            b"x-b: \xff\xe9",
            b"content-length: 11",
            b"",
            b'{"model":1}',
        ] == seen[0].split(b"\r\n")


async def test_a_request_without_a_body_has_no_body_fields(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        seen.append(await line.head())
        await line.send(OK + b"content-length: 0\r\n\r\n")

    async with served(behave) as server:
        await (await client.send(post(f"{server.base}/v1/models", None, method="GET"))).read()
        assert b"GET /v1/models HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % server.port == seen[0]


async def test_a_streamed_body_of_unknown_length_goes_in_chunks_as_it_comes(client: HttpClient) -> None:
    first_is_there = asyncio.Event()
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        head = await line.head()
        assert b"transfer-encoding: chunked" in head.lower()
        seen.append(await line.reader.readexactly(len(b"5\r\nfirst\r\n")))
        first_is_there.set()
        seen.append(await line.reader.readuntil(b"0\r\n\r\n"))
        await line.send(OK + b"content-length: 2\r\n\r\nok")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await first_is_there.wait()
        yield b"second"

    async with served(behave) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, pieces())))
        assert [b"5\r\nfirst\r\n", b"6\r\nsecond\r\n0\r\n\r\n"] == seen


async def test_a_streamed_body_of_known_length_is_framed_by_it(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK + b"content-length: 2\r\n\r\nok")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    async with served(behave) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, pieces(), length=6)))
        assert seen[0].endswith(b"content-length: 6\r\n\r\nabcdef")


@pytest.mark.parametrize("length", [3, 9])
async def test_a_streamed_body_that_belies_its_length_is_the_callers_fault(client: HttpClient, length: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    async with served(Line.gone) as server:
        with pytest.raises(InvalidRequest, match="declared length"):
            await client.send(post(server.base, pieces(), length=length))
        await server.left()


@pytest.mark.parametrize(
    "error", [LookupError("gone"), ValueError("gone"), OSError("gone"), TimeoutError("gone")], ids=repr
)
async def test_what_a_streamed_body_raises_comes_out_of_send_and_closes_the_connection(
    client: HttpClient, error: Exception
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        raise error

    async with served(Line.gone) as server:
        with pytest.raises(type(error), match="gone") as raised:
            await client.send(post(server.base, pieces()))
        assert error is raised.value
        await server.left()


async def test_a_large_body_in_memory_arrives_whole(client: HttpClient) -> None:
    sent = bytes(range(256)) * 20_000
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK + b"content-length: 0\r\n\r\n")

    async with served(behave) as server:
        await (await client.send(post(server.base, sent))).read()
        assert sent == seen[0].partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "request_",
    [
        post("http://localhost:1/a b"),
        post("http://localhost:1/\u00e9"),
        post("http://localhost:1/", headers=(("x", "a\r\ny: b"),)),
        post("http://localhost:1/", method="GET / HTTP/1.1\r\nx: y\r\n\r\nPOST"),
        post("ftp://localhost:1/"),
        post("http:///nowhere"),
        post("http://localhost:99999/"),
    ],
    ids=repr,
)
async def test_what_http_cannot_carry_is_refused_before_a_byte_is_written(
    client: HttpClient, request_: UpstreamRequest
) -> None:
    async with served(Line.gone) as server:
        url = request_.url.replace("localhost:1/", f"localhost:{server.port}/")
        with pytest.raises(ConnectFailed) as failed:
            await client.send(UpstreamRequest(request_.method, url, request_.headers, b"", None, Clocks(60, 60, 60)))
        assert Delivered.NO is failed.value.delivered


# What comes back


async def test_the_answer_is_handed_over_as_received(client: HttpClient) -> None:
    answer_head = (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: a/b\r\nX-Bytes: \xff\xe9\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
    )
    async with served(replies(answer_head + b"\x1f\x8b\x00")) as server:
        answer = await client.send(post(server.base))
        assert 404 == answer.status
        assert [
            ("content-type", "a/b"),
            ("x-bytes", "\xff\xe9"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-encoding", "gzip"),
            ("content-length", "3"),
        ] == list(answer.headers)
        assert b"\x1f\x8b\x00" == await body_of(answer)


async def test_redirects_are_answers_and_cookies_are_forgotten(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def behave(line: Line) -> None:
        for _ in range(2):
            seen.append(await line.request())
            await line.send(b"HTTP/1.1 302 Found\r\nlocation: /b\r\nset-cookie: a=1\r\ncontent-length: 0\r\n\r\n")

    async with served(behave) as server:
        for _ in range(2):
            answer = await client.send(post(server.base))
            assert (302, b"") == (answer.status, await answer.read())
        assert 2 == len(seen)
        assert b"cookie" not in seen[1].lower()


async def test_interim_answers_without_end_are_refused_and_hold_up_nothing_else(client: HttpClient) -> None:
    async def floods(line: Line) -> None:
        await line.request()
        while True:
            await line.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000)

    lags = []

    async def ticks() -> None:
        while True:
            # What others take of the processor meanwhile is no lag of ours.
            began = thread_time()
            await asyncio.sleep(0.01)
            lags.append(thread_time() - began)

    async with served(floods) as server:
        ticking = Tasks()
        ticking.spawn(ticks(), "ticks")
        began = perf_counter()
        with pytest.raises(UpstreamMalformed):
            await client.send(post(server.base))
        # Without a limit: when `first_byte_seconds` have passed, if ever.
        assert perf_counter() - began < AT_ONCE_SECONDS
        await server.left()
        await ticking.cancel()
    assert max(lags, default=0) < 1


async def test_interim_answers_that_drip_are_refused_too_while_an_upload_is_written(client: HttpClient) -> None:
    async def drips(line: Line) -> None:
        await line.head()
        while True:
            await line.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.01)

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.5)
        yield b"y"

    async with served(drips) as server:
        with pytest.raises(UpstreamMalformed):
            await client.send(post(server.base, body()))


async def test_interim_answers_are_counted_for_each_request_alone(client: HttpClient) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * 16

    async def answers(line: Line) -> None:
        while True:
            await line.request()
            await line.send(interim + OK + b"content-length: 2\r\n\r\nok")

    async with served(answers) as server:
        for _ in range(3):
            answer = await client.send(post(server.base))
            assert b"ok" == await body_of(answer)
        assert 1 == server.connections


async def test_interim_answers_are_skipped(client: HttpClient) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with served(replies(interim + OK + b"content-length: 2\r\n\r\nok")) as server:
        answer = await client.send(post(server.base))
        assert (200, b"ok") == (answer.status, await body_of(answer))
        assert "link" not in answer.headers


async def test_bytes_are_given_as_soon_as_they_arrive(client: HttpClient) -> None:
    more = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"4\r\none\n\r\n")
        await more.wait()
        await line.send(b"4\r\ntwo\n\r\n0\r\n\r\n")

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        assert b"one\n" == await answer.read()
        more.set()
        assert [b"two\n", b"", b""] == [await answer.read() for _ in range(3)]


@pytest.mark.parametrize(
    ("head", "method"),
    [
        (OK + b"content-length: 10\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "POST"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "GET"),
    ],
)
async def test_answers_that_have_no_body_end_at_once(client: HttpClient, head: bytes, method: str) -> None:
    async def behave(line: Line) -> None:
        await line.head()
        await line.send(head)
        await line.gone()

    async with served(behave) as server:
        assert b"" == await (await client.send(post(server.base, None, method=method))).read()


async def test_a_body_without_a_length_ends_with_the_connection(client: HttpClient) -> None:
    async with served(replies(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as server:
        assert b"all of it" == await body_of(await client.send(post(server.base)))


async def test_an_answer_may_come_before_the_request_is_written(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.head()
        await line.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await line.gone()

    async def endless() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    async with served(behave) as server:
        answer = await client.send(post(server.base, endless()))
        assert (413, b"big") == (answer.status, await body_of(answer))
        await server.left()


# Failures


async def test_a_refused_connection_delivers_nothing(client: HttpClient) -> None:
    with closed_port() as port, pytest.raises(ConnectFailed, match="refused") as failed:
        await client.send(post(f"http://127.0.0.1:{port}/"))
    assert Delivered.NO is failed.value.delivered
    assert "127.0.0.1" not in failed.value.message


async def test_an_unknown_host_is_named_as_such(client: HttpClient) -> None:
    with pytest.raises(ConnectFailed, match="host name could not be resolved") as failed:
        await client.send(post("http://no-such-host.invalid/"))
    assert Delivered.NO is failed.value.delivered


async def test_a_connection_that_is_not_made_in_time_delivers_nothing(client: HttpClient) -> None:
    # TLS to a server that accepts and says nothing: the connect clock covers the handshake.
    async with served(Line.gone) as server:
        begun = perf_counter()
        with pytest.raises(ConnectTimeout) as failed:
            await client.send(post(f"https://localhost:{server.port}/", clocks=Clocks(0.1, 60, 60)))
        assert 0.09 < perf_counter() - begun < AT_ONCE_SECONDS
        assert (Delivered.NO, NONE_OPEN) == (failed.value.delivered, repr(client))
        # On a slow machine it may not have come there.
        if server.connections:
            await server.left()


async def test_waiting_for_a_place_in_the_pool_is_on_the_connect_clock() -> None:
    client = HttpClient(PoolLimits(connections=1))

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED)
        await line.gone()

    async with served(behave) as server:
        held = await client.send(post(server.base))
        with pytest.raises(ConnectTimeout):
            await client.send(post(server.base, clocks=Clocks(0.1, 60, 60)))
        held.close()
        (await client.send(post(server.base))).close()
        await client.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 2", OK + b"content-len"],
    ids=["nothing", "part of the status line", "part of the head"],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_ends_within_the_head_is_a_cut(client: HttpClient, said: bytes, reset: bool) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(said)
        if reset:
            line.reset()

    async with served(behave) as server:
        with pytest.raises(UpstreamCut) as failed:
            await client.send(post(server.base))
        assert Delivered.MAYBE is failed.value.delivered


@pytest.mark.parametrize(
    "said",
    [
        OK + b"content-length: 10\r\n\r\nhalf",
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"a\r\nhalf",
        CHUNKED + b"4\r\nhalf\r\n0",
    ],
    ids=["short of its length", "between chunks", "within a chunk", "within the last chunk"],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_body_that_ends_early_is_a_cut_after_its_bytes(client: HttpClient, said: bytes, reset: bool) -> None:
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(said)
        await go_on.wait()
        if reset:
            line.reset()

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        assert b"half" == await answer.read()
        go_on.set()
        with pytest.raises(UpstreamCut) as failed:
            await answer.read()
        assert Delivered.MAYBE is failed.value.delivered
        answer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-server\r\n\r\n",
        OK + b"no colon here\r\n\r\n",
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        OK + b"content-length: two\r\n\r\nok",
        OK + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
    ids=["no HTTP", "bad field", "two lengths", "bad length", "long field", "bad chunk", "unasked upgrade"],
)
async def test_a_head_that_is_not_http_is_malformed(client: HttpClient, said: bytes) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(said)
        await line.gone()

    async with served(behave) as server:
        with pytest.raises(UpstreamMalformed):
            await client.send(post(server.base, headers=(("authorization", f"Bearer {SECRET}"),)))
        await server.left()


async def test_no_failure_carries_the_credential_into_a_traceback(client: HttpClient) -> None:
    async with served(replies(b"SSH-2.0-server\r\n\r\n")) as server:
        with pytest.raises(UpstreamError) as failed:
            await client.send(post(server.base, headers=(("authorization", f"Bearer {SECRET}"),)))
    cause: BaseException | None = failed.value
    while cause is not None:
        assert SECRET not in repr(cause) + str(cause)
        cause = cause.__cause__


@pytest.mark.parametrize("said", [b"zz\r\n", b"4\r\nfourXX\r\n0\r\n\r\n"], ids=["chunk size", "chunk end"])
async def test_framing_that_breaks_within_the_body_is_malformed_at_once(client: HttpClient, said: bytes) -> None:
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await go_on.wait()
        await line.send(said)
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base, clocks=Clocks(60, 60, None)))
        assert b"one" == await answer.read()
        go_on.set()
        with pytest.raises(UpstreamMalformed):
            await asyncio.wait_for(body_of(answer), AT_ONCE_SECONDS)


async def test_silence_before_the_head_is_a_timeout_and_closes_the_connection(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2")
        await line.gone()

    async with served(behave) as server:
        with pytest.raises(UpstreamTimeout) as failed:
            await client.send(post(server.base, clocks=Clocks(60, 0.1, 60)))
        assert Delivered.MAYBE is failed.value.delivered
        await server.left()


async def test_silence_within_the_body_is_a_timeout_and_closes_the_connection(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base, clocks=Clocks(60, 60, 0.1)))
        assert b"one" == await answer.read()
        with pytest.raises(UpstreamTimeout):
            await answer.read()
        await server.left()


async def test_a_slow_but_steady_body_outlives_the_clocks(client: HttpClient, by_hand: ClockByHand) -> None:
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED)
        for _ in range(10):
            await go_on.wait()
            go_on.clear()
            await line.send(b"1\r\n.\r\n")
        await line.send(b"0\r\n\r\n")

    async with served(behave) as server:
        answer = await client.send(post(server.base, clocks=Clocks(60, 5, 5)))
        for _ in range(10):
            reading = asyncio.ensure_future(answer.read())
            await asyncio.sleep(0)  # now it waits
            by_hand.pass_on(4)
            go_on.set()
            assert b"." == await reading
        assert b"" == await answer.read()


async def test_the_provider_is_not_blamed_for_a_slow_upload(client: HttpClient, by_hand: ClockByHand) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            by_hand.pass_on(20)
            await asyncio.sleep(0)
            yield b"a"

    async with served(replies(OK + b"content-length: 2\r\n\r\nok")) as server:
        answer = await client.send(post(server.base, pieces(), length=5, clocks=Clocks(60, 5, 5)))
        assert b"ok" == await body_of(answer)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_provider_that_stops_reading_is_a_timeout(client: HttpClient, streamed: bool) -> None:
    # More than the buffers of both sockets hold.
    size = 64 * 1024 * 1024 if streamed else 32 * 1024 * 1024

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield bytes(65536)

    async def behave(line: Line) -> None:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with served(behave) as server:
        with pytest.raises(UpstreamTimeout):
            await client.send(post(server.base, pieces() if streamed else bytes(size), clocks=Clocks(60, 60, 0.2)))


# Giving up, and backpressure


async def test_cancelling_a_send_closes_the_connection_at_once(client: HttpClient) -> None:
    there = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        there.set()
        await line.gone()

    async with served(behave) as server:
        sending = asyncio.ensure_future(client.send(post(server.base)))
        await there.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert NONE_OPEN == repr(client)
        await server.left()


async def test_cancelling_an_upload_closes_the_connection_though_bytes_wait_to_be_written(
    client: HttpClient,
) -> None:
    blocked = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1024):
            yield bytes(65536)

    async def behave(line: Line) -> None:
        await line.head()
        transport = line.writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        blocked.set()
        await asyncio.sleep(0.1)
        transport.resume_reading()  # type: ignore[attr-defined]
        await line.gone()

    async with served(behave) as server:
        sending = asyncio.ensure_future(client.send(post(server.base, pieces())))
        await blocked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await server.left()


async def test_closing_an_unfinished_answer_closes_the_connection_at_once(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        assert b"one" == await answer.read()
        answer.close()
        answer.close()
        assert NONE_OPEN == repr(client)
        await server.left()
        with pytest.raises(UpstreamCut):
            await answer.read()


async def test_a_reader_that_pauses_stops_the_provider(client: HttpClient) -> None:
    size = 32 * 1024 * 1024
    sent = 0

    async def behave(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.send(OK + b"content-length: %d\r\n\r\n" % size)
        while sent < size:
            await line.send(bytes(65536))
            sent += 65536

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        assert await settled(lambda: sent) < size / 2
        total = 0
        while piece := await answer.read():
            # What is taken from the provider ahead of the reader is bounded.
            assert len(piece) <= 1024 * 1024
            total += len(piece)
        assert size == total


# The pool


async def test_connections_are_kept_and_used_again(client: HttpClient) -> None:
    async with served(replies(*[OK + b"content-length: 2\r\n\r\nok"] * 3)) as server:
        for _ in range(3):
            assert b"ok" == await body_of(await client.send(post(server.base)))
        assert 1 == server.connections


async def test_an_idle_connection_that_the_provider_closed_is_replaced(client: HttpClient) -> None:
    async with served(replies(OK + b"content-length: 2\r\n\r\nok")) as server:
        for number in (1, 2):
            assert b"ok" == await body_of(await client.send(post(server.base)))
            assert number == server.connections
            await until(lambda: repr(client) == NONE_OPEN)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_request_on_a_stale_connection_is_never_sent_again_unasked(
    client: HttpClient, method: str, reset: bool
) -> None:
    """The race that keep-alive has: the provider closes while the next request is on its way."""
    heads: list[bytes] = []

    async def behave(line: Line) -> None:
        heads.append(await line.request())
        await line.send(OK + b"content-length: 2\r\n\r\nok")
        heads.append(await line.request())
        if reset:
            line.reset()

    async with served(behave) as server:
        assert b"ok" == await body_of(await client.send(post(server.base, None, method=method)))
        with pytest.raises(UpstreamCut) as failed:
            await client.send(post(server.base, None, method=method))
        assert Delivered.MAYBE is failed.value.delivered
        assert (1, 2) == (server.connections, len(heads))


async def test_closing_the_client_cuts_what_is_under_way() -> None:
    client = HttpClient(PoolLimits(connections=2))
    asked = asyncio.Event()

    async def behave(line: Line) -> None:
        head = await line.head()
        if b"/body" in head:
            await line.send(CHUNKED + b"3\r\none\r\n")
        else:
            asked.set()
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(f"{server.base}/body", b""))
        assert ("<answer 200 under way>", "<HttpClient <pool 1 open, 0 idle, 0 waiting>>") == (
            repr(answer),
            repr(client),
        )
        assert b"one" == await answer.read()
        waits = [
            asyncio.ensure_future(answer.read()),
            asyncio.ensure_future(client.send(post(f"{server.base}/head", b""))),
        ]
        await asked.wait()
        queued = asyncio.ensure_future(client.send(post(f"{server.base}/queued", b"")))
        await until(lambda: "1 waiting" in repr(client))
        await client.close()
        results = await asyncio.wait_for(asyncio.gather(*waits, queued, return_exceptions=True), AT_ONCE_SECONDS)
        assert [UpstreamCut, UpstreamCut, ConnectFailed] == [type(result) for result in results]
        with pytest.raises(ConnectFailed):
            await client.send(post(server.base))
        assert "<HttpClient closed>" == repr(client)


# TLS


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(client: HttpClient) -> None:
    async with served(Line.gone, server_tls()) as server:
        with pytest.raises(ConnectFailed, match="certificate could not be verified") as failed:
            await client.send(post(server.base))
        assert Delivered.NO is failed.value.delivered


async def test_a_server_without_tls_is_not_spoken_to_over_tls(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.send(OK + b"content-length: 0\r\n\r\n")
        await line.gone()

    async with served(behave) as server:
        with pytest.raises(ConnectFailed, match="TLS"):
            await client.send(post(f"https://localhost:{server.port}/"))


async def test_giving_up_over_tls_does_not_wait_for_a_farewell() -> None:
    client = HttpClient()
    trusting = ConnectionOptions(ca_file=str(CERTIFICATE))
    tasks = Tasks()
    deaf = False

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await line.gone()

    async with served(behave, server_tls()) as provider:

        async def between(line: Line) -> None:
            # A network that, from some moment on, carries nothing to the provider: no farewell is answered.
            reader, writer = await asyncio.open_connection("localhost", provider.port)
            tasks.spawn(forward(reader, line.writer), "forward")
            try:
                while data := await line.reader.read(65536):
                    if not deaf:
                        writer.write(data)
            finally:
                writer.close()

        async with served(between) as network:
            answer = await client.send(post(f"https://localhost:{network.port}/", options=trusting))
            assert b"one" == await answer.read()
            deaf = True
            answer.close()
            await network.left()
            await client.close()
    await tasks.cancel()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
