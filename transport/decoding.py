"""Answers that are encoded although the request asked for `identity`, decoded as they are read, up to a limit."""

import zlib
from collections.abc import Awaitable, Callable
from typing import Final

from core.headers import Headers
from transport import failures
from transport.answer import Answer
from transport.messages import pass_on_by_reading

# zlib's windowBits (https://zlib.net/manual.html, inflateInit2): 16 more is a gzip member, negative no wrapping at all.
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS

_PIECE_BYTES: Final = 256 * 1024
"""Decoded bytes given at a time; a piece of the wire may be a thousand times what it looks like."""

_CODINGS: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


def decoded(answer: Answer, max_bytes: int) -> "Answer | DecodedAnswer":
    """``answer`` without its content coding, if that is one that is known here; others stay as they are.

    ``max_bytes`` bounds what comes out.
    """
    coding = (answer.headers.get("content-encoding") or "").strip().lower()
    window = _CODINGS.get(coding)
    if window is None or len(answer.headers.get_all("content-encoding")) > 1:
        return answer
    return DecodedAnswer(answer, window, max_bytes)


class DecodedAnswer:
    """:class:`transport.messages.UpstreamResponse` around an encoded one."""

    __slots__ = ("_answer", "_decoder", "_first", "_left_bytes", "_over", "_undecoded", "_window", "headers", "status")

    def __init__(self, answer: Answer, window: int, max_bytes: int) -> None:
        self.status = answer.status
        self.headers = Headers(
            field for field in answer.headers if field[0] not in ("content-encoding", "content-length")
        )
        self._answer = answer
        self._window = window
        self._decoder = zlib.decompressobj(window)
        self._left_bytes = max_bytes
        self._undecoded = b""
        self._first = b""
        """What was decoded first, up to two bytes: zlib refuses a wrapper that is none with its second."""
        self._over = False

    def __repr__(self) -> str:
        return f"<decoded {self._answer!r}>"

    async def read(self) -> bytes:
        """See :meth:`transport.messages.UpstreamResponse.read`.

        Raises:
            core.errors.UpstreamMalformed: the coding is broken, ends early, or hides more than it may.
        """
        try:
            while not self._over:
                if not self._undecoded:
                    self._undecoded = await self._answer.read()
                    if not self._undecoded:
                        self._over = True
                        if self._first and not self._decoder.eof:
                            raise failures.malformed("The provider's answer ends within its content coding.")
                        break
                piece = self._decode()
                if piece:
                    return piece
        except zlib.error as error:
            self.close()
            raise failures.malformed("The provider's answer is not in the content coding that it names.") from error
        except BaseException:
            self.close()
            raise
        return b""

    async def pass_on(self, take: Callable[[bytes], bool], ready: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`transport.messages.UpstreamResponse.pass_on`."""
        await pass_on_by_reading(self, take, ready)

    def close(self) -> None:
        """See :meth:`transport.messages.UpstreamResponse.close`."""
        self._answer.close()

    def _decode(self) -> bytes:
        if self._decoder.eof:
            # Another member of a gzip file (RFC 1952 section 2.2); after a zlib stream there is nothing.
            if self._window != _GZIP:
                raise zlib.error("bytes after the end")
            self._decoder = zlib.decompressobj(_GZIP)
        piece = self._inflate(self._undecoded)
        if len(self._first) < 2:
            self._first += self._undecoded[:2]
        self._undecoded = self._decoder.unconsumed_tail or self._decoder.unused_data
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise failures.malformed("The provider's answer is too large when decoded.")
        return piece

    def _inflate(self, data: bytes) -> bytes:
        try:
            return self._decoder.decompress(data, _PIECE_BYTES)
        except zlib.error:
            if self._window != _ZLIB or len(self._first) > 1:
                raise
        # Some servers send what `deflate` was for a time taken to mean (RFC 9110 section 8.4.1.2, note).
        self._window = _RAW
        self._decoder = zlib.decompressobj(_RAW)
        return self._decoder.decompress(self._first + data, _PIECE_BYTES)
