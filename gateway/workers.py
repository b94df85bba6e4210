"""Several processes on one listener: the supervisor binds, starts, watches and ends them."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from core.tasks import Tasks
from gateway.control import Answered, Asked, Channel, Done, Drain, Message, Ready, Refused, Reload, Reloaded
from gateway.others import Relays
from gateway.runs import PrivateFolder
from gateway.spread import Board
from telemetry.metrics import forget_worker

_log = logging.getLogger("sluice.workers")

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client's processes share their values; read by it when it is imported."""

LAST_GOOD = "SLUICE_LAST_GOOD"
"""The file in which workers keep a copy of the configuration in force, for those that take their places."""

WORKER = "SLUICE_WORKER"
"""Who a worker is: `SLOT.EPOCH`. A slot's next worker has its next epoch, so that no two are ever the same."""

_READY_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_MAX_BACKOFF_SECONDS = 30.0
# A worker that is told to end at once, or that has closed its channel, may still have this long.
_LAST_SECONDS = 5.0


class Place(msgspec.Struct, frozen=True):
    """What a worker is told on its command line: who it is, and the numbers of the descriptors that it inherits."""

    slot: int
    epoch: int
    slots: int
    sockets: tuple[int, ...]
    management_sockets: tuple[int, ...]
    control: int
    """Its end of the :class:`gateway.control.Channel`."""
    spread: int
    """The memory of the :class:`gateway.spread.Board`."""
    folder: int
    """The private folder: open as long as the worker runs, so that nobody takes it for left over."""

    def render(self) -> str:
        """The argument, for :meth:`parse`."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, argument: str) -> "Place":
        """Raises msgspec.MsgspecError: it is none."""
        return msgspec.json.decode(argument, type=cls)


def backoff_seconds(early_ends: int) -> float:
    """How long a slot stays empty after ``early_ends`` workers in a row have ended early: 0, 1, 2, 4 … 30.

    The first is replaced at once: it may well be the only one there is.
    """
    return 0.0 if early_ends < 2 else min(2.0 ** min(early_ends - 2, 16), _MAX_BACKOFF_SECONDS)


@dataclass(slots=True, eq=False)
class Worker:
    """What the supervisor knows of one worker."""

    slot: int
    epoch: int
    process: asyncio.subprocess.Process
    ready: bool = False
    """Whether it serves."""
    revision: str = ""
    """The configuration that it has in force, once it is ready."""
    faults: int = 0
    """How many the last configuration had, if it was refused."""
    channel: Channel = field(init=False, repr=False)
    killing: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)
    """What ends it, when the time comes."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def name(self) -> str:
        """As its files of metrics are called; no two are ever the same."""
        return f"{self.slot}.{self.epoch}"

    def tell(self, message: Message) -> None:
        """Send it ``message``; what it has no ears for yet is kept."""
        self.channel.send(message)

    def spare(self) -> None:
        """It is not killed after all."""
        if self.killing is not None:
            self.killing.cancel()


class Supervisor:
    """Owns the listening sockets, so that a worker's death loses no connection that waits in the backlog."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        count: int,
        folder: PrivateFolder,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """What it takes to start workers.

        Args:
            arguments: how the interpreter is told to start one, but for its place.
            environment: a worker's, but for what is its own.
            folder: for what the workers share; it is theirs alone.
            on_ready: called once, when all of them serve for the first time.
        """
        self._arguments = list(arguments)
        self._count = count
        self._folder = folder
        self._metrics_dir = folder.path / "metrics"
        self._environment = {
            **environment,
            METRICS_DIR: str(self._metrics_dir),
            LAST_GOOD: str(folder.path / "last-good"),
        }
        self._on_ready: Callable[[], None] | None = on_ready
        self._board = Board(count)
        self._sockets: list[socket.socket] = []
        self._management_sockets: list[socket.socket] = []
        self._running: dict[int, Worker] = {}
        self._relays = Relays()
        self._tasks = Tasks()
        self._stopping = asyncio.Event()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Those that run, by slot."""
        return tuple(self._running[slot] for slot in sorted(self._running))

    def is_stopping(self) -> bool:
        """Whether the workers have been told to end."""
        return self._stopping.is_set()

    def take_signals(self) -> None:
        """From now on signals are the workers'."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload, "signal")

    async def run(self, sockets: list[socket.socket], management_sockets: list[socket.socket]) -> int:
        """Serve until told to stop; the exit status."""
        self._metrics_dir.mkdir()
        self._sockets, self._management_sockets = sockets, management_sockets
        try:
            keepers = [self._tasks.spawn(self._keep(slot), f"worker {slot}") for slot in range(self._count)]
            statuses: list[int] = await asyncio.gather(*keepers)
            return max(statuses)
        finally:
            self._relays.close()
            self._close_sockets()
            self._board.close()
            self._folder.remove()

    def reload(self, trigger: str) -> None:
        """Have all workers read the configuration again."""
        for worker in self.workers:
            worker.tell(Reload(trigger))

    def stop(self) -> None:
        """Have all workers end when what is in flight has ended; asked again: at once."""
        if self.is_stopping():
            for worker in self.workers:
                self._kill_later(worker, _LAST_SECONDS, "it does not end")
        self._drain(Drain())

    def hand_over(self) -> None:
        """As :meth:`stop`, where other processes serve the same sockets by now."""
        if not self.is_stopping():
            self._drain(Drain(handed_over=True))

    def _drain(self, message: Drain) -> None:
        self._stopping.set()
        # Once the workers close theirs too, who comes is refused and need not wait for an answer that never comes.
        self._close_sockets()
        for worker in self.workers:
            worker.tell(message)

    def _close_sockets(self) -> None:
        for each in (*self._sockets, *self._management_sockets):
            each.close()

    def _kill_later(self, worker: Worker, seconds: float, why: str) -> None:
        """Kill ``worker`` in ``seconds``, unless it is spared or has ended."""

        def kill() -> None:
            _log.error("worker %d is killed: %s", worker.pid, why)
            worker.process.kill()

        worker.spare()
        worker.killing = asyncio.get_running_loop().call_later(seconds, kill)

    async def _keep(self, slot: int) -> int:
        """Keep a worker in ``slot`` until told to stop; the last one's exit status."""
        loop = asyncio.get_running_loop()
        stopping = self._stopping
        epoch = early_ends = status = 0
        while not stopping.is_set():
            began = loop.time()
            try:
                status = await self._run(slot, epoch)
            except OSError as error:
                _log.error("worker %d.%d cannot be started: %s", slot, epoch, error.strerror)
                status = 1
            epoch += 1
            early_ends = 1 if loop.time() - began >= _STEADY_SECONDS else early_ends + 1
            delay = backoff_seconds(early_ends)
            if delay and not stopping.is_set():
                _log.error("the next worker in slot %d is started in %g s", slot, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), delay)
        return max(status, 0)

    async def _run(self, slot: int, epoch: int) -> int:
        """Run one worker to its end; its exit status."""
        ours, theirs = socket.socketpair()
        try:
            process = await self._start(slot, epoch, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = self._running[slot] = Worker(slot, epoch, process)
        worker.channel = Channel(ours, partial(self._received, worker), partial(self._lost, worker))
        self._kill_later(worker, _READY_SECONDS, f"it is not ready after {_READY_SECONDS:g} s")
        if self.is_stopping():
            worker.tell(Drain())
        try:
            status = await process.wait()
        finally:
            worker.spare()
            worker.channel.close()
            del self._running[slot]
            self._relays.gone(worker)
            self._board.vacate(slot)
            forget_worker(str(self._metrics_dir), worker.name)
        if not self.is_stopping():
            _log.error("worker %d ended with status %d: a new one takes its place", process.pid, status)
        return status

    async def _start(self, slot: int, epoch: int, control: socket.socket) -> asyncio.subprocess.Process:
        place = Place(
            slot=slot,
            epoch=epoch,
            slots=self._count,
            sockets=tuple(each.fileno() for each in self._sockets),
            management_sockets=tuple(each.fileno() for each in self._management_sockets),
            control=control.fileno(),
            spread=self._board.descriptor,
            folder=self._folder.descriptor,
        )
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            "--worker",
            place.render(),
            pass_fds=[*place.sockets, *place.management_sockets, place.control, place.spread, place.folder],
            env={**self._environment, WORKER: f"{slot}.{epoch}"},
            # Signals of the terminal reach the supervisor alone, which tells its workers: once.
            start_new_session=True,
        )

    def _lost(self, worker: Worker) -> None:
        # It ends, most likely. One that lives on can be told nothing any more.
        self._kill_later(worker, _LAST_SECONDS, "it has closed its channel")

    def _received(self, worker: Worker, message: Message) -> None:
        match message:
            case Ready(revision):
                worker.spare()
                worker.ready, worker.revision = True, revision
                self._check_ready()
            case Reloaded(revision):
                worker.revision, worker.faults = revision, 0
            case Refused(faults):
                worker.faults = faults
            case Asked():
                # Those that start are asked too: they may have read the old state already.
                self._relays.asked(worker, message, (other for other in self.workers if other is not worker))
            case Done():
                self._relays.done(worker, message)
            case Reload() | Drain() | Answered():
                _log.warning("worker %d says what is its supervisor's to say", worker.pid)

    def _check_ready(self) -> None:
        all_ready = sum(worker.ready for worker in self.workers) == self._count
        if all_ready and self._on_ready is not None and not self.is_stopping():
            on_ready, self._on_ready = self._on_ready, None
            on_ready()
