"""The audit as the program uses it: every entry is kept, be the database there or not, and the head of the chain is told.

The head goes to the log, as whoever can write to the database could cut the chain's tail unseen otherwise.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from storage.errors import AuditFull
from storage.records import AuditBreak, AuditEntry, AuditFilter, AuditHead, NewAuditEntry, Page, VerifiedAudit
from storage.spool import MAX_BYTES, Spool
from storage.writer import Observer, SpooledWriter, WriterFull

NAME = "audit"
MAX_TEXT = 500
"""Characters of any one text of an entry."""
MAX_VALUE_BYTES = 256 << 10
"""Of `before`, and of `after`."""
HEAD_SECONDS = 60.0
_CLOSE_SECONDS = 2.0

_log = logging.getLogger("sluice.audit")


class Store(Protocol):
    """Fits :class:`storage.audit.AuditStore`, which is imported only when it is needed."""

    async def append(self, entries: Sequence[NewAuditEntry]) -> AuditHead | None: ...

    async def list(
        self, wanted: AuditFilter | None = None, *, cursor: str | None = None, limit: int = 100
    ) -> Page[AuditEntry]: ...

    async def verify(self, expected_head: bytes | None = None) -> VerifiedAudit: ...


class AuditLog:
    """The audit of one database, for one event loop."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        spool: Path,
        exists: Callable[[], bool] = lambda: True,
        observer: Observer | None = None,
        *,
        max_spool_bytes: int = MAX_BYTES,
    ) -> None:
        """``spool`` is a directory for what waits for the database; it is made when it is needed.

        ``exists`` tells whether there is a database: to read makes none.
        """
        self._store = store
        self._exists = exists
        self._writer = SpooledWriter(NAME, self._write, Spool(spool, NAME, NewAuditEntry, max_spool_bytes), observer)
        self._head: AuditHead | None = None
        self._told: AuditHead | None = None
        self._telling: asyncio.TimerHandle | None = None

    @property
    def waiting_entries(self) -> int:
        """What is neither in the database nor on the disk yet."""
        return self._writer.waiting_entries

    @property
    def spooled_entries(self) -> int:
        """What waits on the disk for the database."""
        return self._writer.pending_entries

    async def waiting(self) -> int:
        """At most so many entries of this machine are not in the database yet. Asked before :meth:`list` is, it counts all
        that may be missing there."""
        return await self._writer.count_all()

    def start(self) -> None:
        """Write what ended processes have left on the disk."""
        self._writer.start()

    def require_room(self) -> None:
        """
        Raises:
            AuditFull: no further entry can be taken, so what it would tell of must not be done.
        """
        why = self._writer.why_full()
        if why is not None:
            raise AuditFull(
                f"The audit takes no more now: {why}. See the gateway's log, and mend the database or the disk."
            )

    async def append(self, entry: NewAuditEntry) -> None:
        """Gives back when ``entry`` is kept: in the database, or, where that takes too long, on the disk.

        Where neither takes it, what it tells of has been done all the same: it goes to the log instead, and is tried on.
        """
        entry = bounded(entry)
        # What is imported for the first entry is no fault of the database's, which has its time for itself.
        await self._store()
        try:
            kept = await self._writer.append(entry)
        except WriterFull:
            kept = False
        if not kept:
            _log.error("not kept yet: %s", msgspec.json.encode(entry).decode())

    async def list(
        self, wanted: AuditFilter | None = None, *, cursor: str | None = None, limit: int = 100
    ) -> Page[AuditEntry]:
        """Newest first; what waits (:meth:`waiting`) is not among them.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
            StorageUnavailable: not now.
        """
        if not self._exists():
            return Page(())
        return await (await self._store()).list(wanted, cursor=cursor, limit=limit)

    async def verify(self, expected_head: bytes | None = None) -> VerifiedAudit:
        """Follow the chain from its beginning (:meth:`storage.audit.AuditStore.verify`). Errors as of :meth:`list`."""
        if not self._exists():
            gone = None if expected_head is None else AuditBreak(1, "is missing: there is no database")
            return VerifiedAudit(head=None, broken=gone)
        return await (await self._store()).verify(expected_head)

    async def close(self) -> None:
        """Keep what has come, and end."""
        for entry in await self._writer.close(_CLOSE_SECONDS):
            _log.error("lost: %s", msgspec.json.encode(entry).decode())
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._tell_head()

    async def _write(self, entries: Sequence[NewAuditEntry]) -> None:
        head = await (await self._store()).append(entries)
        if head is None or head == self._head:
            return
        self._head = head
        if self._told is None:
            self._tell_head()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._tell_head)

    def _tell_head(self) -> None:
        self._telling = None
        if self._head is not None and self._head != self._told:
            _log.info("audit: the head is %s", self._head)
            self._told = self._head


def bounded(entry: NewAuditEntry) -> NewAuditEntry:
    """``entry`` as any database and the spool take it: no text too long, or of characters that are none."""
    changed = {}
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if isinstance(value, str):
            most = MAX_VALUE_BYTES if name in {"before", "after"} else MAX_TEXT
            # PostgreSQL takes no NUL, and nothing takes half of a pair of surrogates.
            text = value.replace("\0", "\ufffd").encode(errors="replace").decode()
            changed[name] = _shortened(text, most, value=name in {"before", "after"})
    return msgspec.structs.replace(entry, **changed)


def _shortened(text: str, most: int, *, value: bool) -> str:
    if not value:
        return text if len(text) <= most else text[: most - 1] + "…"
    size = len(text.encode())
    # Half of a JSON text is none.
    return text if size <= most else msgspec.json.encode({"left_out_bytes": size}).decode()
