"""How workers tell a listener of one of them what happens in the others: over a Unix socket of the listener's worker.

::

    listener's worker                              each other worker
      ForwardEvents(path, key, …) ── supervisor ──▶  connects to path
                                  ◀── Hello ──────
                                  ─── yes ───────▶  the task is done
                                  ◀── Part, Part …  what is wanted, from its ring
                                  ◀── Bye ────────  it ends in good order

It is not the channel to the supervisor, which must never be full. Nobody listens: there is no connection. The listener is
slow: nothing more is read here, the socket is full, and the other worker's ring moves on, which :class:`Part` tells.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from core.clock import Clock
from core.tasks import Tasks
from gateway.control import ForwardEvents
from gateway.event_ring import EventRing, Part
from gateway.others import TaskFailed

_LENGTH_BYTES = 4
_CONNECT_SECONDS = 1.0
_MOST_WRITTEN_BYTES = 256 << 10
_PLACE_SECONDS = 1.0
"""So often it is told that the place has moved, where nothing was wanted."""
_YES = b"\1"
_NO = b"\0"


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Who tells."""

    key: str
    """Of the listener."""
    process: str
    place: int
    """From where on."""
    has_all: bool
    """Whether nothing is missing between there and where the listener was."""


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """All has been told."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Hello | Part | Bye).decode


class Listener(Protocol):
    """Whom another worker tells."""

    def joined(self, hello: Hello, task: "asyncio.Task[None]") -> None:
        """``task`` reads from now on."""
        ...

    async def put(self, process: str, part: Part) -> None:
        """Gives back when there is room for more."""
        ...

    def left(self, process: str, *, orderly: bool) -> None:
        """Nothing more will come."""
        ...


def _frame(message: Hello | Part | Bye) -> bytes:
    body = _encode(message)
    return len(body).to_bytes(_LENGTH_BYTES) + body


async def _read(reader: asyncio.StreamReader) -> Hello | Part | Bye:
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
    message: Hello | Part | Bye = _decode(await reader.readexactly(length))
    return message


async def _closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        await reader.read(1)


class EventsDoor:
    """Where the other workers come to."""

    def __init__(self, path: str, tasks: Tasks, listener: Callable[[str], Listener | None]) -> None:
        self.path = path
        self._tasks = tasks
        self._listener = listener
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """
        Raises:
            OSError: there is no such place.
        """
        async with self._opening:
            if self._server is None:
                self._server = await asyncio.start_unix_server(self._accept, self.path)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.spawn(self._take(reader, writer), "events of another worker")

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener: Listener | None = None
        process, orderly = "", False
        try:
            hello = await _read(reader)
            if not isinstance(hello, Hello):
                return
            process = hello.process
            listener = self._listener(hello.key)
            writer.write(_NO if listener is None else _YES)
            task = asyncio.current_task()
            if listener is None or task is None:
                return
            listener.joined(hello, task)
            while isinstance(part := await _read(reader), Part):
                await listener.put(process, part)
            orderly = True
        except (asyncio.IncompleteReadError, OSError):
            # It has ended, as the listener is told.
            pass
        finally:
            if listener is not None:
                listener.left(process, orderly=orderly)
            writer.close()


class Forwarder:
    """Tells listeners of other workers of the events in ``ring``."""

    def __init__(self, ring: EventRing, process: str, clock: Clock, tasks: Tasks) -> None:
        self._ring = ring
        self._process = process
        self._clock = clock
        self._tasks = tasks
        self._keys: set[str] = set()

    async def forward(self, asked: ForwardEvents) -> None:
        """Begin to; gives back when the listener knows of it.

        Raises:
            TaskFailed: it cannot be reached, or is gone.
        """
        if asked.key in self._keys:
            return
        self._keys.add(asked.key)
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._tasks.spawn(self._tell(asked, told), "events for another worker")
        if not await told:
            raise TaskFailed

    async def _tell(self, asked: ForwardEvents, told: "asyncio.Future[bool]") -> None:
        ring, names, wake = self._ring, asked.wanted.names, asyncio.Event()
        ring.attend(names, wake.set)
        writer: asyncio.StreamWriter | None = None
        try:
            if asked.fresh:
                place, has_all = ring.place, True
            else:
                place, has_all = ring.place_after(names, asked.places.get(self._process, 0))
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(asked.path)
                writer.write(_frame(Hello(asked.key, self._process, place, has_all)))
                accepted = await reader.readexactly(1) == _YES
            if not told.done():
                told.set_result(accepted)
            if accepted:
                await self._tell_parts(asked, place, reader, writer, wake)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            # The listener is gone, or its worker.
            pass
        finally:
            if not told.done():
                told.set_result(False)
            if writer is not None:
                writer.close()
            ring.release(names, wake.set)
            self._keys.discard(asked.key)

    async def _tell_parts(
        self,
        asked: ForwardEvents,
        place: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        wake: asyncio.Event,
    ) -> None:
        # It says nothing, so what comes is its end.
        gone = self._tasks.spawn(_closed(reader), "end of another worker's listener")
        gone.add_done_callback(lambda _: wake.set())
        writer.transport.set_write_buffer_limits(high=_MOST_WRITTEN_BYTES)
        ring, sent_at, sent_place = self._ring, 0.0, place
        try:
            while not gone.done():
                wake.clear()
                part = ring.read(asked.wanted, place)
                place = part.place
                now = self._clock.monotonic()
                if part.events or part.missed or (place != sent_place and now - sent_at >= _PLACE_SECONDS):
                    writer.write(_frame(part))
                    sent_at, sent_place = now, place
                    await writer.drain()
                if part.more:
                    await asyncio.sleep(0)
                else:
                    await wake.wait()
        except asyncio.CancelledError:
            # This worker ends: what has happened last, if it fits.
            writer.write(_frame(ring.read(asked.wanted, place)) + _frame(Bye()))
            raise
        finally:
            gone.cancel()
