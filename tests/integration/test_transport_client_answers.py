"""What the HTTP client makes of answers: strictness, `pass_on`, decoding; over real sockets."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from core.errors import UpstreamCut, UpstreamError, UpstreamMalformed, UpstreamTimeout
from tests.clock_by_hand import ClockByHand
from tests.raw_server import (
    ANSWER,
    AT_ONCE_SECONDS,
    CHUNKED,
    OK,
    Line,
    Taker,
    body_of,
    clock_by_hand,
    post,
    replies,
    served,
    settled,
)
from transport.client import HttpClient, PoolLimits
from transport.messages import Clocks

IDENTITY = (("accept-encoding", "identity"),)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> ClockByHand:
    """The clocks of connections, but for the connect clock."""
    return clock_by_hand(monkeypatch)


# Strictness


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/0.9 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1  200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok",
        b"ICY 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        OK + b"content-length: 2\nx: y\r\n\r\nok",
        OK + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
        OK + b"x: a\x00b\r\ncontent-length: 2\r\n\r\nok",
        OK + b"x: a\rb\r\ncontent-length: 2\r\n\r\nok",
        OK + b"x : a\r\ncontent-length: 2\r\n\r\nok",
        OK + b": a\r\ncontent-length: 2\r\n\r\nok",
        OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
        OK + b"content-length: 2, 2\r\n\r\nok",
        OK + b"content-length: +2\r\n\r\nok",
        OK + b"content-length:\r\n\r\nok",
        OK + b"content-length: 99999999999999999999999\r\n\r\nok",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: gzip\r\n\r\nok",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked, gzip\r\n\r\nok",
        OK + b"transfer-encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"transfer-encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"transfer-encoding: identity\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"2\nok\n0\n\n",
        CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"2\r\nokX\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nno field\r\n\r\n",
        OK + b"x: y\r\n" * 257 + b"content-length: 2\r\n\r\nok",
        OK + b"x-a: " + b"a" * 70_000,
    ],
    ids=lambda said: said[-60:].decode("latin-1"),
)
async def test_what_could_be_read_in_two_ways_is_malformed(client: HttpClient, said: bytes) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(said)
        await line.gone()

    async with served(behave) as server:
        with pytest.raises(UpstreamMalformed):
            await body_of(await client.send(post(server.base)))
        await server.left()


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", [("content-length", "2")]),
        (b"HTTP/1.1 200 \r\nContent-Length:2\r\n\r\nok", [("content-length", "2")]),
        (OK + b"X-A: \t a: b \t\r\nX-B:\r\n\r\nok", [("x-a", "a: b"), ("x-b", "")]),
        (OK + b"content-length: 2 \r\n\r\nok", [("content-length", "2")]),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nx: y\r\n\r\n", [("transfer-encoding", "Chunked")]),
        (OK + b"upgrade: h2\r\nconnection: upgrade\r\n\r\nok", [("upgrade", "h2"), ("connection", "upgrade")]),
        (b"HTTP/1.0 200 OK\r\n\r\nok", []),
        (b"HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\n" + ANSWER, [("content-length", "2")]),
    ],
    ids=lambda value: value[-60:].decode("latin-1") if isinstance(value, bytes) else "",
)  # fmt: skip
@pytest.mark.parametrize("step", [10_000, 7, 1])
async def test_what_is_odd_but_clear_is_taken_in_any_pieces(
    client: HttpClient, said: bytes, fields: list[tuple[str, str]], step: int
) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        for start in range(0, len(said), step):
            await line.send(said[start : start + step])
            await asyncio.sleep(0)

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        assert (200, fields, b"ok") == (answer.status, list(answer.headers), await body_of(answer))


@pytest.mark.parametrize("more", [b"x", ANSWER, b"HTTP/1.1 200 OK\r\n"], ids=["junk", "an answer", "half an answer"])
@pytest.mark.parametrize("answer_", [ANSWER, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], ids=["length", "chunks"])
async def test_bytes_after_an_answer_spoil_the_connection_and_not_the_answer(
    client: HttpClient, answer_: bytes, more: bytes
) -> None:
    async with served(replies(answer_ + more, answer_ + more)) as server:
        for number in (1, 2):
            assert b"ok" == await body_of(await client.send(post(server.base)))
            assert number == server.connections


async def test_bytes_that_come_unasked_close_an_idle_connection(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(ANSWER)
        await asyncio.sleep(0.02)
        await line.send(ANSWER)
        await line.gone()

    async with served(behave) as server:
        assert b"ok" == await body_of(await client.send(post(server.base)))
        await server.left()
        assert "<HttpClient <pool 0 open, 0 idle, 0 waiting>>" == repr(client)


@pytest.mark.parametrize(
    ("head", "connections"),
    [
        (OK + b"content-length: 2\r\n\r\n", 1),
        (OK + b"connection: keep-alive\r\ncontent-length: 2\r\n\r\n", 1),
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\n", 2),
        (OK + b"connection: keep-alive\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\n", 1),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n", 1),
        (OK + b"keep-alive: timeout=0\r\ncontent-length: 2\r\n\r\n", 1),
    ],
)
async def test_a_connection_is_kept_if_the_provider_keeps_it(client: HttpClient, head: bytes, connections: int) -> None:
    async with served(replies(head + b"ok", head + b"ok")) as server:
        for _ in range(2):
            assert b"ok" == await body_of(await client.send(post(server.base)))
        assert connections == server.connections


async def test_answers_to_head_leave_a_connection_that_can_be_used(client: HttpClient) -> None:
    heads = [
        OK + b"content-length: 10\r\n\r\n",
        CHUNKED,
        OK + b"x: y\r\n\r\n",
        b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
    ]
    async with served(replies(*[part for head in heads for part in (head, ANSWER)])) as server:
        for head in heads:
            answer = await client.send(post(server.base, None, method="HEAD"))
            assert (int(head[9:12]), b"") == (answer.status, await answer.read())
            assert b"ok" == await body_of(await client.send(post(server.base)))
        assert 1 == server.connections


@pytest.mark.parametrize("status", [204, 304])
async def test_a_body_where_there_is_none_spoils_the_connection(client: HttpClient, status: int) -> None:
    async with served(replies(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status)) as server:
        answer = await client.send(post(server.base))
        assert (status, b"") == (answer.status, await answer.read())
        assert "<HttpClient <pool 0 open, 0 idle, 0 waiting>>" == repr(client)


async def test_framing_without_end_and_without_content_is_malformed(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"2\r\nok\r\n0\r\n")
        while True:
            await line.send(b"x-trailer: " + b"a" * 1000 + b"\r\n")

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        with pytest.raises(UpstreamMalformed):
            await body_of(answer)


async def test_an_answer_that_stops_within_its_head_keeps_to_the_head_limit(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(OK)
        while True:
            await line.send(b"x-field: " + b"a" * 1000 + b"\r\n")

    async with served(behave) as server:
        with pytest.raises(UpstreamMalformed, match="too large"):
            await client.send(post(server.base))


# Passing on


async def test_a_body_is_passed_on_as_it_comes_one_piece_for_each_reading() -> None:
    client = HttpClient()
    taken = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await taken.wait()
        taken.clear()
        await line.send(b"3\r\ntwo\r\n5\r\nthree\r\n")
        await taken.wait()
        await line.send(b"4\r\nfour\r\n0\r\n\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        taker = Taker(lambda _: bool(taken.set()))  # type: ignore[func-returns-value]  # False: it is full
        await asyncio.wait_for(answer.pass_on(taker.take, taker.ready), AT_ONCE_SECONDS)
        assert ([b"one", b"twothree", b"four"], 0) == (taker.pieces, taker.waits)
        assert b"" == await answer.read()
        await answer.pass_on(taker.take, taker.ready)
        assert 3 == len(taker.pieces)
        assert "<HttpClient <pool 1 open, 1 idle, 0 waiting>>" == repr(client)
        await client.close()


async def test_what_has_come_before_is_passed_on_first(client: HttpClient) -> None:
    async with served(replies(ANSWER)) as server:
        answer = await client.send(post(server.base))
        await asyncio.sleep(0.02)
        taker = Taker()
        await answer.pass_on(taker.take, taker.ready)
        assert [b"ok"] == taker.pieces


async def test_a_taker_that_is_full_stops_the_provider_without_a_clock(
    client: HttpClient, by_hand: ClockByHand
) -> None:
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
        answer = await client.send(post(server.base, clocks=Clocks(60, 5, 5)))
        taker = Taker(lambda _: True)
        passing = asyncio.ensure_future(answer.pass_on(taker.take, taker.ready))
        assert await settled(lambda: sent) < size / 2
        assert (1, 1) == (len(taker.pieces), taker.waits)
        by_hand.pass_on(60)
        taker.room.set()
        await asyncio.wait_for(passing, 60)
        assert size == sum(map(len, taker.pieces))
        assert len(taker.pieces) == taker.waits


@pytest.mark.parametrize("from_", ["take", "ready"])
async def test_what_a_taker_raises_comes_out_and_closes_the_connection(client: HttpClient, from_: str) -> None:
    error = LookupError("the client has gone")
    taken = asyncio.Event()

    def take(piece: bytes) -> bool:
        taken.set()
        if from_ == "take" and piece == b"two":
            raise error
        return piece != b"two"

    async def ready() -> None:
        raise error

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await taken.wait()
        await line.send(b"3\r\ntwo\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        with pytest.raises(LookupError) as raised:
            await answer.pass_on(take, ready)
        assert error is raised.value
        await server.left()


@pytest.mark.parametrize(
    ("rest", "kind"),
    [(b"zz\r\n", UpstreamMalformed), (b"5\r\nha", UpstreamCut), (None, UpstreamTimeout)],
    ids=["broken", "cut", "silent"],
)
async def test_passing_on_fails_as_reading_does(
    client: HttpClient, by_hand: ClockByHand, rest: bytes | None, kind: type[UpstreamError]
) -> None:
    taken = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await taken.wait()
        if rest is None:
            await line.gone()
        else:
            await line.send(rest)

    async with served(behave) as server:
        answer = await client.send(post(server.base, clocks=Clocks(60, 5, 5)))
        taker = Taker(lambda _: bool(taken.set()))  # type: ignore[func-returns-value]  # False: it is full
        passing = asyncio.ensure_future(answer.pass_on(taker.take, taker.ready))
        await taken.wait()
        await asyncio.sleep(0)
        by_hand.pass_on(0 if rest else 5)
        with pytest.raises(kind):
            await asyncio.wait_for(passing, AT_ONCE_SECONDS)
        assert b"one" == b"".join(taker.pieces)[:3]
        await server.left()


async def test_cancelling_closes_the_connection_while_it_is_passed_on(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\none\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base))
        taker = Taker()
        passing = asyncio.ensure_future(answer.pass_on(taker.take, taker.ready))
        await asyncio.sleep(0.05)
        passing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await passing
        await server.left()


async def test_a_taker_may_give_the_answer_up(client: HttpClient) -> None:
    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED)
        await asyncio.sleep(0.02)
        await line.send(b"3\r\none\r\n3\r\ntwo\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base))

        def take(_: bytes) -> bool:
            answer.close()
            return False

        with pytest.raises(UpstreamCut):
            await asyncio.wait_for(answer.pass_on(take, Taker().ready), AT_ONCE_SECONDS)
        await server.left()


async def test_the_reader_who_goes_away_leaves_an_answer_that_can_still_be_read(
    client: HttpClient, by_hand: ClockByHand
) -> None:
    go_on = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED)
        await go_on.wait()
        await line.send(b"2\r\nok\r\n0\r\n\r\n")
        await line.gone()

    async with served(behave) as server:
        answer = await client.send(post(server.base, clocks=Clocks(60, 5, 5)))
        reading = asyncio.ensure_future(answer.read())
        await asyncio.sleep(0)  # now it waits
        reading.cancel()
        await asyncio.wait({reading})
        # Longer than idle_seconds, with nobody waiting.
        by_hand.pass_on(60)
        go_on.set()
        assert b"ok" == await body_of(answer)


# Decoding


def deflated(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


TEXT = b'{"a": "' + b"words " * 60_000 + b'"}'


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("X-Gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", deflated(TEXT, -15)),
    ],
    ids=["gzip", "x-gzip", "two members", "deflate", "raw deflate"],
)
@pytest.mark.parametrize("step", [100_000, 11, 1])
async def test_an_answer_that_is_encoded_unasked_is_decoded(
    client: HttpClient, coding: str, packed: bytes, step: int
) -> None:
    async def behave(line: Line) -> None:
        while True:
            await line.request()
            await line.send(b"HTTP/1.1 404 X\r\ncontent-encoding: %b\r\nx: y\r\n" % coding.encode())
            await line.send(b"content-length: %d\r\n\r\n" % len(packed))
            for start in range(0, len(packed), step):
                await line.send(packed[start : start + step])
                await asyncio.sleep(0)

    async with served(behave) as server:
        for passed in (False, True):
            answer = await client.send(post(server.base, headers=IDENTITY))
            assert (404, [("x", "y")]) == (answer.status, list(answer.headers))
            taker = Taker()
            if passed:
                await answer.pass_on(taker.take, taker.ready)
            assert TEXT == (b"".join(taker.pieces) if passed else await body_of(answer))
            assert b"" == await answer.read()
            answer.close()


@pytest.mark.parametrize(
    ("coding", "asked"),
    [("br", "identity"), ("gzip, gzip", "identity"), ("identity", "identity"), ("gzip", "gzip"), ("gzip", None)],
)
async def test_what_was_asked_for_or_is_not_known_passes_as_it_is(
    client: HttpClient, coding: str, asked: str | None
) -> None:
    head = OK + b"content-encoding: %b\r\ncontent-length: 2\r\n\r\n" % coding.encode()
    async with served(replies(head + b"ok")) as server:
        answer = await client.send(post(server.base, headers=(("accept-encoding", asked),) if asked else ()))
        assert coding == answer.headers.get("content-encoding")
        assert b"ok" == await body_of(answer)


@pytest.mark.parametrize(
    ("coding", "packed", "words"),
    [
        (b"gzip", b"not packed", "not in the content coding"),
        (b"gzip", gzip.compress(TEXT)[:-200], "ends within"),
        (b"gzip", gzip.compress(TEXT) + b"more", "not in the content coding"),
        (b"deflate", zlib.compress(TEXT) + b"more", "not in the content coding"),
        (b"deflate", b"\xff\xff", "not in the content coding"),
        (b"gzip", gzip.compress(bytes(11_000_000)), "too large when decoded"),
    ],
    ids=["not packed", "cut", "more behind gzip", "more behind deflate", "not deflate", "a bomb"],
)
async def test_a_coding_that_is_broken_or_hides_too_much_is_malformed(coding: bytes, packed: bytes, words: str) -> None:
    client = HttpClient(PoolLimits(max_decoded_bytes=10_000_000))
    head = OK + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (coding, len(packed))
    async with served(replies(head + packed)) as server:
        answer = await client.send(post(server.base, headers=IDENTITY))
        taker = Taker()
        with pytest.raises(UpstreamMalformed, match=words):
            await answer.pass_on(taker.take, taker.ready)
        assert max(map(len, taker.pieces), default=0) <= 256 * 1024
        await client.close()


async def test_an_encoded_answer_without_a_body_is_empty(client: HttpClient) -> None:
    async with served(replies(OK + b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n")) as server:
        assert b"" == await (await client.send(post(server.base, headers=IDENTITY))).read()


async def test_each_event_of_an_encoded_stream_is_given_when_it_comes(client: HttpClient) -> None:
    packer = zlib.compressobj(wbits=31)
    seen = asyncio.Event()

    async def behave(line: Line) -> None:
        await line.request()
        await line.send(OK + b"content-encoding: gzip\r\n\r\n")
        for number in range(3):
            await line.send(packer.compress(b"data: %d\n\n" % number) + packer.flush(zlib.Z_SYNC_FLUSH))
            await seen.wait()
            seen.clear()
        await line.send(packer.flush())

    async with served(behave) as server:
        answer = await client.send(post(server.base, headers=IDENTITY))
        async with asyncio.timeout(AT_ONCE_SECONDS):
            for number in range(3):
                assert b"data: %d\n\n" % number == await answer.read()
                seen.set()
            assert b"" == await answer.read()
