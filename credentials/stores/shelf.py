"""A store over a *shelf*: whatever can keep cells, and replace one only if it is still what was read."""

import logging
from collections.abc import Callable
from typing import Protocol

from credentials.errors import RecordDamaged, RecordUnknown, StoreConflict, StoreFault, StoreUnavailable
from credentials.records import AccountRecord, Damaged, Listing, Lock, LoginEnd, PendingLogin, ordered
from credentials.stores import cells
from credentials.stores.cells import LOGIN_KEPT, AccountCell, LoginCell

Account = tuple[str, str]
"""Provider and name."""
Key = Account | str
"""Of an account, or of a sign-in."""

_TRIES = 200
"""Of many that write at once one succeeds each time; so many tries are lost only where something else is wrong."""

_log = logging.getLogger("sluice.credentials")


class Shelf(Protocol):
    """Keeps cells for all processes that share it. Each method may raise
    :class:`credentials.errors.StoreUnavailable`."""

    async def now(self) -> int:
        """The time, in microseconds since the Unix epoch, by the clock that all of them share, where there is one."""
        ...

    async def read(self, key: Key) -> bytes | None:
        """What is kept at ``key``."""
        ...

    async def swap(self, key: Key, seen: bytes | None, new: bytes, *, counts: bool = False, until: int = 0) -> bool:
        """Keep ``new`` at ``key`` if there is ``seen`` (None: nothing) now; whether it was so.

        Args:
            counts: another :meth:`version` goes with it. Whoever sees that sees ``new`` too.
            until: of a sign-in, when it may be forgotten.
        """
        ...

    async def version(self) -> int:
        """Another one after each swap that counts; greater, unless the shelf was emptied."""
        ...

    async def accounts(self) -> tuple[int, list[tuple[Account, bytes]]]:
        """The version, and the cells of all accounts at that time."""
        ...

    async def close(self) -> None: ...


class ShelfStore:
    """:class:`credentials.records.AccountStore` over a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def version(self) -> int:
        return await self._shelf.version()

    async def all(self) -> Listing:
        version, found = await self._shelf.accounts()
        whole: list[AccountRecord] = []
        damaged: list[Damaged] = []
        for (provider, name), data in sorted(found):
            try:
                record = cells.parse_account(data, provider, name).record
            except StoreFault as fault:
                damaged.append(Damaged(provider, name, str(fault)))
            else:
                if record is not None:
                    whole.append(record)
        return Listing(version, ordered(whole), tuple(damaged))

    async def get(self, provider: str, name: str) -> AccountRecord | None:
        data = await self._shelf.read((provider, name))
        return None if data is None else cells.parse_account(data, provider, name).record

    async def put(self, record: AccountRecord, seen: int | None) -> AccountRecord:
        kept = await self._change_account(
            record.provider, record.name, lambda cell: cells.with_record(cell, record, seen), counts=True
        )
        assert kept is not None  # it is always changed
        assert kept.record is not None
        return kept.record

    async def delete(self, provider: str, name: str, seen: int | None) -> bool:
        now = await self._shelf.now()
        for _ in range(_TRIES):
            data = await self._shelf.read((provider, name))
            if data is None:
                return False
            try:
                cell = cells.parse_account(data, provider, name)
            except (RecordDamaged, RecordUnknown) as fault:
                if seen is not None:
                    raise StoreConflict(f"{fault}; its version cannot be told") from None
                # What cannot be read may have had a lock.
                cell = AccountCell(provider=provider, name=name)
            else:
                if cell.record is None:
                    return False
            new = cells.render(cells.without_record(cell, seen, now))
            if await self._shelf.swap((provider, name), data, new, counts=True):
                return True
        raise _too_busy()

    async def lock(self, provider: str, name: str, seconds: float) -> Lock | None:
        now = await self._shelf.now()
        kept = await self._change_account(
            provider,
            name,
            lambda cell: cells.locked(cell or AccountCell(provider=provider, name=name), seconds, now),
            counts=False,
        )
        return None if kept is None else _Held(self, provider, name, kept.fence)

    async def release(self, provider: str, name: str, fence: int) -> None:
        """See :meth:`credentials.records.Lock.release`."""
        try:
            await self._change_account(provider, name, lambda cell: cell and cells.released(cell, fence), counts=False)
        except StoreFault as fault:
            _log.info("the lock of the account %s/%s was not released, and runs out: %s", provider, name, fault)

    async def add_login(self, login: PendingLogin) -> None:
        new = cells.render(LoginCell(login=login))
        if not await self._shelf.swap(login.key, None, new, until=login.expires_at + LOGIN_KEPT):
            raise StoreConflict("a sign-in with this state is there already: begin another")

    async def take_login(self, key: str) -> PendingLogin | None:
        now = await self._shelf.now()
        before = await self._change_login(key, lambda cell: cells.taken(cell, now))
        return None if before is None else before.login

    async def end_login(self, key: str, status: LoginEnd, message: str | None) -> None:
        await self._change_login(key, lambda cell: cells.ended(cell, status, message))

    async def login(self, key: str) -> PendingLogin | None:
        data = await self._shelf.read(key)
        cell = None if data is None else _login(data, key)
        return None if cell is None else cells.shown(cell, await self._shelf.now())

    async def close(self) -> None:
        await self._shelf.close()

    async def _change_account(
        self, provider: str, name: str, change: Callable[[AccountCell | None], AccountCell | None], *, counts: bool
    ) -> AccountCell | None:
        """What ``change`` made of the cell and is kept now; None: nothing."""
        for _ in range(_TRIES):
            data = await self._shelf.read((provider, name))
            new = change(None if data is None else cells.parse_account(data, provider, name))
            if new is None or await self._shelf.swap((provider, name), data, cells.render(new), counts=counts):
                return new
        raise _too_busy()

    async def _change_login(self, key: str, change: Callable[[LoginCell], LoginCell | None]) -> LoginCell | None:
        """What the cell was before ``change`` made another of it; None: it did not."""
        for _ in range(_TRIES):
            data = await self._shelf.read(key)
            cell = None if data is None else _login(data, key)
            new = None if cell is None else change(cell)
            if data is None or cell is None or new is None:
                return None
            if await self._shelf.swap(key, data, cells.render(new), until=cell.login.expires_at + LOGIN_KEPT):
                return cell
        raise _too_busy()


class _Held:
    """A lock that was given."""

    def __init__(self, store: ShelfStore, provider: str, name: str, fence: int) -> None:
        self._store = store
        self._account = provider, name
        self.fence = fence

    async def release(self) -> None:
        await self._store.release(*self._account, self.fence)


def _login(data: bytes, key: str) -> LoginCell | None:
    try:
        return cells.parse_login(data, key)
    except StoreFault as fault:
        # Whoever signs in is told that it is not there, and can begin another.
        _log.warning("%s", fault)
        return None


def _too_busy() -> StoreUnavailable:
    return StoreUnavailable("an account is being changed by too many others at once: try again")
