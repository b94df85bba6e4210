"""Several processes on one listener: the supervisor binds, starts, watches and ends them."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from core.tasks import Tasks
from telemetry.metrics import forget_worker

_log = logging.getLogger("sluice.workers")

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client's processes share their values; read by it when it is imported."""

LAST_GOOD = "SLUICE_LAST_GOOD"
"""The file in which workers keep a copy of the configuration in force, for those that take their places."""

_RESPAWN_SECONDS = 1.0
_ORPHAN_CHECK_SECONDS = 1.0


class Supervisor:
    """Owns the listening sockets, so that a worker's death loses no connection that waits in the backlog."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], count: int) -> None:
        """``arguments``: how a worker is started, but for its sockets."""
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._count = count
        self._workers: set[asyncio.subprocess.Process] = set()
        self._tasks = Tasks()
        self._stopping = asyncio.Event()

    async def run(self, sockets: list[socket.socket], management_sockets: list[socket.socket]) -> int:
        """Serve until told to stop; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._tell, signal.SIGHUP)
        private = tempfile.mkdtemp(prefix="sluice-workers-")  # of this user alone
        metrics_dir = tempfile.mkdtemp(prefix="metrics-", dir=private)
        self._environment[METRICS_DIR] = metrics_dir
        self._environment[LAST_GOOD] = str(Path(private, "last-good"))
        bound = [*sockets, *management_sockets]
        for each in bound:
            each.set_inheritable(True)
        arguments = [
            *self._arguments,
            "--worker-sockets",
            ",".join(str(each.fileno()) for each in sockets),
            "--worker-management-sockets",
            ",".join(str(each.fileno()) for each in management_sockets),
        ]
        descriptors = [each.fileno() for each in bound]
        try:
            keepers = [
                self._tasks.spawn(self._keep(arguments, descriptors, metrics_dir), f"worker {number}")
                for number in range(self._count)
            ]
            statuses = await asyncio.gather(*keepers)
            return max(statuses, default=0)
        finally:
            for each in bound:
                each.close()
            shutil.rmtree(private, ignore_errors=True)

    async def _keep(self, arguments: list[str], descriptors: list[int], metrics_dir: str) -> int:
        """Keep one worker running until told to stop; its last exit status."""
        while True:
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                pass_fds=descriptors,
                env=self._environment,
                # Signals of the terminal reach the supervisor alone, which passes them on: once.
                start_new_session=True,
            )
            self._workers.add(worker)
            if self._stopping.is_set():
                worker.send_signal(signal.SIGTERM)
            status = await worker.wait()
            self._workers.discard(worker)
            forget_worker(metrics_dir, worker.pid)
            if self._stopping.is_set():
                return max(status, 0)
            _log.error("worker %d ended with status %d: a new one takes its place", worker.pid, status)
            # A worker that dies at once is not started in a busy loop.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RESPAWN_SECONDS)
                return max(status, 0)

    def _stop(self, number: int) -> None:
        self._stopping.set()
        self._tell(number)

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            worker.send_signal(number)


async def follow_supervisor(stop: Callable[[], None]) -> None:
    """In a worker: call ``stop`` when the supervisor is gone, however it went."""
    supervisor = os.getppid()
    while os.getppid() == supervisor:  # noqa: ASYNC110  nothing tells of it; a new parent is all there is to see
        await asyncio.sleep(_ORPHAN_CHECK_SECONDS)
    _log.error("the supervisor is gone: draining")
    stop()
