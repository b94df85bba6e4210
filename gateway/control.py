"""The channel between two processes of one gateway: a socketpair that carries one JSON object a line, both ways.

It joins the supervisor to each of its workers, and a gateway to the one that takes its place. Its end is a message
too: when a process is gone, however it went, the kernel tells whoever holds the other end.

What one worker has the others do is a **task**: the worker asks its supervisor, which relays the task to the others and
tells when all have answered (:mod:`gateway.others`).
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from management.event_feed import Wanted

_log = logging.getLogger("sluice.control")

_LINE_BYTES = 64 * 1024
# Whoever lets this much lie unread is stuck, and would be told nothing in time anyway.
_PENDING_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """To a worker, and a task: read the configuration again; ``trigger`` is told in its events."""

    trigger: str


class Apply(msgspec.Struct, frozen=True, tag="apply"):
    """A task: serve ``revision``, which is on the disk, and look whether an edit waits to be confirmed."""

    revision: str
    trigger: str


class RefreshTokens(msgspec.Struct, frozen=True, tag="refresh_tokens"):
    """A task: know the tokens that the API has made, as of ``version`` or later."""

    version: int


class RefreshAccounts(msgspec.Struct, frozen=True, tag="refresh_accounts"):
    """A task: know the accounts that have signed in to providers, as their store has them."""


class ClearCooldown(msgspec.Struct, frozen=True, tag="clear_cooldown"):
    """A task: take a provider's targets or credentials back into the rotation; None: whichever."""

    provider: str
    model: str | None = None
    credential: str | None = None


class ForwardEvents(msgspec.Struct, frozen=True, tag="forward_events"):
    """A task: tell a listener of another worker of the events here, as :mod:`gateway.event_links` does."""

    path: str
    """Of that worker's socket."""
    key: str
    """The listener's. One who is told already is left as it is."""
    wanted: Wanted
    places: dict[str, int]
    """Up to where the listener has been told, by process."""
    fresh: bool
    """Whether it wants nothing of what was before."""


Task = Reload | Apply | RefreshTokens | RefreshAccounts | ClearCooldown | ForwardEvents


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """How a task went with the other workers; one that has died meanwhile counts as done."""

    count: int
    """How many were asked."""
    failed: int = 0
    """Of these, how many could not do it; their logs say why."""
    silent: int = 0
    """Of these, how many had not answered in time."""
    number: int = 0
    """The asker's own."""

    @property
    def by_all(self) -> bool:
        """Whether all have done it."""
        return not self.failed and not self.silent


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    """From a worker: have all others do ``task``, and send :class:`Answered`. To a worker: do it, and send :class:`Done`."""

    number: int
    task: Task
    timeout_seconds: float = 0.0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """From a worker: the task of that number is done, or cannot be."""

    number: int
    failed: bool = False


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """To a worker: take no more and end when what is in flight has ended; said again: at once."""

    handed_over: bool = False
    """Another gateway serves the same sockets already: no load balancer has to take notice."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From a worker or a successor: connections are being accepted."""

    revision: str


class Reloaded(msgspec.Struct, frozen=True, tag="reloaded"):
    """From a worker: ``revision`` is in force."""

    revision: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From a worker or a successor: a configuration was not put in force."""

    faults: int
    reason: str = ""


Message = Reload | Drain | Ready | Reloaded | Refused | Asked | Done | Answered

TASK_SECONDS = 10.0
"""So long the other workers have for a task."""

_Kind = TypeVar("_Kind", bound=Task)


class Others(Protocol):
    """The other workers of this gateway: :class:`gateway.others.Alone` or :class:`gateway.workers.Link`."""

    async def ask(self, task: Task, timeout_seconds: float = TASK_SECONDS) -> Answered:
        """Have all others do ``task``; gives back when they have, or the time is over. Raises nothing.

        One that starts meanwhile is asked too, or starts with what is new.
        """
        ...

    def on(self, kind: type[_Kind], handler: Callable[[_Kind], Awaitable[None]]) -> None:
        """``handler`` does what others ask of this worker. What it raises is logged, and told to the asker as failed."""
        ...


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class Channel:
    """One end. Nothing waits: messages are queued for the other end, and what arrives is handed to ``received``."""

    __slots__ = ("_end", "_incoming", "_loop", "_lost", "_outgoing", "_received", "_writing")

    def __init__(
        self, end: socket.socket, received: Callable[[Message], None], lost: Callable[[], None] = lambda: None
    ) -> None:
        """Take ``end`` over. ``lost`` is called once when the other end is gone or stuck, not after :meth:`close`."""
        self._end: socket.socket | None = end
        self._received = received
        self._lost = lost
        self._incoming = b""
        self._outgoing = bytearray()
        self._writing = False
        self._loop = asyncio.get_running_loop()
        end.setblocking(False)
        self._loop.add_reader(end, self._readable)

    @property
    def closed(self) -> bool:
        return self._end is None

    def send(self, message: Message) -> None:
        """Queue ``message``; into a channel that is closed, it goes nowhere."""
        if self._end is None:
            return
        self._outgoing += _encode(message) + b"\n"
        if len(self._outgoing) > _PENDING_BYTES:
            _log.error("a process of this gateway reads none of its messages")
            self._lose()
            return
        self._flush()

    def close(self) -> None:
        """Close this end; what the kernel has taken still arrives."""
        if self._end is None:
            return
        end, self._end = self._end, None
        self._loop.remove_reader(end)
        self._loop.remove_writer(end)
        end.close()

    def _lose(self) -> None:
        self.close()
        self._lost()

    def _flush(self) -> None:
        assert self._end is not None
        try:
            del self._outgoing[: self._end.send(self._outgoing)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # The other end is gone: the reader is told so, after what it still had to say.
            self._outgoing.clear()
        if bool(self._outgoing) is not self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._end, self._flush)
            else:
                self._loop.remove_writer(self._end)

    def _readable(self) -> None:
        assert self._end is not None
        try:
            data = self._end.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._incoming = (self._incoming + data).split(b"\n")
        for line in lines:
            self._take(line)
            if self.closed:
                return
        if len(self._incoming) > _LINE_BYTES:
            _log.error("a process of this gateway sends a line without an end")
            self._lose()

    def _take(self, line: bytes) -> None:
        try:
            message = _decode(line)
        except msgspec.MsgspecError as error:
            # After an upgrade in place, a worker that is replaced runs newer code than its supervisor.
            _log.warning("a message between processes of this gateway is not understood: %s", error)
            return
        self._received(message)
