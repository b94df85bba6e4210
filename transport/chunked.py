"""Chunked request bodies (RFC 9112 section 7.1), read strictly."""

import re

from transport.received import Refused, ServerLimits, parse_field

# At most 16 digits: what fits 64 bits. No sign, no `0x`, no space, also none before an extension, and no bare CR or LF
# inside one: each is a way to be read differently by the next server.
# A quoted value of an extension ends in its line. (Possessive: nothing to go back to, and no memory for it.)
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSION = rb"(?:;(?:[\t\x20\x21\x23-\x7e\x80-\xff]|" + _QUOTED + rb")*+)?"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(" + _EXTENSION + rb")\r\n")
_SIZE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?")
_EXTENSION_BYTES = 4096
# Over all chunks, more than the body itself has: then somebody sends nothing, slowly, past every limit on bodies.
_EXTENSIONS_BYTES = 16 * 1024


class ChunkedBody:
    """Takes the bytes of a body as they come; knows its end exactly.

    Extensions and trailers are checked and dropped: RFC 9112 section 7.1.1 and RFC 9110 section 6.5.1 allow it.
    """

    __slots__ = ("_begun", "_extensions", "_left", "_limits", "_taken", "_trailer_bytes", "_trailers", "done", "rest")

    def __init__(self, limits: ServerLimits) -> None:
        self.done = False
        self.rest = b""
        """What came after the body, once it is done."""
        self._limits = limits
        self._begun = b""
        self._left = 0
        """Bytes of the chunk that are still to come, 2 for its CR LF among them."""
        self._trailers: int | None = None
        self._trailer_bytes = 0
        self._extensions = 0
        self._taken = 0

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes in ``data``, maybe none.

        Raises:
            Refused: the framing is broken or the limits of extensions and trailers are passed.
        """
        if self._begun:
            data = self._begun + data
            self._begun = b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            left = self._left
            if left > 2:
                piece = data[at : at + left - 2]
                pieces.append(piece)
                at += len(piece)
                self._left = left - len(piece)
            elif left:
                if data[at] != (13 if left == 2 else 10):
                    raise _broken("a chunk is longer than its size says")
                at += 1
                self._left = left - 1
            elif self._trailers is None:
                at = self._take_size(data, at)
            else:
                at = self._take_trailer(data, at)
                if self.done:
                    self.rest = data[at:]
                    break
            if at < 0:
                break
        decoded = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._taken += len(decoded)
        return decoded

    def _take_size(self, data: bytes, at: int) -> int:
        match = _SIZE.match(data, at)
        if match is None:
            begun = data[at : at + _EXTENSION_BYTES + 20]
            if not _SIZE_BEGUN.fullmatch(begun):
                raise _broken("a chunk size is not hexadecimal digits and CR LF")
            if len(begun) > _EXTENSION_BYTES + 18:
                raise _broken("a chunk extension is too long")
            self._begun = data[at:]
            return -1
        size, extension = match.groups()
        if extension:
            self._extensions += len(extension)
            if len(extension) > _EXTENSION_BYTES or self._extensions > _EXTENSIONS_BYTES + self._taken:
                raise _broken("the chunk extensions are too long")
        length = int(size, 16)
        if length:
            self._left = length + 2
        else:
            self._trailers = 0
        return match.end()

    def _take_trailer(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        if end < 0:
            line = data[at:]
            if b"\n" in line or b"\r" in line[:-1]:
                raise _broken("a line among the trailers does not end with CR LF")
            if len(line) + self._trailer_bytes > self._limits.header_bytes:
                raise Refused(431, "headers_too_large", "the trailers are larger than this server takes")
            self._begun = line
            return -1
        if end == at:
            self.done = True
            return end + 2
        assert self._trailers is not None
        self._trailers += 1
        self._trailer_bytes += end + 2 - at
        if self._trailers > self._limits.header_count or self._trailer_bytes > self._limits.header_bytes:
            raise Refused(431, "headers_too_large", "the trailers are larger than this server takes")
        parse_field(data[at:end])
        return end + 2


def _broken(what: str) -> Refused:
    return Refused(400, "malformed_body", f"malformed chunked body: {what}")
