"""Edits of accounts that others write at the same moment."""

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from config.sealing import KeyRing, SealingKey
from core.clock import ManualClock
from core.secret import Secret
from credentials.account_edits import AccountEdits
from credentials.errors import AccountMissing, RecordDamaged, StoreConflict, StoreUnavailable
from credentials.reach import Reach
from credentials.records import AccountRecord, AccountSettings, SignIn
from credentials.sealer import RecordSealer
from credentials.stores.memory import MemoryStore
from credentials.tokens import TokenSet
from tests.planted import planted, planted_key

WHO = ("claude", "main")


class Contested(MemoryStore):
    """Somebody else writes between each look and the write that follows it, so many times."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.rivals = 0
        self.damaged = False
        self.gone = False

    async def get(self, provider: str, name: str) -> AccountRecord | None:
        if self.damaged:
            raise RecordDamaged("it was cut")
        held = await super().get(provider, name)
        if held is not None and self.rivals:
            self.rivals -= 1
            models = (*held.settings.models, f"by-rival-{self.rivals}")
            settings = msgspec.structs.replace(held.settings, models=models)
            await self.put(msgspec.structs.replace(held, settings=settings), held.version)
        return held

    async def delete(self, provider: str, name: str, seen: int | None) -> bool:
        self.damaged = False
        return not self.gone and await super().delete(provider, name, seen)


def tokens(number: int) -> TokenSet:
    return TokenSet(access_token=Secret.literal(planted(f"access-{number}")), issued_at=0.0, expires_at=None)


def weightier(record: AccountRecord) -> AccountRecord:
    settings = msgspec.structs.replace(record.settings, weight=record.settings.weight + 1)
    return msgspec.structs.replace(record, settings=settings)


async def _keys() -> KeyRing:
    return KeyRing([SealingKey("k1", planted_key("k1"))])


@pytest.fixture
async def store() -> AsyncIterator[Contested]:
    made = Contested(ManualClock())
    yield made
    await made.close()


@pytest.fixture
async def edits(store: Contested) -> AccountEdits:
    async def opened() -> Contested:
        return store

    clock = ManualClock()
    made = AccountEdits(Reach(opened, clock, lambda: None), RecordSealer(_keys), clock)
    await made.signed_in(SignIn(*WHO, "accounts", tokens(0), AccountSettings(weight=1)))
    return made


async def sign_in(edits: AccountEdits) -> AccountRecord:
    return await edits.signed_in(SignIn(*WHO, "accounts", tokens(1)))


async def change(edits: AccountEdits) -> AccountRecord:
    return await edits.change(*WHO, weightier, None)


async def remove(edits: AccountEdits) -> AccountRecord | None:
    return await edits.remove(*WHO, None)


async def test_what_others_write_meanwhile_is_kept(edits: AccountEdits, store: Contested) -> None:
    store.rivals = 3
    made = await sign_in(edits)
    assert (5, ("by-rival-2", "by-rival-1", "by-rival-0")) == (made.version, made.settings.models)
    store.rivals = 2
    changed = await change(edits)
    assert (8, 2, 5) == (changed.version, changed.settings.weight, len(changed.settings.models))
    store.rivals = 2
    removed = await remove(edits)
    assert removed is not None
    assert (10, None) == (removed.version, await store.get(*WHO))


@pytest.mark.parametrize("act", [sign_in, change, remove])
async def test_who_never_gets_through_is_told(
    edits: AccountEdits, store: Contested, act: Callable[[AccountEdits], Awaitable[object]]
) -> None:
    store.rivals = 1000
    with pytest.raises(StoreUnavailable, match="`claude/main` is being changed by too many others at once"):
        await act(edits)


async def test_who_has_seen_a_version_writes_over_no_other(edits: AccountEdits, store: Contested) -> None:
    store.rivals = 1
    with pytest.raises(StoreConflict):
        await edits.change(*WHO, weightier, 1)
    store.rivals = 1
    with pytest.raises(StoreConflict):
        await edits.remove(*WHO, 2)
    assert await store.get(*WHO) is not None


async def test_what_cannot_be_read_is_replaced_by_a_sign_in_or_removed(edits: AccountEdits, store: Contested) -> None:
    store.damaged = True
    # Its versions go on from those of what it replaces.
    assert 2 == (await sign_in(edits)).version
    store.damaged = True
    assert await remove(edits) is None
    with pytest.raises(AccountMissing):
        await remove(edits)


async def test_what_somebody_else_has_just_removed_is_missing(edits: AccountEdits, store: Contested) -> None:
    store.gone = True
    with pytest.raises(AccountMissing, match="there is no account `claude/main`"):
        await remove(edits)
