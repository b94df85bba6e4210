"""A writer that loses nothing while the database is away: what it cannot take waits on the disk, in its order.

An entry is *kept* when the database has it or the disk does (storage/spool.py). As long as anything waits on the disk, what
is new is added there, so that nothing overtakes; once all of it has been written, the database is written to again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from core.tasks import Tasks
from storage.errors import StorageUnavailable
from storage.spool import Spool, SpoolFull

T = TypeVar("T")

MOST_WAITING = 1000
BATCH = 100
PATIENCE_SECONDS = 1.0
"""So long the database may take before the disk is asked instead."""
_FIRST_RETRY_SECONDS = 0.25
_LAST_RETRY_SECONDS = 15.0
_TAKE_OVER_SECONDS = 60.0

_log = logging.getLogger("sluice.storage")


class Observer:
    """Told what becomes of entries; here by nothing."""

    def waiting(self, count: int) -> None:
        """So many are not kept yet."""

    def spooled(self, count: int) -> None:
        """So many more are on the disk."""

    def replayed(self, count: int) -> None:
        """So many more have gone from the disk to the database."""

    def on_disk(self, count: int) -> None:
        """So many are on the disk now, those that were taken over too."""


class WriterFull(Exception):
    """As many entries wait as may."""


class _Waiting(Generic[T]):
    def __init__(self, entry: T) -> None:
        self.entry = entry
        self.kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def settle(self, kept: bool) -> None:
        if not self.kept.done():
            self.kept.set_result(kept)


class SpooledWriter(Generic[T]):
    """Writes entries of one kind, for one event loop.

    ``sink`` writes some to the database, all or none, and passes over those that it has already; it raises
    :class:`StorageUnavailable` where it cannot now.
    """

    def __init__(
        self,
        name: str,
        sink: Callable[[Sequence[T]], Awaitable[object]],
        spool: Spool[T],
        observer: Observer | None = None,
        *,
        most_waiting: int = MOST_WAITING,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """``name`` is for the log."""
        self._name = name
        self._sink = sink
        self._spool = spool
        self._observer = observer or Observer()
        self._most_waiting = most_waiting
        self._patience_seconds = patience_seconds
        self._tasks = Tasks()
        self._queue: list[_Waiting[T]] = []
        self._wake = asyncio.Event()
        self._taking: asyncio.Task[None] | None = None
        self._replaying: asyncio.Task[None] | None = None
        """There is one as long as anything waits on the disk."""
        self._late: asyncio.Task[bool] | None = None
        """A write that took too long and has not ended."""
        self._spooling = asyncio.Lock()
        self.trouble: str | None = None
        """Why the database was not written to the last time; None where it was."""
        self._told = 0
        """The highest level at which the log was told of it."""
        self.refused: str | None = None
        """Why the disk did not take what the database had not; None where all is kept."""

    @property
    def waiting_entries(self) -> int:
        """What is neither in the database nor on the disk yet."""
        return len(self._queue)

    @property
    def pending_entries(self) -> int:
        """What waits on the disk."""
        return self._spool.pending_entries

    async def count_all(self) -> int:
        """At most so many are not in the database yet: on the disk by any process of this machine, or here in memory."""
        return len(self._queue) + await _in_thread(self._spool.count_all)

    def why_full(self) -> str | None:
        """Why no further entry should come, where that is so. Those that are under way still are taken."""
        if self.refused is not None:
            return self.refused
        if not self._spool.has_room:
            return "as much waits on the disk as may"
        if len(self._queue) > self._most_waiting // 2:
            return "too many entries are being written"
        return None

    def start(self) -> None:
        """Write what earlier processes have left on the disk. Reads one directory, in this thread."""
        try:
            if self._spool.take_over():
                self._observer.on_disk(self._spool.pending_entries)
                self._replay_from_now()
        except OSError as error:
            _log.warning("what waits on the disk of the %s cannot be read: %s", self._name, error.strerror)

    async def append(self, entry: T) -> bool:
        """Write ``entry``; whether it is kept by now. One that is not is tried further on, as long as this process lives.

        Raises:
            WriterFull: too many are not kept.
        """
        if len(self._queue) >= self._most_waiting:
            raise WriterFull(f"{len(self._queue)} entries of the {self._name} are not kept yet")
        waiting = _Waiting(entry)
        self._queue.append(waiting)
        self._observer.waiting(len(self._queue))
        self._wake.set()
        if self._taking is None:
            self._taking = self._tasks.spawn(self._take(), f"{self._name} writer")
        return await waiting.kept

    async def close(self, within_seconds: float) -> list[T]:
        """Keep what has come, and end; gives what could be kept nowhere. What waits on the disk stays there."""
        deadline = asyncio.get_running_loop().time() + within_seconds
        while (self._queue or self._replaying) and self.trouble is None and self.refused is None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.sleep(min(0.01, left))
        await self._tasks.cancel()
        lost = [waiting.entry for waiting in self._queue]
        if lost:
            try:
                await _in_thread(self._spool.append, lost)
                lost = []
            except (OSError, SpoolFull) as error:
                _log.error("the disk does not take %d entries of the %s: %s", len(lost), self._name, _words(error))
        for waiting in self._queue:
            waiting.settle(not lost)
        self._queue.clear()
        await _in_thread(self._spool.close)
        return lost

    async def _take(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_TAKE_OVER_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                await self._take_over()
                continue
            batch = self._queue[:BATCH]
            if batch:
                await self._keep(batch)
                del self._queue[: len(batch)]
                self._observer.waiting(len(self._queue))
            else:
                self._wake.clear()

    async def _take_over(self) -> None:
        """Workers end while this one lives."""
        async with self._spooling:
            try:
                if await _in_thread(self._spool.take_over):
                    self._observer.on_disk(self._spool.pending_entries)
                    self._replay_from_now()
            except OSError as error:
                _log.warning("what waits on the disk of the %s cannot be read: %s", self._name, error.strerror)

    async def _keep(self, batch: list[_Waiting[T]]) -> None:
        """Ends when ``batch`` is kept."""
        entries = [waiting.entry for waiting in batch]
        pause = _FIRST_RETRY_SECONDS
        while True:
            asked = self._replaying is None
            if asked and await self._write_in_time(entries):
                break
            async with self._spooling:
                if self._replaying is None and not asked:
                    # All that was on the disk has been written meanwhile.
                    continue
                try:
                    await _in_thread(self._spool.append, entries)
                except (OSError, SpoolFull) as error:
                    self._refuse(error, len(entries))
                else:
                    self._observer.spooled(len(entries))
                    self._observer.on_disk(self._spool.pending_entries)
                    self._replay_from_now()
                    break
            # Whoever waits is told that it may be lost; here it is tried on.
            for waiting in batch:
                waiting.settle(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY_SECONDS)
        if self.refused is not None:
            _log.info("the %s is kept again", self._name)
            self.refused = None
        for waiting in batch:
            waiting.settle(True)

    def _refuse(self, error: Exception, count: int) -> None:
        if self.refused is None:
            _log.error(
                "%d entries of the %s are in memory alone: the database does not take them (%s), and the disk does not: %s",
                count,
                self._name,
                self.trouble,
                _words(error),
            )
        self.refused = f"the disk takes no more: {_words(error)}"

    async def _write_in_time(self, entries: Sequence[T]) -> bool:
        """Whether the database has them. A write that takes too long is not ended but left to itself: a second time
        does no harm."""
        if self._late is None:
            self._late = self._tasks.spawn(self._write(entries), f"{self._name} write")
            done, _ = await asyncio.wait({self._late}, timeout=self._patience_seconds)
            if done:
                return self._late_result()
            # No more than that yet: a first use, which makes the database, takes its time on a busy machine.
            self._note(logging.INFO, "it does not answer in time")
            return False
        await asyncio.wait({self._late}, timeout=self._patience_seconds)
        if self._late.done():
            self._late = None
            return await self._write_in_time(entries)
        return False

    def _late_result(self) -> bool:
        done, self._late = self._late, None
        return done is not None and not done.cancelled() and done.result()

    async def _write(self, entries: Sequence[T]) -> bool:
        try:
            await self._sink(entries)
        except StorageUnavailable as error:
            self._note(logging.WARNING, str(error))
            return False
        except Exception:
            # A fault of ours must not lose what is to be kept, nor let what is newer overtake it.
            if self._told < logging.ERROR:
                _log.exception("the %s cannot be written", self._name)
            self.trouble, self._told = "it fails", logging.ERROR
            return False
        if self.trouble is not None:
            _log.info("the %s is written to the database again", self._name)
            self.trouble, self._told = None, 0
        return True

    def _note(self, level: int, trouble: str) -> None:
        if self._told < level:
            _log.log(level, "the %s waits on the disk for the database: %s", self._name, trouble)
            self._told = level
        self.trouble = trouble

    def _replay_from_now(self) -> None:
        if self._replaying is None:
            self._replaying = self._tasks.spawn(self._replay(), f"{self._name} replay")

    async def _replay(self) -> None:
        pause = _FIRST_RETRY_SECONDS
        while True:
            if self._late is not None:
                await asyncio.wait({self._late})
                self._late = None
            try:
                async with self._spooling:
                    entries = await _in_thread(self._spool.peek, BATCH)
                    if not entries:
                        self._replaying = None
                        return
                written = await self._write(entries)
                if written:
                    async with self._spooling:
                        await _in_thread(self._spool.drop)
            except OSError as error:
                _log.error("what waits on the disk of the %s cannot be read: %s", self._name, _words(error))
                written = False
            if written:
                self._observer.replayed(len(entries))
                self._observer.on_disk(self._spool.pending_entries)
                pause = _FIRST_RETRY_SECONDS
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY_SECONDS)


async def _in_thread(work: Callable[..., T], *args: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work, *args)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
