"""The way of an event into the outbox, off the request path.

Most events wait in memory for at most `LINGER_SECONDS` and are then written together; those that tell of the configuration,
of tokens and of security (`COMMITTED`) are written at once, or, where the database is away, kept on the disk
(storage/writer.py), and :meth:`Outbox.commit_now` waits for that. What waits in memory is bounded: beyond it events are
shed, and counted by name.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from core.clock import Clock
from core.events import EVENTS, Event
from core.globs import GlobSet
from core.ids import new_event_id
from core.tasks import Tasks
from storage.errors import StorageUnavailable
from storage.spool import MAX_BYTES, Spool
from storage.webhook_records import OutboxEvent
from storage.writer import SpooledWriter, WriterFull
from webhooks.observer import Observer, Shed
from webhooks.payload import render_payload
from webhooks.subscriptions import Subscriptions
from webhooks.tally import Tally

NAME = "webhooks"
"""Of the spool's files."""
LINGER_SECONDS = 0.2
BATCH = 500
COMMITTED = ("config.*", "token.*", "auth.*", "secret.*", "credential.rejected", "credential.refresh*")
"""Globs over the names of events that are in the outbox before an API answers."""
_FIRST_RETRY_SECONDS = 0.25
_LAST_RETRY_SECONDS = 15.0
_CLOSE_SECONDS = 2.0

_COMMITTED_KINDS = frozenset(kind for kind in EVENTS if GlobSet(COMMITTED).matches(kind.name))

_log = logging.getLogger("sluice.webhooks")


class Bounds(msgspec.Struct, frozen=True):
    """Of what waits in memory to be written."""

    events: int = 10_000
    bytes: int = 32 << 20


class Store(Protocol):
    """Fits :class:`storage.webhooks.WebhookStore`, which is imported only when it is needed."""

    async def add(self, events: Sequence[OutboxEvent]) -> None: ...


class Outbox:
    """For one event loop. Until subscriptions are given (:meth:`follow`) nobody wants anything."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        spool: Path,
        clock: Clock,
        wake: Callable[[Iterable[str]], None],
        observer: Observer | None = None,
        *,
        refused: Mapping[str, Shed] | None = None,
        bounds: Bounds | None = None,
        max_spool_bytes: int = MAX_BYTES,
    ) -> None:
        """
        Args:
            spool: a directory for what waits for the database; it is made when it is needed.
            wake: told of webhooks for which there is something new in the outbox.
            refused: webhooks that take nothing now, and why; looked at for each event. Of those with a backlog, events that
                are committed are kept all the same.
            bounds: of memory.
            max_spool_bytes: of the disk.
        """
        self._store = store
        self._clock = clock
        self._wake = wake
        self._observer = observer or Observer()
        self._refused = refused if refused is not None else {}
        self._bounds = bounds or Bounds()
        self._subscriptions = Subscriptions(())
        self._writer = SpooledWriter("outbox of webhooks", self._add, Spool(spool, NAME, OutboxEvent, max_spool_bytes))
        self._tasks = Tasks()
        self._waiting: list[OutboxEvent] = []
        self._waiting_bytes = 0
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._committing: set[asyncio.Task[bool]] = set()
        self._shed = Tally("events that were to go to webhooks are shed: %s")
        self.trouble: str | None = None
        """Why the database did not take the last batch; None where it did."""

    @property
    def waiting(self) -> int:
        """Events in memory."""
        return len(self._waiting) + len(self._committing)

    @property
    def spooled(self) -> int:
        """Events that wait on the disk for the database."""
        return self._writer.pending_entries

    def start(self) -> None:
        """Write what ended processes have left on the disk."""
        self._writer.start()

    def follow(self, subscriptions: Subscriptions) -> None:
        """From now on these count."""
        self._subscriptions = subscriptions

    def offer(self, event: Event) -> None:
        """An observer of events: takes it for the webhooks that want it, if there are any. Waits for nothing."""
        if not self._subscriptions.wanted(type(event)):
            return
        event_id = new_event_id()
        webhooks = self._subscriptions.webhooks_for(event, event_id)
        if not webhooks:
            return
        committed = type(event) in _COMMITTED_KINDS
        if self._refused:
            webhooks = self._admitted(event, webhooks, committed)
            if not webhooks:
                return
        at = round(self._clock.time() * 1_000_000)
        entry = OutboxEvent(id=event_id, type=event.name, at=at, payload=render_payload(event, at), webhooks=webhooks)
        if committed:
            task = self._tasks.spawn(self._commit(entry), "webhook event")
            self._committing.add(task)
            task.add_done_callback(self._committing.discard)
        else:
            self._put(entry)

    async def commit_now(self) -> bool:
        """Wait until each event of `COMMITTED` that was offered before is kept: in the database, or, where that takes too
        long, on the disk. False: some are in memory alone, since neither takes them; the log has told so."""
        committing = tuple(self._committing)
        if not committing:
            return True
        await asyncio.wait(committing)
        return all(not task.cancelled() and task.exception() is None and task.result() for task in committing)

    async def close(self) -> None:
        """Write what has come, and end. What cannot be written any more is shed."""
        deadline = asyncio.get_running_loop().time() + _CLOSE_SECONDS
        self._many.set()
        if self._committing:
            await asyncio.wait(tuple(self._committing), timeout=_CLOSE_SECONDS)
        while self._waiting and self.trouble is None:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.005)
        for entry in await self._writer.close(_CLOSE_SECONDS):
            self._lose(entry.type, Shed.FULL, len(entry.webhooks))
        await self._tasks.cancel()
        for entry in self._waiting:
            self._lose(entry.type, Shed.FULL, len(entry.webhooks))
        self._waiting.clear()
        self._shed.close()

    def _admitted(self, event: Event, webhooks: tuple[str, ...], committed: bool) -> tuple[str, ...]:
        admitted = []
        for name in webhooks:
            why = self._refused.get(name)
            if why is None or (committed and why is Shed.BACKLOG):
                admitted.append(name)
            elif why is Shed.DISABLED:
                # The log was told when that began: nobody is to be told of it once a minute for ever.
                self._observer.shed(event.name, why, 1)
            else:
                self._lose(event.name, why)
        return tuple(admitted)

    def _put(self, entry: OutboxEvent) -> None:
        if len(self._waiting) >= self._bounds.events or self._waiting_bytes >= self._bounds.bytes:
            self._lose(entry.type, Shed.FULL, len(entry.webhooks))
            return
        self._waiting.append(entry)
        self._waiting_bytes += len(entry.payload)
        self._some.set()
        if len(self._waiting) >= BATCH:
            self._many.set()
        if self._writing is None:
            self._writing = self._tasks.spawn(self._write(), "webhook outbox")

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._many.wait()
            except TimeoutError:
                pass
            while self._waiting:
                batch = self._waiting[:BATCH]
                await self._keep(batch)
                del self._waiting[: len(batch)]
                self._waiting_bytes -= sum(len(entry.payload) for entry in batch)
            self._some.clear()
            self._many.clear()

    async def _keep(self, batch: Sequence[OutboxEvent]) -> None:
        """Ends when they are written, or are not to be."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._add(batch)
            except StorageUnavailable as error:
                if self.trouble is None:
                    _log.warning("events for webhooks wait in memory for the database: %s", error)
                self.trouble = str(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY_SECONDS)
                continue
            except Exception:
                # A fault of ours: the same again would fail alike, and hold up all that comes after.
                _log.exception("events for webhooks cannot be written")
                for entry in batch:
                    self._lose(entry.type, Shed.FAULT, len(entry.webhooks))
            else:
                if self.trouble is not None:
                    _log.info("events for webhooks are written again")
                    self.trouble = None
            return

    async def _commit(self, entry: OutboxEvent) -> bool:
        try:
            # What is imported for the first event is no fault of the database's, which has its time for itself.
            await self._store()
            return await self._writer.append(entry)
        except WriterFull:
            self._lose(entry.type, Shed.FULL, len(entry.webhooks))
            return False

    async def _add(self, entries: Sequence[OutboxEvent]) -> None:
        await (await self._store()).add(entries)
        for name, count in Counter(entry.type for entry in entries).items():
            self._observer.written(name, count)
        self._wake({name for entry in entries for name in entry.webhooks})

    def _lose(self, event_name: str, why: Shed, count: int = 1) -> None:
        self._observer.shed(event_name, why, count)
        self._shed.add(f"{event_name} ({why})", count)
