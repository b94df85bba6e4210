"""A provider's answer, from its head on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from core.errors import UpstreamError
from core.headers import Headers
from transport import failures


class Source(Protocol):
    """The connection that an answer still comes on."""

    def take_unread(self) -> bytes:
        """What has come and nobody has read; ``b""`` when there is nothing."""
        ...

    def wait(self) -> asyncio.Future[bool]:
        """Done when there is something to read, or the answer has been settled."""
        ...

    def pour(self, take: Callable[[bytes], bool]) -> asyncio.Future[bool]:
        """Give to ``take`` what comes from now on. Done, with False, when it has enough; or when the answer has been
        settled."""
        ...

    def give_up(self) -> None:
        """Close."""
        ...


class Answer:
    """:class:`transport.messages.UpstreamResponse` on a socket. Outlives its use of the connection."""

    __slots__ = ("_failure", "_rest", "_source", "headers", "status")

    def __init__(self, status: int, headers: Headers, source: Source | None, rest: bytes) -> None:
        """``source``: where the body is still to come from; None: it is all there, in ``rest``."""
        self.status = status
        self.headers = headers
        self._source = source
        self._rest = rest
        self._failure: Exception | None = None

    def __repr__(self) -> str:
        return f"<answer {self.status} {'under way' if self._source is not None else 'ended'}>"

    def settle(self, rest: bytes, failure: Exception | None) -> None:
        """The connection has done its part: ``rest`` is what is unread, then comes the end, or ``failure``."""
        self._source = None
        self._rest = rest
        self._failure = failure

    async def read(self) -> bytes:
        """See :meth:`transport.messages.UpstreamResponse.read`."""
        while self._source is not None:
            piece = self._source.take_unread()
            if piece:
                return piece
            await self._source.wait()
        return self._settled()

    async def pass_on(self, take: Callable[[bytes], bool], ready: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`transport.messages.UpstreamResponse.pass_on`."""
        try:
            while True:
                source = self._source
                piece = source.take_unread() if source is not None else self._settled()
                if piece:
                    if not take(piece):
                        await ready()
                elif source is None:
                    return
                elif not await source.pour(take):
                    await ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See :meth:`transport.messages.UpstreamResponse.close`."""
        if self._source is not None:
            source = self._source
            self.settle(b"", failures.cut())
            source.give_up()
        elif self._failure is not None:
            # Whoever was told knows its frames, and these this answer: as a circle they would stay until the garbage
            # collector comes round, with the request that they are about.
            self._failure = failures.cut()

    def _settled(self) -> bytes:
        """What is left, and then the end: each reading of a failed answer fails."""
        rest = self._rest
        if rest:
            self._rest = b""
        elif self._failure is not None:
            # As the protocol's own, without the traceback of an earlier reading.
            raise self._failure.with_traceback(None) if isinstance(self._failure, UpstreamError) else self._failure
        return rest
