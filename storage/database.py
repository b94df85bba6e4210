"""The one way to the database: transactions, and the errors of storage/errors.py.

::

    async with database.transaction() as connection:
        found = (await connection.execute(select(tokens.c.id))).scalars().all()

The first transaction opens the database: makes the file or meets the server, and brings the schema to the newest revision.
So a database that cannot be reached as the program starts is used as soon as it can be.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import msgspec
from sqlalchemy import Engine, text

from core.clock import Clock
from storage.address import Address, SqliteFile, parse_address
from storage.connection import Connection, call, transaction
from storage.engines import WRITES, make_engine, snapshot_options
from storage.errors import Reason, StorageUnavailable
from storage.schema import Migration, bring_up

_READY_POLL_SECONDS = 0.1
_READY_POLL_MOST_SECONDS = 2.0


class Trouble(msgspec.Struct, frozen=True):
    """Why a database cannot be used."""

    reason: Reason
    message: str
    since: float
    """Seconds since the Unix epoch."""


class Database:
    """One database, for one event loop.

    Opening it and every transaction may raise :class:`StorageUnavailable` (not now; the next may succeed) and
    :class:`SchemaUnknown` (a newer version of the program has been here).
    """

    def __init__(
        self, address: Address | str, clock: Clock, observer: Callable[[bool], None] = lambda _answers: None
    ) -> None:
        """``address``: `storage.url`, read already or not. ``observer`` is told after each use whether it could be used.

        Raises:
            StorageUrlFault: it names no database that can be used.
        """
        self._address = parse_address(address) if isinstance(address, str) else address
        self._clock = clock
        self._observer = observer
        self.trouble: Trouble | None = None
        """None where the last that was asked of it was answered, or nothing was asked yet."""
        self._opened: _Opened | None = None
        self._opening = asyncio.Lock()
        # SQLite has one writer at a time. Those of this process wait in line here; by its own lock they would poll.
        self._writing = asyncio.Lock() if isinstance(self._address, SqliteFile) else None
        self._writer: asyncio.Task[Any] | None = None

    @property
    def shown(self) -> str:
        """Its address, without the password."""
        return self._address.shown

    def now(self) -> int:
        """The time as the tables have it: microseconds since the Unix epoch."""
        return round(self._clock.time() * 1_000_000)

    async def open(self) -> None:
        """Open it now, where that has not been done yet."""
        await self._open()

    async def close(self) -> None:
        """Wait for the transactions that have begun, and close all connections. A later transaction opens it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            # A connection that is returned to a pool which is gone would stay open.
            await opened.idle.wait()
            await call(self.shown, opened.engine.dispose)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Reads and writes: all of it counts, or, when the block raises, nothing.

        On SQLite one at a time, so do nothing in it that waits for others; and not one within another.
        """
        if self._writer is not None and self._writer is asyncio.current_task():
            raise RuntimeError("a transaction within a transaction waits for itself: pass the connection on")
        async with self._writing or nullcontext():
            self._writer = asyncio.current_task() if self._writing else None
            try:
                async with self._connected({WRITES: True}) as connection:
                    yield connection
            finally:
                self._writer = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Reads alone, all of one state, beside others' writes."""
        async with self._connected(snapshot_options(self._address)) as connection:
            yield connection

    async def ping(self) -> None:
        """Ask it something; opens it where need be."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def wait_ready(self, within_seconds: float) -> None:
        """Ask until it answers; raises the last error after ``within_seconds``."""
        deadline = self._clock.monotonic() + within_seconds
        pause = _READY_POLL_SECONDS
        while True:
            try:
                return await self.ping()
            except StorageUnavailable:
                if self._clock.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _READY_POLL_MOST_SECONDS)

    @asynccontextmanager
    async def _connected(self, options: dict[str, Any]) -> AsyncIterator[Connection]:
        with self._troubles_noted():
            opened = await self._open()
            with opened.used():
                async with transaction(opened.engine, self.shown, options) as connection:
                    yield connection

    @contextmanager
    def _troubles_noted(self) -> Iterator[None]:
        try:
            yield
        except StorageUnavailable as error:
            since = self.trouble.since if self.trouble is not None else self._clock.time()
            self.trouble = Trouble(error.reason, str(error), since)
            self._observer(False)
            raise
        self.trouble = None
        self._observer(True)

    async def _open(self) -> "_Opened":
        async with self._opening:
            if self._opened is not None and _file_of(self._address) != self._opened.file:
                # What is written to it is nowhere; and another one must not be opened beside its write-ahead log.
                raise StorageUnavailable(
                    f"the database {self.shown} was taken away or replaced while it was in use: put it back; or stop the "
                    "gateway, and start it when what it is to use is there",
                    Reason.UNREACHABLE,
                )
            if self._opened is None:
                await bring_up(self._address, self._clock)
                self._opened = _Opened(make_engine(self._address), _file_of(self._address))
            return self._opened


def _file_of(address: Address) -> tuple[int, int] | None:
    """Which file it is, however it is called; None where there is none, and for a server."""
    if not isinstance(address, SqliteFile):
        return None
    try:
        state = address.path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


class _Opened:
    """An engine, and whether it is in use."""

    def __init__(self, engine: Engine, file: tuple[int, int] | None) -> None:
        self.engine = engine
        self.file = file
        self.idle = asyncio.Event()
        self.idle.set()
        self._users = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        self._users += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self.idle.set()


async def migrate(address: Address | str, clock: Clock) -> Migration:
    """Bring a database to the newest revision, as opening it does."""
    return await bring_up(parse_address(address) if isinstance(address, str) else address, clock)
