"""What one worker has all others do: asked by a worker, relayed by the supervisor, answered by each of the others.

::

    worker A          supervisor             worker B, C
      Asked(1, task) ──▶ Asked(7, task) ────▶ do it
                         Done(7) ◀──────────── one each
      Answered(…, 1) ◀── all have, or died, or the time is over
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

from core.tasks import Tasks
from gateway.control import TASK_SECONDS, Answered, Asked, Done, Message, Task

_log = logging.getLogger("sluice.workers")

# A supervisor that does not answer in its time either is stuck, or of a version that knows no tasks.
_SUPERVISOR_SECONDS = 1.0

_Kind = TypeVar("_Kind", bound=Task)


class TaskFailed(Exception):
    """A task that cannot be done, for a reason that the log has told already."""


class Alone:
    """The one process of a gateway has no others."""

    async def ask(self, task: Task, timeout_seconds: float = TASK_SECONDS) -> Answered:
        return Answered(0)

    def on(self, kind: type[_Kind], handler: Callable[[_Kind], Awaitable[None]]) -> None:
        """Nobody will ask."""


class Tasked:
    """A worker's part: asks for tasks, and does those of others."""

    def __init__(self, send: Callable[[Message], None], tasks: Tasks) -> None:
        """``send`` tells the supervisor; ``tasks`` owns what is being done."""
        self._send = send
        self._tasks = tasks
        self._handlers: dict[object, Callable[[Any], Awaitable[None]]] = {}
        self._waiting: dict[int, asyncio.Future[Answered]] = {}
        self._number = 0

    def on(self, kind: type[_Kind], handler: Callable[[_Kind], Awaitable[None]]) -> None:
        """As :meth:`gateway.control.Others.on`."""
        self._handlers[kind] = handler

    async def ask(self, task: Task, timeout_seconds: float) -> Answered:
        """As :meth:`gateway.control.Others.ask`."""
        self._number += 1
        number = self._number
        answered: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            self._send(Asked(number, task, timeout_seconds))
            async with asyncio.timeout(timeout_seconds + _SUPERVISOR_SECONDS):
                return await answered
        except TimeoutError:
            return Answered(count=1, silent=1)
        finally:
            del self._waiting[number]

    def asked(self, message: Asked) -> None:
        """Another worker asks for something."""
        self._tasks.spawn(self._do(message), f"{type(message.task).__name__} for another worker")

    def answered(self, message: Answered) -> None:
        """The others have answered."""
        waiting = self._waiting.get(message.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _do(self, message: Asked) -> None:
        handler = self._handlers.get(type(message.task))
        failed = handler is None
        try:
            if handler is not None:
                await handler(message.task)
        except TaskFailed:
            failed = True
        except Exception:
            failed = True
            _log.exception("what another worker asked for could not be done: %s", type(message.task).__name__)
        finally:
            self._send(Done(message.number, failed))


class Addressee(Protocol):
    """Fits :class:`gateway.workers.Worker`."""

    def tell(self, message: Message) -> None: ...


class _Relay:
    __slots__ = ("asker", "count", "failed", "number", "timer", "waiting")

    def __init__(self, asker: Addressee, number: int, waiting: set[Addressee]) -> None:
        self.asker = asker
        self.number = number
        self.waiting = waiting
        self.count = len(waiting)
        self.failed = 0
        self.timer: asyncio.TimerHandle | None = None


class Relays:
    """The supervisor's part: sends a task on and collects the answers."""

    def __init__(self) -> None:
        self._relays: dict[int, _Relay] = {}
        self._number = 0

    def asked(self, asker: Addressee, message: Asked, others: Iterable[Addressee]) -> None:
        """``asker`` has something for the ``others``."""
        self._number += 1
        number = self._number
        relay = _Relay(asker, message.number, set(others))
        self._relays[number] = relay
        for other in relay.waiting:
            other.tell(Asked(number, message.task))
        relay.timer = asyncio.get_running_loop().call_later(message.timeout_seconds, self._end, number)
        self._look(number)

    def done(self, worker: Addressee, message: Done) -> None:
        """``worker`` has answered; too late is told to nobody."""
        relay = self._relays.get(message.number)
        if relay is not None and worker in relay.waiting:
            relay.waiting.discard(worker)
            relay.failed += message.failed
            self._look(message.number)

    def gone(self, worker: Addressee) -> None:
        """``worker`` has died: the next in its place starts with what is new."""
        for number, relay in list(self._relays.items()):
            relay.waiting.discard(worker)
            self._look(number)

    def close(self) -> None:
        """No answer is waited for any more."""
        for number in list(self._relays):
            self._end(number)

    def _look(self, number: int) -> None:
        if not self._relays[number].waiting:
            self._end(number)

    def _end(self, number: int) -> None:
        relay = self._relays.pop(number)
        if relay.timer is not None:
            relay.timer.cancel()
        relay.asker.tell(Answered(relay.count, relay.failed, len(relay.waiting), relay.number))
