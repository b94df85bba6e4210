"""Where messages begin and end, told again by other means: by splitting and counting, one step a rule, no speed wanted.

It judges nothing but framing: what it is given, a server has already taken for good.
"""

import re

from tests.conformance.http1.corpus import Seen

_SIZE = re.compile(rb"[0-9A-Fa-f]+")


def next_request(stream: bytes, at: int) -> tuple[Seen, int]:
    """The request that begins at ``at``, and where it ends; its body is None when it is broken or its end is missing.

    Raises:
        ValueError: there is no head, or it says in several ways where the body ends.
    """
    # RFC 9112 section 2.2: empty lines before a request are passed over.
    while stream[at : at + 2] == b"\r\n":
        at += 2
    end = stream.index(b"\r\n\r\n", at)
    first, *lines = stream[at:end].decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ")
    fields = [(name.lower(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value.lower() for name, value in fields if name == "transfer-encoding"]
    if codings:
        if codings != ["chunked"] or lengths:
            raise ValueError(f"framed in several ways: {codings} {lengths}")
        body, after = chunked(stream, end + 4)
    else:
        if len(lengths) > 1:
            raise ValueError(f"several lengths: {lengths}")
        after = end + 4 + int(lengths[0] if lengths else "0")
        body = stream[end + 4 : after] if after <= len(stream) else None
    return Seen(method, target, body), after


def chunked(stream: bytes, at: int) -> tuple[bytes | None, int]:
    """The chunked body (RFC 9112 section 7.1) from ``at`` on, and where it ends; None when it is broken or not whole."""
    data = b""
    while (end := stream.find(b"\r\n", at)) >= 0:
        size = stream[at:end].partition(b";")[0]
        if not _SIZE.fullmatch(size):
            break
        at = end + 2
        after = at + int(size, 16) + 2
        if after == at + 2:
            return _after_trailers(stream, at, data)
        if stream[after - 2 : after] != b"\r\n":
            break
        data += stream[at : after - 2]
        at = after
    return None, len(stream)


def _after_trailers(stream: bytes, at: int, data: bytes) -> tuple[bytes | None, int]:
    while (end := stream.find(b"\r\n", at)) >= 0:
        if end == at:
            return data, end + 2
        at = end + 2
    return None, len(stream)
