"""Accounts in memory: for one process, and gone when it ends. Also what tests of others use."""

from core.clock import Clock
from credentials.stores.shelf import Account, Key, ShelfStore


class MemoryStore(ShelfStore):
    """:class:`credentials.records.AccountStore` in memory."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryShelf(clock))


class MemoryShelf:
    """:class:`credentials.stores.shelf.Shelf` in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[Account, bytes] = {}
        self._logins: dict[str, tuple[bytes, int]] = {}
        self._version = 0

    async def now(self) -> int:
        return round(self._clock.time() * 1_000_000)

    async def read(self, key: Key) -> bytes | None:
        if isinstance(key, str):
            return self._logins.get(key, (None, 0))[0]
        return self._accounts.get(key)

    async def swap(self, key: Key, seen: bytes | None, new: bytes, *, counts: bool = False, until: int = 0) -> bool:
        if await self.read(key) != seen:
            return False
        if isinstance(key, str):
            now = await self.now()
            self._logins = {other: kept for other, kept in self._logins.items() if kept[1] > now}
            self._logins[key] = new, until
        else:
            self._accounts[key] = new
            self._version += counts
        return True

    async def version(self) -> int:
        return self._version

    async def accounts(self) -> tuple[int, list[tuple[Account, bytes]]]:
        return self._version, list(self._accounts.items())

    async def close(self) -> None:
        """Nothing is open."""
