"""Accounts in the database that `storage.url` names."""

from collections.abc import Iterator
from contextlib import contextmanager

from credentials.errors import StoreUnavailable
from credentials.stores.shelf import Account, Key, ShelfStore
from storage.accounts import AccountCells
from storage.errors import StorageUnavailable


class DatabaseStore(ShelfStore):
    """:class:`credentials.records.AccountStore` in a database, which is closed by its owner."""

    def __init__(self, cells: AccountCells) -> None:
        super().__init__(DatabaseShelf(cells))


class DatabaseShelf:
    """:class:`credentials.stores.shelf.Shelf` in a database."""

    def __init__(self, cells: AccountCells) -> None:
        self._cells = cells

    async def now(self) -> int:
        return self._cells.now()

    async def read(self, key: Key) -> bytes | None:
        with _faults_translated():
            return await (self._cells.login(key) if isinstance(key, str) else self._cells.account(*key))

    async def swap(self, key: Key, seen: bytes | None, new: bytes, *, counts: bool = False, until: int = 0) -> bool:
        with _faults_translated():
            if isinstance(key, str):
                return await self._cells.swap_login(key, seen, new, until)
            return await self._cells.swap_account(*key, seen, new, counts=counts)

    async def version(self) -> int:
        with _faults_translated():
            return await self._cells.version()

    async def accounts(self) -> tuple[int, list[tuple[Account, bytes]]]:
        with _faults_translated():
            version, rows = await self._cells.all()
            return version, [((provider, name), kept) for provider, name, kept in rows]

    async def close(self) -> None:
        """The database is another's."""


@contextmanager
def _faults_translated() -> Iterator[None]:
    try:
        yield
    except StorageUnavailable as error:
        raise StoreUnavailable(f"the accounts cannot be used: {error}") from None
