"""Places where accounts are kept, for the tests: each is opened as often as processes would, and its bytes can be damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import select

from core.clock import ManualClock
from credentials.records import AccountRecord, PendingLogin
from credentials.stores.database import DatabaseShelf
from credentials.stores.file import FileShelf
from credentials.stores.memory import MemoryShelf
from credentials.stores.redis import RedisShelf
from credentials.stores.shelf import Shelf, ShelfStore
from storage.account_tables import accounts, logins
from storage.accounts import AccountCells
from storage.database import Database
from tests.redis_server import Redis

PATIENCE_SECONDS = 60.0
"""For a Redis on a slow machine."""


class Place(Protocol):
    """Where accounts are."""

    clock: ManualClock
    """Of all stores that :meth:`open` gives."""

    def open(self) -> ShelfStore:
        """A store as a further process has one."""
        ...

    async def cells(self) -> list[bytes]:
        """All that is kept, of accounts and of sign-ins."""
        ...

    async def damage(self, seen: bytes, new: bytes) -> None:
        """Have ``new`` where ``seen`` is kept."""
        ...

    async def close(self) -> None: ...


class _Opened:
    """What the places have in common."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._opened: list[ShelfStore] = []

    def _store(self, shelf: Shelf) -> ShelfStore:
        store = ShelfStore(shelf)
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


class MemoryPlace(_Opened):
    """A process's own: there is one store of it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self._shelf = MemoryShelf(clock)

    def open(self) -> ShelfStore:
        return self._store(self._shelf)

    async def cells(self) -> list[bytes]:
        return [*self._shelf._accounts.values(), *(kept for kept, _ in self._shelf._logins.values())]

    async def damage(self, seen: bytes, new: bytes) -> None:
        for key, kept in self._shelf._accounts.items():
            if kept == seen:
                self._shelf._accounts[key] = new
        for login, (kept, until) in self._shelf._logins.items():
            if kept == seen:
                self._shelf._logins[login] = new, until


class FilePlace(_Opened):
    """A directory."""

    def __init__(self, clock: ManualClock, directory: Path) -> None:
        super().__init__(clock)
        self.directory = directory

    def open(self) -> ShelfStore:
        return self._store(FileShelf(self.directory, self.clock))

    async def cells(self) -> list[bytes]:
        return [path.read_bytes() for path in self._files()]

    async def damage(self, seen: bytes, new: bytes) -> None:
        for path in self._files():
            if path.read_bytes() == seen:
                path.write_bytes(new)

    def _files(self) -> list[Path]:
        return [*self.directory.glob("accounts/*/*.account"), *self.directory.glob("logins/*.login")]


class DatabasePlace(_Opened):
    """A database: each store has connections of its own."""

    def __init__(self, clock: ManualClock, connect: Callable[[], Database]) -> None:
        super().__init__(clock)
        self._connect = connect
        self.database = connect()

    def open(self) -> ShelfStore:
        return self._store(DatabaseShelf(AccountCells(self._connect())))

    async def cells(self) -> list[bytes]:
        async with self.database.reading() as connection:
            found = [*(await connection.execute(select(accounts.c.kept))).scalars()]
            return [*found, *(await connection.execute(select(logins.c.kept))).scalars()]

    async def damage(self, seen: bytes, new: bytes) -> None:
        async with self.database.transaction() as connection:
            for table in (accounts, logins):
                await connection.execute(table.update().where(table.c.kept == seen).values(kept=new))


class RedisPlace(_Opened):
    """A Redis. Its time is shifted by as much as the tests' clock was moved."""

    def __init__(self, clock: ManualClock, server: Redis, prefix: str = "{test}:") -> None:
        super().__init__(clock)
        self._server = server
        self._prefix = prefix

    def open(self) -> ShelfStore:
        return self._store(_ShiftedRedis(self._server, self._prefix, self.clock))

    async def cells(self) -> list[bytes]:
        with self._server.client() as client:
            found = list(client.hgetall(f"{self._prefix}credentials").values())
            return found + [client.get(key) for key in client.keys(f"{self._prefix}login:*")]

    async def damage(self, seen: bytes, new: bytes) -> None:
        with self._server.client() as client:
            for field, kept in client.hgetall(f"{self._prefix}credentials").items():
                if kept == seen:
                    client.hset(f"{self._prefix}credentials", field, new)
            for key in client.keys(f"{self._prefix}login:*"):
                if client.get(key) == seen:
                    client.set(key, new, keepttl=True)


class _ShiftedRedis(RedisShelf):
    def __init__(self, server: Redis, prefix: str, clock: ManualClock) -> None:
        super().__init__(lambda: server.url, prefix, PATIENCE_SECONDS)
        self._clock = clock
        self._began = clock.time()

    async def now(self) -> int:
        return await super().now() + round((self._clock.time() - self._began) * 1_000_000)


def account(name: str = "main", provider: str = "openai", **fields: Any) -> AccountRecord:
    """A record that no store has yet."""
    given: dict[str, Any] = {"oauth": "openai", "version": 0, "created_at": 1, "updated_at": 2} | fields
    return AccountRecord(provider=provider, name=name, **given)


def sign_in(key: str, now: int, seconds: float = 600) -> PendingLogin:
    """A sign-in that was begun ``now``."""
    return PendingLogin(
        key=key,
        provider="openai",
        name="main",
        oauth="openai",
        flow="code",
        sealed="k:text",
        created_at=now,
        expires_at=now + round(seconds * 1_000_000),
    )


def flipped(data: bytes, place: int) -> bytes:
    """``data`` with one bit of a byte changed."""
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
