"""Another process takes the place of this one and no connection is lost: SIGUSR2, or ``./sluice upgrade``.

The successor is started as this process was, and inherits the listening sockets. Once it serves, this process drains;
until then nothing has changed, so that a successor that fails is no more than a line in the log.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from config.faults import ConfigFaults
from core.clock import Clock
from core.tasks import Tasks
from gateway.control import Channel, Message, Ready, Refused
from gateway.runs import RunFile, RunRecord, RuntimeFolder

_log = logging.getLogger("sluice.upgrade")

_READY_SECONDS = 60.0
# How long a successor that has failed may take to end.
_END_SECONDS = 60.0
# How much longer than the upgrade itself its asker waits, and how often it looks.
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.05
# So much of a reason fits into a message and a line.
_REASON_CHARACTERS = 2000


class Bound(msgspec.Struct, frozen=True):
    """Listening sockets by the numbers of their descriptors, and the address as it was asked for."""

    listen: str
    descriptors: tuple[int, ...]

    def take(self) -> list[socket.socket]:
        """The sockets, in the process that has inherited them."""
        return [socket.socket(fileno=number) for number in self.descriptors]


class Inheritance(msgspec.Struct, frozen=True):
    """What a successor is told on its command line."""

    predecessor: int
    control: int
    """Its end of the :class:`gateway.control.Channel`."""
    server: Bound
    management: Bound | None

    def render(self) -> str:
        """The argument, for :meth:`parse`."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, argument: str) -> "Inheritance":
        """Raises msgspec.MsgspecError: it is none."""
        return msgspec.json.decode(argument, type=cls)

    @property
    def descriptors(self) -> list[int]:
        """All that have to be inherited."""
        management = self.management.descriptors if self.management is not None else ()
        return [*self.server.descriptors, *management, self.control]


class Predecessor:
    """In a successor: the process that it takes the place of."""

    def __init__(self, control: int) -> None:
        # The predecessor says nothing. When it is gone before its time, its sockets are served all the same.
        self._channel = Channel(socket.socket(fileno=control), lambda _: None)

    def ready(self, revision: str) -> None:
        """This process serves: the other may go."""
        self._channel.send(Ready(revision))

    def refused(self, error: Exception) -> None:
        """This process cannot serve: the other must stay, and tell why."""
        faults = [str(fault) for fault in error.faults] if isinstance(error, ConfigFaults) else [str(error)]
        self._channel.send(Refused(len(faults), "; ".join(faults)[:_REASON_CHARACTERS]))

    def close(self) -> None:
        self._channel.close()


@dataclass(frozen=True, slots=True)
class Doors:
    """What a successor inherits: sockets, and the addresses as they were asked for."""

    listen: str
    sockets: list[socket.socket]
    management_listen: str | None
    management_sockets: list[socket.socket]

    def inheritance(self, control: int) -> Inheritance:
        """As the successor is told; ``control`` is its end of the channel."""
        management = None
        if self.management_listen is not None:
            management = Bound(self.management_listen, tuple(each.fileno() for each in self.management_sockets))
        server = Bound(self.listen, tuple(each.fileno() for each in self.sockets))
        return Inheritance(os.getpid(), control, server, management)


class UpgradeFailed(Exception):
    """No successor serves; the message says why."""


class Upgrader:
    """In a process that serves: starts a successor when it is asked to."""

    def __init__(
        self,
        arguments: Sequence[str] | None,
        doors: Doors,
        hand_over: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        """What an upgrade takes.

        Args:
            arguments: how the interpreter is told to start a successor, but for what it inherits; None: there can
                be none, as the configuration goes when this process ends.
            doors: the sockets that are handed over.
            hand_over: begins the drain.
            stopping: whether a drain has begun.
        """
        self._arguments = arguments
        self._doors = doors
        self.record: RunFile | None = None
        """Where whoever asks is told what came of it, once this process serves."""
        self._hand_over = hand_over
        self._stopping = stopping
        self._tasks = Tasks()
        self._reapers = Tasks()

    def take_signal(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self.ask)

    def ask(self) -> None:
        """Begin an upgrade, unless one has begun."""
        if len(self._tasks):
            _log.info("an upgrade is under way already")
        else:
            self._tasks.spawn(self._upgrade(), "upgrade")

    async def close(self) -> None:
        """End an upgrade that is under way: nobody takes the place of who was told to stop."""
        await self._tasks.cancel()
        await self._reapers.cancel()
        record, self.record = self.record, None
        if record is not None:
            record.close()

    async def _upgrade(self) -> None:
        try:
            successor = await self._start_successor()
        except UpgradeFailed as failed:
            _log.error("the upgrade failed, nothing has changed: %s", failed)
            if self.record is not None:
                self.record.failed(str(failed))
            return
        _log.info("process %d serves from now on, process %d drains", successor, os.getpid())
        if self.record is not None:
            self.record.handed_over(successor)
        self._hand_over()

    async def _start_successor(self) -> int:
        """The number of a process that serves the sockets.

        Raises:
            UpgradeFailed: there is none.
        """
        if os.getpid() == 1:
            raise UpgradeFailed("it is the first process of a container, which ends with it: start a new container")
        if self._arguments is None:
            raise UpgradeFailed("its configuration goes when it ends")
        if self._stopping():
            raise UpgradeFailed("it is stopping")
        ours, theirs = socket.socketpair()
        inheritance = self._doors.inheritance(theirs.fileno())
        told: asyncio.Queue[Message | None] = asyncio.Queue()
        channel = Channel(ours, told.put_nowait, lambda: told.put_nowait(None))
        try:
            # Not asyncio's, which kills its processes when the loop ends: this one outlives us.
            process = subprocess.Popen(  # noqa: ASYNC220  returns when the program is loaded, a millisecond or two
                [sys.executable, *self._arguments, "--inherited", inheritance.render()],
                pass_fds=inheritance.descriptors,
                # What ends our terminal's programs is not meant for it.
                start_new_session=True,
            )
        except OSError as error:
            channel.close()
            raise UpgradeFailed(f"no process can be started: {error.strerror}") from None
        finally:
            theirs.close()
        _log.info("process %d is started to take the place of process %d", process.pid, os.getpid())
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not isinstance(message := await told.get(), Ready):
                    if isinstance(message, Refused):
                        raise UpgradeFailed(message.reason)
                    if message is None:
                        raise UpgradeFailed(await _end_told(process))
            if self._stopping():
                raise UpgradeFailed("it was told to stop meanwhile")
        except TimeoutError:
            self._reapers.spawn(_end(process), "failed successor")
            raise UpgradeFailed(f"process {process.pid} was not ready after {_READY_SECONDS:g} s") from None
        except UpgradeFailed:
            self._reapers.spawn(_end(process), "failed successor")
            raise
        except asyncio.CancelledError:
            process.terminate()
            process.returncode = 0  # as below
            raise
        finally:
            channel.close()
        # It outlives us: nobody here waits for its end.
        process.returncode = 0
        return process.pid


async def _end_told(process: "subprocess.Popen[bytes]") -> str:
    """How a process that has closed its channel ended."""
    for _ in range(20):
        if process.poll() is not None:
            return f"process {process.pid} ended with status {process.returncode} before it was ready"
        await asyncio.sleep(_LOOK_SECONDS)
    return f"process {process.pid} closed its channel before it was ready"


async def _end(process: "subprocess.Popen[bytes]") -> None:
    """See a successor that has failed to its end. Some of its workers may serve, so it has time to drain."""
    process.terminate()
    for _ in range(int(_END_SECONDS / _LOOK_SECONDS)):
        if process.poll() is not None:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    process.kill()


def request_upgrade(folder: RuntimeFolder, config: Path, pid: int | None, clock: Clock) -> tuple[int, int]:
    """Have the gateway that serves ``config``, or the process ``pid``, start its successor; the numbers of both.

    Raises:
        UpgradeFailed: there is none such, or it could not; it serves on then.
    """
    asked = _find(folder.running(), str(config.resolve()), pid)
    try:
        os.kill(asked.pid, signal.SIGUSR2)
    except ProcessLookupError:
        raise UpgradeFailed(f"process {asked.pid} has just ended") from None
    deadline = clock.monotonic() + _READY_SECONDS + _PATIENCE_SECONDS
    while clock.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        running = folder.running()
        now = next((record for record in running if record.pid == asked.pid), None)
        if now is None:
            # It had nothing to wait for, and has ended before we looked.
            for record in running:
                if record.predecessor == asked.pid:
                    return asked.pid, record.pid
            raise UpgradeFailed(f"process {asked.pid} has ended, and no other has taken its place")
        if now.successor is not None:
            return asked.pid, now.successor
        if now.failures > asked.failures:
            raise UpgradeFailed(f"process {asked.pid} serves on: {now.failure}")
    raise UpgradeFailed(f"process {asked.pid} has not said what came of it: see its log")


def _find(running: list[RunRecord], config: str, pid: int | None) -> RunRecord:
    serving = [record for record in running if record.successor is None]
    found = [record for record in serving if (record.config == config if pid is None else record.pid == pid)]
    if not found:
        what = f"serves {config}" if pid is None else f"is process {pid}"
        others = ", ".join(f"{record.pid} ({record.config})" for record in serving) or "none"
        raise UpgradeFailed(f"no gateway of yours {what}; those that run: {others}")
    if len(found) > 1:
        several = ", ".join(f"{record.pid} on {record.listen}" for record in found)
        raise UpgradeFailed(f"several gateways serve {config}: choose one with --pid ({several})")
    return found[0]
