"""Writes the rows of the ledger: to the database, or, while that does not take them, to the disk (storage/spool.py).

One task does one thing after the other: new rows first, then some of what waits on the disk. So when the database is back
new rows go straight to it, while the disk is emptied beside, oldest first; the table is sorted by its key, so the order of
writing is of no matter. What is written twice counts once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from core.clock import Clock
from core.events import Event, LedgerDown, LedgerRecovered
from core.tasks import Tasks
from storage.errors import StorageUnavailable
from storage.ledger_records import LedgerRow
from storage.spool import Spool, SpoolFull

T = TypeVar("T")

MOST_WAITING = 20_000
"""Rows in memory, some 10 MB. There are more than a batch only where neither the database nor the disk takes any."""
PATIENCE_SECONDS = 1.0
"""So long a write to the database may take before the rows go to the disk instead. They wait for one write before theirs
at most: then the disk is asked, too."""
CLOSE_SECONDS = 2.0
"""So long the last rows are given to reach the database; then they go to the disk."""
_BATCH = 2000
"""Rows in one transaction."""
_AT_ONCE_ON_DISK = 500
"""Rows that one call of the spool takes or gives: its thread holds the interpreter for some 2 ms."""
_FIRST_RETRY_SECONDS = 0.25
_LAST_RETRY_SECONDS = 5.0
_TAKE_OVER_SECONDS = 60.0
_CLOSE_POLL_SECONDS = 0.01
_FAILING = "failing"

_log = logging.getLogger("sluice.ledger")


class Store(Protocol):
    """Fits :class:`storage.ledger.LedgerStore`, which is imported only when it is needed."""

    async def add(self, rows: Sequence[LedgerRow]) -> int: ...


class Observer:
    """Told what becomes of rows; here by nothing."""

    def waiting(self, count: int) -> None:
        """So many are neither in the database nor on the disk."""

    def on_disk(self, count: int) -> None:
        """So many are on the disk now, those that were taken over too."""

    def written(self, count: int, seconds: float) -> None:
        """So many more are in the database, by one transaction."""

    def lost(self, count: int) -> None:
        """There was no room for so many more."""


class Outage(msgspec.Struct, frozen=True):
    """The database has not been written to since a time."""

    reason: str
    """One of :class:`storage.errors.Reason`."""
    since: float
    """Seconds since the Unix epoch."""
    began: float
    """The same by the clock that never steps."""


class LedgerWriter:
    """For one event loop."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        spool: Spool[LedgerRow],
        clock: Clock,
        emit: Callable[[Event], object],
        observer: Observer,
    ) -> None:
        self._store = store
        self._spool = spool
        self._clock = clock
        self._emit = emit
        self._observer = observer
        self._tasks = Tasks()
        self._rows: list[LedgerRow] = []
        self._puts: deque[tuple[float, int]] = deque()
        """For the rows that wait: when some were put here, and how many had been by then."""
        self._put_rows = self._dropped_rows = 0
        self._wake = asyncio.Event()
        self._late: asyncio.Task[bool] | None = None
        """A write that took too long and has not ended."""
        self._pause_seconds = _FIRST_RETRY_SECONDS
        self._ask_at = 0.0
        """While the database is away it is asked again from then on; by the event loop's clock, as the next two."""
        self._disk_at = 0.0
        self._take_over_at = 0.0
        self._no_disk = False
        """It did not take some of the rows that wait, which is no reason to ask it before the database."""
        self._telling_loss = False
        self._unreadable = False
        self.outage: Outage | None = None
        """None where the last write succeeded, or there was none."""
        self.lost = 0
        """Rows for which there was no room, so far."""
        self._lost_before = 0
        """As many as the last write succeeded."""

    @property
    def waiting_rows(self) -> int:
        """What is neither in the database nor on the disk."""
        return len(self._rows)

    @property
    def spooled_rows(self) -> int:
        """What waits on the disk."""
        return self._spool.pending_entries

    def start(self) -> None:
        """Write what is put here, and what earlier processes have left on the disk."""
        self._tasks.spawn(self._run(), "ledger writer")

    def put(self, rows: list[LedgerRow]) -> None:
        """Write ``rows`` as soon as can be."""
        room = MOST_WAITING - len(self._rows)
        if len(rows) > room:
            self._lose(len(rows) - room)
            rows = rows[:room]
        self._rows += rows
        self._put_rows += len(rows)
        self._puts.append((_now(), self._put_rows))
        self._observer.waiting(len(self._rows))
        self._wake.set()

    async def close(self) -> None:
        """Write what was put here, or leave it on the disk for the next start, and end."""
        if len(self._tasks):
            deadline = _now() + CLOSE_SECONDS
            while self._rows and self.outage is None:
                if _now() >= deadline:
                    break
                await asyncio.sleep(_CLOSE_POLL_SECONDS)
            await self._tasks.cancel()
            while self._rows and await self._to_disk():
                pass
        if self._rows:
            self._lose(len(self._rows))
            self._rows.clear()
        await _in_thread(self._spool.close)

    async def _run(self) -> None:
        while True:
            if _now() >= self._take_over_at:
                await self._take_over()
            if self._rows and _now() >= self._disk_at:
                await self._keep()
                # Where a write takes as long as it takes the next rows to gather, there would never be time.
                if self._waited_seconds() < PATIENCE_SECONDS / 2 and self._spool.pending_entries and self._may_ask():
                    await self._replay()
            elif self._spool.pending_entries and self._may_ask():
                await self._replay()
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Until there is something to do."""
        times = [self._take_over_at]
        if self._rows:
            times.append(self._disk_at)
        if self._spool.pending_entries and self._late is None:
            times.append(self._ask_at)
        self._wake.clear()
        try:
            async with asyncio.timeout_at(min(times)):
                await self._wake.wait()
        except TimeoutError:
            pass  # it is time

    async def _keep(self) -> None:
        """See to the oldest rows."""
        batch = self._rows[:_BATCH]
        waited = 0.0 if self._no_disk else self._waited_seconds()
        left = min(PATIENCE_SECONDS, 2 * PATIENCE_SECONDS - waited)
        written = self.outage is None and left > 0 and await self._write_in_time(batch, left)
        if not written and await self._to_disk():
            return
        # The disk takes none: then there is no sooner way to learn that the database is back.
        if not written and not (self._may_ask() and await self._write_in_time(batch, PATIENCE_SECONDS)):
            self._disk_at = _now() + _FIRST_RETRY_SECONDS
            return
        self._drop(len(batch))

    async def _to_disk(self) -> bool:
        """Whether it has taken the oldest rows."""
        rows = self._rows[:_AT_ONCE_ON_DISK]
        try:
            await _in_thread(self._spool.append, rows)
        except (OSError, SpoolFull) as error:
            self._no_disk = True
            if not self._telling_loss:
                self._telling_loss = True
                _log.error(
                    "rows of the ledger are in memory alone, and are lost beyond %d: the database does not take them, and "
                    "the disk does not: %s",
                    MOST_WAITING,
                    _words(error),
                )
            return False
        self._drop(len(rows))
        self._observer.on_disk(self._spool.pending_entries)
        return True

    async def _replay(self) -> None:
        """Write the oldest of what waits on the disk."""
        try:
            rows = await _in_thread(self._spool.peek, _AT_ONCE_ON_DISK)
            if rows and await self._write_in_time(rows, PATIENCE_SECONDS):
                await _in_thread(self._spool.drop)
            self._unreadable = False
        except OSError as error:
            if not self._unreadable:
                self._unreadable = True
                _log.error("rows of the ledger that wait on the disk cannot be read: %s", _words(error))
            self._put_off()
        self._observer.on_disk(self._spool.pending_entries)

    async def _take_over(self) -> None:
        """What ended processes have left, of this machine's."""
        self._take_over_at = _now() + _TAKE_OVER_SECONDS
        try:
            if await _in_thread(self._spool.take_over):
                self._observer.on_disk(self._spool.pending_entries)
        except OSError as error:
            _log.warning("what waits on the disk of the ledger cannot be read: %s", _words(error))

    def _waited_seconds(self) -> float:
        """For how long the oldest row in memory has been there."""
        return _now() - self._puts[0][0] if self._puts else 0.0

    def _may_ask(self) -> bool:
        """Whether the database is to be tried now."""
        return self._late is None and _now() >= self._ask_at

    async def _write_in_time(self, rows: Sequence[LedgerRow], seconds: float) -> bool:
        """Whether the database has them within ``seconds``. A write that takes too long is not ended but left to itself:
        a second time does no harm."""
        if self._late is not None:
            return False
        try:
            # What is imported for the first rows is no fault of the database's, which has its time for itself.
            store = await self._store()
        except Exception:
            self._stumbled()
            return False
        writing = self._tasks.spawn(self._write(store, rows), "ledger write")
        done, _ = await asyncio.wait({writing}, timeout=seconds)
        if done:
            return not writing.cancelled() and writing.result()
        self._late = writing
        writing.add_done_callback(self._late_ended)
        return False

    def _late_ended(self, _writing: asyncio.Task[bool]) -> None:
        self._late = None
        self._wake.set()

    async def _write(self, store: Store, rows: Sequence[LedgerRow]) -> bool:
        began = self._clock.monotonic()
        try:
            added = await store.add(rows)
        except StorageUnavailable as error:
            self._failed(error.reason.value, str(error))
            return False
        except Exception:
            self._stumbled()
            return False
        self._observer.written(added, self._clock.monotonic() - began)
        self._succeeded()
        return True

    def _stumbled(self) -> None:
        """A fault of ours: it must not lose what is to be kept."""
        if self.outage is None or self.outage.reason != _FAILING:
            _log.exception("the ledger cannot be written")
        self._failed(_FAILING, "the gateway fails to write them")

    def _failed(self, reason: str, message: str) -> None:
        self._put_off()
        if self.outage is None:
            self.outage = Outage(reason, self._clock.time(), self._clock.monotonic())
            _log.warning("rows of the ledger wait on the disk: %s", message)
            self._emit(LedgerDown(reason=reason))

    def _put_off(self) -> None:
        self._ask_at = _now() + self._pause_seconds
        self._pause_seconds = min(self._pause_seconds * 2, _LAST_RETRY_SECONDS)

    def _succeeded(self) -> None:
        self._pause_seconds = _FIRST_RETRY_SECONDS
        self._disk_at = self._ask_at = 0.0
        self._telling_loss = False
        outage, self.outage = self.outage, None
        if outage is not None:
            lost = self.lost - self._lost_before
            _log.info("the ledger is written to the database again; %d of its rows were lost", lost)
            down_seconds = round(self._clock.monotonic() - outage.began, 3)
            self._emit(LedgerRecovered(down_seconds=down_seconds, lost=lost))
        self._lost_before = self.lost

    def _drop(self, count: int) -> None:
        del self._rows[:count]
        self._dropped_rows += count
        while self._puts and self._puts[0][1] <= self._dropped_rows:
            self._puts.popleft()
        self._no_disk = self._no_disk and bool(self._rows)
        self._observer.waiting(len(self._rows))

    def _lose(self, count: int) -> None:
        self.lost += count
        self._observer.lost(count)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _in_thread(work: Callable[..., T], *args: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work, *args)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
