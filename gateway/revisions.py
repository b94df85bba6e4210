"""Every configuration that was put in force is kept: in the background, so that no edit waits for the database.

An edit or reload by the API is kept by the worker that made it. Of what comes otherwise every worker hears, and one of
them keeps it, with an entry of the audit.
"""

import asyncio
import logging
from collections import deque

import msgspec

from config.sources import SourceFile
from core.clock import Clock
from core.identity import Author
from core.tasks import Tasks
from gateway.stores import Stores
from storage.errors import StorageError
from storage.records import Files, NewAuditEntry, RevisionMeta

_log = logging.getLogger("sluice.config")

START = "start"
SECONDS_FOR_STORING = 2.0
"""An edit waits no longer for its revision to be kept, and the gateway's end neither."""

# So long after a file has changed, the worker that has written it must have told the others.
_SETTLED_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 1.0
_MOST_PAUSE_SECONDS = 15.0
_MOST_WAITING = 100
_REMEMBERED = 100

_FILE = Author("file", "file")
_AUTHORS = {"watch": _FILE, START: _FILE, "signal": Author("signal", "SIGHUP")}
"""By trigger, of what nobody has asked for by the API."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What brings a configuration into force."""

    trigger: str
    began: float
    """By the monotonic clock."""
    at: int = 0
    """When the files were written or read that it is made of, in microseconds since the Unix epoch."""
    replaced: str | None = None
    """The revision of the files that an edit has replaced; None: the files were found so."""
    author: Author | None = None
    """Who has asked this process for it; None: nobody, it came by a file, a signal or another worker."""
    comment: str | None = None


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that was put in force in the place of another."""

    before: str
    """What this process has served until then. Another's edit need not have come to it yet."""
    revision: str
    files: tuple[SourceFile, ...]
    origin: Origin


class RevisionKeeper:
    """Keeps revisions in the order in which they were put in force, and tries again while the database is away."""

    def __init__(self, stores: Stores, clock: Clock, tasks: Tasks, *, keeps_files: bool) -> None:
        """``tasks`` owns what goes on in the background; ``keeps_files``: what did not come by the API is kept too."""
        self._keeps_files = keeps_files
        self._stores = stores
        self._clock = clock
        self._tasks = tasks
        self._waiting: deque[tuple[Applied, asyncio.Future[str | None]]] = deque()
        self._filled = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._told = False
        self._first: tuple[Files, RevisionMeta] | None = None
        # Those of the API, and when they were told: a file that was written for one of them is nobody's edit by hand.
        self._by_api: deque[tuple[str, float]] = deque(maxlen=_REMEMBERED)

    def start(self, revision: str, files: tuple[SourceFile, ...]) -> None:
        """What is in force at start is kept too; where there is no database yet, with the first change."""
        self._running = self._tasks.spawn(self._run(), "revisions")
        origin = Origin(trigger=START, began=self._clock.monotonic(), at=self.now())
        applied = Applied(before="", revision=revision, files=files, origin=origin)
        self._first = _plain(files), _meta(applied)
        if self._keeps_files and self._stores.exists():
            self._tasks.spawn(self._keep_settled(applied), "revision at start")

    def now(self) -> int:
        """For :attr:`Origin.at`."""
        return round(self._clock.time() * 1_000_000)

    def expect(self, revision: str) -> None:
        """``revision`` comes by the API: by another worker, or by this one."""
        self._by_api.append((revision, self._clock.monotonic()))

    def note(self, applied: Applied) -> None:
        """Something was put in force: keep it, if it is for this process to keep."""
        if applied.origin.author is not None:
            self.expect(applied.revision)
            self._put(applied)
        elif self._keeps_files and applied.origin.trigger in _AUTHORS:
            self._tasks.spawn(self._keep_settled(applied), "revision of a file")

    async def settle(self) -> None:
        """Wait until all is kept, or it takes too long."""
        if self._waiting:
            await asyncio.wait([kept for _, kept in self._waiting], timeout=SECONDS_FOR_STORING)

    async def audit(self, author: Author, action: str, before: str, after: str) -> None:
        """Remember in the audit what nobody has asked for by the API; revisions before and after."""
        entry = NewAuditEntry(
            at=self.now(),
            actor=author.name,
            actor_kind=author.kind,
            address=author.address,
            action=action,
            resource="config",
            resource_id=after,
            before=_json(before),
            after=_json(after),
            outcome="done",
        )
        await self._stores.audit.append(entry)

    async def close(self) -> None:
        """Keep what is to be kept, if that is quick."""
        await self.settle()
        if self._running is not None:
            self._running.cancel()

    async def _keep_settled(self, applied: Applied) -> None:
        await asyncio.sleep(_SETTLED_SECONDS)
        if any(revision == applied.revision and at >= applied.origin.began for revision, at in self._by_api):
            return
        kept = self._put(applied)
        await asyncio.wait((kept,), timeout=SECONDS_FOR_STORING)
        # The audit has means of its own to wait for the database.
        before = kept.result() if kept.done() and not kept.cancelled() else applied.before
        if before:
            await self.audit(_author(applied), "config.apply", applied.before or before, applied.revision)

    def _put(self, applied: Applied) -> "asyncio.Future[str | None]":
        """Done when ``applied`` is kept: the one before it, "" where there is none, None where it was kept already."""
        kept: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= _MOST_WAITING:
            lost, forgotten = self._waiting.popleft()
            forgotten.cancel()
            _log.error("configuration %s is not kept: too many wait for the database", lost.revision[:12])
        self._waiting.append((applied, kept))
        self._filled.set()
        return kept

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._filled.wait()
            applied, kept = self._waiting[0]
            try:
                before = await self._store(applied)
            except StorageError as error:
                if not self._told:
                    self._told = True
                    _log.warning("configurations in force are kept when the database can be used again: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)
                continue
            except Exception:
                _log.exception("configuration %s cannot be kept", applied.revision[:12])
                before = applied.before
            pause = _FIRST_PAUSE_SECONDS
            # While it was being kept, it may have been given up for newer ones.
            if self._waiting and self._waiting[0][1] is kept:
                self._waiting.popleft()
            if not self._waiting:
                self._filled.clear()
                if self._told:
                    self._told = False
                    _log.info("the configurations in force are kept again")
            if not kept.done():
                kept.set_result(before)

    async def _store(self, applied: Applied) -> str | None:
        await self._stores.prepare()
        kept = await self._stores.revisions.keep(_plain(applied.files), _meta(applied), first=self._first)
        # From here on something is kept, and it is not needed any more.
        self._first = None
        if kept.added is None:
            return None
        return "" if kept.previous is None else kept.previous.revision


def _author(applied: Applied) -> Author:
    return applied.origin.author or _AUTHORS[applied.origin.trigger]


def _meta(applied: Applied) -> RevisionMeta:
    return RevisionMeta(
        revision=applied.revision,
        before=applied.origin.replaced,
        at=applied.origin.at,
        author=_shown(_author(applied)),
        trigger=applied.origin.trigger,
        comment=applied.origin.comment,
    )


def _shown(author: Author) -> str:
    return author.name if author.kind == author.name else f"{author.kind} {author.name}"


def _plain(files: tuple[SourceFile, ...]) -> Files:
    return tuple((file.relative, file.data) for file in files)


def _json(revision: str) -> str | None:
    return msgspec.json.encode({"revision": revision}).decode() if revision else None
