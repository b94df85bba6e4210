"""A request body on its way to a provider, with the clock that runs while it goes."""

from collections.abc import AsyncIterator
from typing import Final, Protocol

from core.errors import InvalidRequest

SLICE_BYTES: Final = 64 * 1024
"""Bodies in memory above this are written in slices: a provider that stops reading is noticed, and one large
write does not hold the event loop."""


class UploadClock(Protocol):
    """Who is waited for, as told by the upload; one that stops at a piece means a provider that stopped reading."""

    def taken(self) -> None:
        """A piece was given to the connection, which asks for the next when it has room again."""
        ...

    def hungry(self) -> None:
        """The connection has room, the body's source has the word: its pace is bounded elsewhere."""
        ...

    def written(self) -> None:
        """The body is written whole."""
        ...

    def failed(self, error: Exception) -> None:
        """The source raised ``error``: neither the provider's fault nor the transport's."""
        ...


class Upload:
    """A body on its way out, piece by piece, held to its declared length."""

    __slots__ = ("_clock", "_missing_bytes", "_pieces")

    def __init__(self, pieces: AsyncIterator[bytes], length: int | None, clock: UploadClock) -> None:
        self._pieces = pieces
        self._missing_bytes = length
        self._clock = clock

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._clock.hungry()
        try:
            piece = await self._next()
        except StopAsyncIteration:
            self._clock.written()
            raise
        except Exception as error:
            self._clock.failed(error)
            raise
        self._clock.taken()
        return piece

    async def _next(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if self._missing_bytes:
                raise InvalidRequest("The request body ended before its declared length.") from None
            raise
        if self._missing_bytes is not None:
            self._missing_bytes -= len(piece)
            if self._missing_bytes < 0:
                raise InvalidRequest("The request body goes on beyond its declared length.")
        return piece


class Slices:
    """A body in memory as pieces."""

    __slots__ = ("_body", "_offset")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = self._body[self._offset : self._offset + SLICE_BYTES]
        if not piece:
            raise StopAsyncIteration
        self._offset += len(piece)
        return piece
