"""Chunked bodies: tests/golden/http1 has the corpus; here are the limits and what is given when."""

import pytest

from tests.cost import least_seconds
from transport.chunked import ChunkedBody
from transport.received import Refused, ServerLimits

LIMITS = ServerLimits(header_bytes=100, header_count=3)


def test_a_body_with_extensions_and_trailers_is_told_from_what_follows() -> None:
    body = ChunkedBody(LIMITS)
    assert b"hello world" == body.feed(b'5\r\nhello\r\n006;a="b;c\\"";d\r\n world\r\n0;x\r\nA: b\r\nC: d\r\n\r\nGET /')
    assert body.done
    assert b"GET /" == body.rest


def test_pieces_are_given_as_soon_as_they_come() -> None:
    body = ChunkedBody(LIMITS)
    pieces = [
        body.feed(piece) for piece in (b"A", b"\r", b"\n01234", b"56789\r\n", b"1\r\n", b"x", b"\r\n0\r\n\r", b"\n")
    ]
    assert [b"", b"", b"01234", b"56789", b"", b"x", b"", b""] == pieces
    assert body.done
    assert b"" == body.rest


def test_a_large_chunk_is_not_collected() -> None:
    body = ChunkedBody(LIMITS)
    piece = b"x" * 65536
    assert b"" == body.feed(b"ffffffffffffffff\r\n")
    assert piece == body.feed(piece)


def drip(sent: bytes) -> None:
    body = ChunkedBody(LIMITS)
    for byte in sent:
        body.feed(bytes([byte]))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"g", 400),
        (b"\r\n", 400),
        (b"-1\r\n", 400),
        (b"+1\r\n", 400),
        (b"0x1\r\n", 400),
        (b" 1\r\n", 400),
        (b"1 \r\n", 400),
        (b"1 ;a\r\n", 400),
        (b"1\n", 400),
        (b"1\rx", 400),
        (b"1;a\rb\r\n", 400),
        (b"1;\0\r\n", 400),
        (b'1;a="\r\n', 400),
        (b"1" * 17, 400),
        (b"1;" + b"x" * 4200, 400),
        (b"1\r\nxy", 400),
        (b"1\r\nx\n", 400),
        (b"1\r\nx\rx", 400),
        (b"0\r\nA: b\n", 400),
        (b"0\r\nA\rb", 400),
        (b"0\r\n folded\r\n", 400),
        (b"0\r\nA : b\r\n", 400),
        (b"0\r\nA: " + b"x" * 100, 431),
        (b"0\r\n" + b"A: b\r\n" * 4, 431),
        (b"0\r\n" + (b"A: " + b"x" * 40 + b"\r\n") * 3, 431),
    ],
)
def test_refusals_at_once_and_byte_by_byte(sent: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        ChunkedBody(LIMITS).feed(sent)
    assert status == caught.value.status
    with pytest.raises(Refused) as caught:
        drip(sent)
    assert status == caught.value.status


def test_extensions_may_not_outweigh_the_body() -> None:
    chunk = b"1;" + b"x" * 1000 + b"\r\ny\r\n"
    body = ChunkedBody(ServerLimits())
    body.feed(chunk * 16)
    with pytest.raises(Refused, match="extensions"):
        body.feed(chunk)
    large = b"800;" + b"x" * 1000 + b"\r\n" + b"y" * 0x800 + b"\r\n"
    body = ChunkedBody(ServerLimits())
    for _ in range(50):
        body.feed(large)


def test_what_is_made_to_be_slow_is_not() -> None:
    def feed(count: int) -> None:
        for sent in (b"1;" + b"x" * 10 * count, b"1;" + b'"' * 4001, b'1;"' + b"\\" * 10 * count, b"1" * 10 * count):
            with pytest.raises(Refused):
                ChunkedBody(ServerLimits()).feed(sent + b"\r\n\x01")
        body = ChunkedBody(ServerLimits())
        assert count == len(body.feed(b"1\r\nx\r\n" * count))

    little, much = least_seconds(lambda: feed(1000), lambda: feed(20_000))
    # Twenty times as much, not four hundred.
    assert much < 100 * little
