"""Request bodies that do not go out in one write, on their way to a provider, with the clock that runs while they go."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol

from core.errors import InvalidRequest
from core.tasks import Tasks
from transport.messages import Pieces

SLICE_BYTES: Final = 1024 * 1024
"""Bodies in memory above :data:`WHOLE_BYTES` are written in slices: a provider that stops reading is noticed, and one
large write (and its encryption) does not hold the event loop."""

WHOLE_BYTES: Final = 64 * 1024
"""Up to this a body goes out in one write with its head."""


class Outlet(Protocol):
    """The connection, as an upload sees it. Told who is waited for: a piece that stays means a provider that stopped
    reading."""

    def put(self, data: bytes | memoryview) -> bool:
        """Write; whether there is room for more. If not, :meth:`Upload.go_on` is called when there is."""
        ...

    def taken(self) -> None:
        """The connection has the word."""
        ...

    def hungry(self) -> None:
        """The body's source has the word: its pace is bounded elsewhere."""
        ...

    def written(self) -> None:
        """The body is written whole."""
        ...

    def failed(self, error: Exception) -> None:
        """The source raised ``error``: neither the provider's fault nor the transport's."""
        ...


class Upload(Protocol):
    """A body on its way out."""

    def begin(self, outlet: Outlet) -> None:
        """The head is written, it is the body's turn."""
        ...

    def go_on(self) -> None:
        """There is room again."""
        ...

    def stop(self) -> None:
        """The connection is gone, or needs the rest no more."""
        ...


class SlicedUpload:
    """A large body in memory."""

    __slots__ = ("_outlet", "_views")

    def __init__(self, pieces: Pieces) -> None:
        self._views = [memoryview(piece) for piece in reversed(pieces) if len(piece)]
        self._outlet: Outlet | None = None

    def begin(self, outlet: Outlet) -> None:
        """See :class:`Upload`."""
        self._outlet = outlet
        self.go_on()

    def go_on(self) -> None:
        """See :class:`Upload`."""
        outlet = self._outlet
        if outlet is None:
            return
        views = self._views
        room = True
        while room and views:
            view = views.pop()
            if len(view) > SLICE_BYTES:
                views.append(view[SLICE_BYTES:])
                view = view[:SLICE_BYTES]
            outlet.taken()
            room = outlet.put(view)
        if not views:
            self.stop()
            outlet.written()

    def stop(self) -> None:
        """See :class:`Upload`."""
        self._outlet = None


class StreamedUpload:
    """A body that comes in pieces, held to its declared length, or framed in chunks (RFC 9112 section 7.1)."""

    __slots__ = ("_missing_bytes", "_pieces", "_room", "_task", "_tasks")

    def __init__(self, pieces: AsyncIterator[bytes], length: int | None, tasks: Tasks) -> None:
        self._pieces = pieces
        self._missing_bytes = length
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def begin(self, outlet: Outlet) -> None:
        """See :class:`Upload`."""
        self._task = self._tasks.spawn(self._run(outlet), "upload")

    def go_on(self) -> None:
        """See :class:`Upload`."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def stop(self) -> None:
        """See :class:`Upload`."""
        # Let go of: a task that was cancelled knows its frames, and they know this upload. As a circle they would stay,
        # with what the client has sent, until the garbage collector comes round.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _run(self, outlet: Outlet) -> None:
        chunked = self._missing_bytes is None
        try:
            while True:
                outlet.hungry()
                piece = await anext(self._pieces, None)
                if piece is None:
                    break
                if not piece:
                    continue  # in chunks, it would be the end
                self._count(len(piece))
                outlet.taken()
                if not outlet.put(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece):
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
            if self._missing_bytes:
                raise InvalidRequest("The request body ended before its declared length.")
        except Exception as error:
            self._task = None  # which `stop` would cancel, but it ends here by itself
            outlet.failed(error)
            return
        self._task = None
        if chunked:
            outlet.put(b"0\r\n\r\n")
        outlet.written()

    def _count(self, length: int) -> None:
        if self._missing_bytes is not None:
            self._missing_bytes -= length
            if self._missing_bytes < 0:
                raise InvalidRequest("The request body goes on beyond its declared length.")
