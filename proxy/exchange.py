"""One client request and its answer, in flight: all that handlers and pipeline share."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from core.headers import Headers


class RequestHead(msgspec.Struct, frozen=True):
    """A request up to the end of its header section."""

    method: str
    path: str
    """As sent, without the query."""
    query: str
    """As sent, without the question mark."""
    headers: Headers
    remote_ip: str
    """The client's address, behind trusted proxies too."""
    received_at: float
    """Reading of the monotonic clock when the head was complete."""


class Exchange(Protocol):
    """The pipeline knows no request handler, so that the transport under it can change.

    After a ``start`` that is not ``complete`` exactly one of ``finish`` and ``abort`` is called; without ``start``, ``abort``.
    """

    @property
    def request_id(self) -> str: ...

    @property
    def head(self) -> RequestHead: ...

    @property
    def closed(self) -> bool:
        """Whether the client has gone."""
        ...

    @property
    def started(self) -> bool:
        """Whether the answer's head was sent."""
        ...

    @property
    def bytes_in(self) -> int:
        """Body bytes received so far."""
        ...

    @property
    def bytes_out(self) -> int:
        """Body bytes handed to the transport so far."""
        ...

    def on_close(self, callback: Callable[[], None]) -> None:
        """``callback`` is called once when the client goes before the answer is finished."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end. Not reading is backpressure.

        Raises:
            core.errors.BodyTimeout: the client paused for longer than `server.body_idle_seconds`.
        """
        ...

    def start(self, status: int, headers: Sequence[tuple[str, str]], data: bytes = b"", *, complete: bool) -> None:
        """Send the head and, in the same write, ``data``: the whole body when ``complete``, else its beginning.

        A ``complete`` answer gets its ``content-length`` here, and ``finish`` is implied.
        """
        ...

    def write(self, data: bytes) -> bool:
        """Send body bytes, not empty, without waiting; False when the client's buffer is over its mark: then nothing
        more is to be sent before :meth:`drained` returns.

        Raises:
            ClientGone: nobody is there to take it.
        """
        ...

    async def drained(self) -> None:
        """Wait while the client's buffer is over its mark.

        Raises:
            ClientGone: the client took nothing for `server.send_idle_seconds`, or has gone.
        """
        ...

    def finish(self) -> None:
        """End the answer properly."""
        ...

    def abort(self) -> None:
        """Send what was written, then close the connection without a proper end, so that the cut shows."""
        ...


class ClientGone(Exception):
    """The client is no longer there to answer."""
