"""A worker's end of the channel to its supervisor."""

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from core.clock import Clock
from core.events import ConfigApplied, ConfigRejected, Event, Events, GatewayStarted, GatewayStopping
from core.tasks import Tasks
from gateway.control import (
    TASK_SECONDS,
    Answered,
    Asked,
    Channel,
    Drain,
    Message,
    Ready,
    Refused,
    Reload,
    Reloaded,
    Task,
)
from gateway.others import Tasked
from gateway.spread import Spread
from gateway.workers import Place

_log = logging.getLogger("sluice.workers")

_Kind = TypeVar("_Kind", bound=Task)


class Drained(Protocol):
    """What a worker's link asks of its :class:`gateway.server.Server`."""

    def stop(self) -> None:
        """End when what is in flight has ended; asked again: at once."""
        ...

    def hand_over(self) -> None:
        """The same, where another gateway serves the same sockets."""
        ...


class Link:
    """A worker's end of the channel to its supervisor, and so to the other workers (:class:`gateway.control.Others`)."""

    def __init__(self, place: Place, clock: Clock, tasks: Tasks) -> None:
        """``tasks`` owns what is done for other workers."""
        self._end = socket.socket(fileno=place.control)
        self._channel: Channel | None = None
        self._tasked = Tasked(self._send, tasks)
        self.spread = Spread(place.spread, place.slots, place.slot, clock.monotonic)

    def follow(self, server: Drained, reload: Callable[[str], object], events: Events) -> None:
        """From now on do what the supervisor says, and tell it what happens. What it said before was kept.

        Args:
            server: told to end, also when the supervisor is gone, however it went.
            reload: starts to read the configuration again, and is told why.
            events: where it shows what happens.
        """

        def received(message: Message) -> None:
            match message:
                case Reload(trigger):
                    reload(trigger)
                case Drain(handed_over):
                    (server.hand_over if handed_over else server.stop)()
                case Asked():
                    self._tasked.asked(message)
                case Answered():
                    self._tasked.answered(message)
                case _:
                    _log.warning("the supervisor says what is a worker's to say")

        def lost() -> None:
            _log.error("the supervisor is gone: draining")
            server.stop()

        self._channel = Channel(self._end, received, lost)
        events.subscribe(self._observe)

    async def ask(self, task: Task, timeout_seconds: float = TASK_SECONDS) -> Answered:
        """As :meth:`gateway.control.Others.ask`."""
        return await self._tasked.ask(task, timeout_seconds)

    def on(self, kind: type[_Kind], handler: Callable[[_Kind], Awaitable[None]]) -> None:
        """As :meth:`gateway.control.Others.on`; before :meth:`follow`, so that nobody is asked in vain."""
        self._tasked.on(kind, handler)

    def _send(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def close(self) -> None:
        self.spread.close()
        (self._channel or self._end).close()

    def _observe(self, event: Event) -> None:
        assert self._channel is not None
        match event:
            case GatewayStarted():
                self.spread.join()
                self._channel.send(Ready(event.revision))
            case GatewayStopping():
                self.spread.leave()
            case ConfigApplied():
                self._channel.send(Reloaded(event.revision))
            case ConfigRejected():
                self._channel.send(Refused(len(event.faults)))
