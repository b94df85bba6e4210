"""Anything, in any pieces, to the decoder of chunked request bodies."""

from collections.abc import Iterable, Iterator

from tests.conformance.http1.corpus import request_cases
from tests.conformance.http1.reference import chunked
from tests.fuzz.target import pieces, seed, split
from transport.chunked import ChunkedBody
from transport.received import Refused, ServerLimits

LIMITS = ServerLimits(header_bytes=512, header_count=8)


def decode(parts: Iterable[bytes]) -> tuple[bytes, bytes | None, bool]:
    """The body, what came after its end (None: it has none yet), and whether it is refused."""
    body = ChunkedBody(LIMITS)
    data = b""
    later = b""
    for part in parts:
        if body.done:
            later += part
            continue
        try:
            data += body.feed(part)
        except Refused:
            return data, None, True
    return data, body.rest + later if body.done else None, False


def run(data: bytes) -> None:
    _, sizes, sent = split(data)
    whole, rest, refused = decode([sent])
    in_pieces, rest_in_pieces, refused_in_pieces = decode(pieces(sent, sizes))
    assert len(whole) <= len(sent)
    assert (rest, refused) == (rest_in_pieces, refused_in_pieces)
    if refused:
        # What stood before the fault may have been handed on already, or not.
        assert in_pieces.startswith(whole)
        return
    assert whole == in_pieces
    if rest is not None:
        assert (whole, len(sent) - len(rest)) == chunked(sent, 0)


def seeds() -> Iterator[bytes]:
    for name, case in request_cases().items():
        if len(case.sent) < 4000 and name.split(":")[0] in ("chunked", "chunk-extensions", "trailers", "smuggling"):
            body = case.sent.partition(b"\r\n\r\n")[2]
            yield seed(body)
            yield seed(body, 1)
            yield seed(body, 3, 1, 9)
