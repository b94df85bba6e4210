"""Seals all accounts anew, after a new master key has taken the first place."""

import asyncio

import msgspec

from credentials.errors import RecordDamaged, StoreConflict
from credentials.records import AccountRecord, AccountStore, Damaged
from credentials.sealer import RecordSealer

_LOCK_SECONDS = 60.0
_TRIES = 100
_PAUSE_SECONDS = 0.1


class Rekeyed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the accounts."""

    count: int
    """How many were sealed anew."""
    unchanged: int
    """Those that were sealed with the first key already, or have nothing sealed."""
    left: tuple[Damaged, ...]
    """Those that are as they were, and why."""


async def rekey_accounts(store: AccountStore, sealer: RecordSealer) -> Rekeyed:
    """Seal every account of ``store`` with the first of the keys of ``sealer``, while gateways use it.

    Sign-ins that are under way are not sealed anew: they end within minutes, and need the former key until then.

    Raises:
        StoreUnavailable: not now; what was done stays done, and the next call does the rest.
    """
    listing = await store.all()
    left = list(listing.damaged)
    counts = {True: 0, False: 0}
    for record in listing.records:
        try:
            counts[await _rekey(store, sealer, record)] += 1
        except (RecordDamaged, StoreConflict) as fault:
            left.append(Damaged(record.provider, record.name, str(fault)))
    left.sort(key=lambda each: (each.provider, each.name))
    return Rekeyed(count=counts[True], unchanged=counts[False], left=tuple(left))


async def _rekey(store: AccountStore, sealer: RecordSealer, seen: AccountRecord) -> bool:
    """Whether there was anything to do.

    Raises:
        RecordDamaged: it does not open.
        StoreConflict: it is in use all the time.
    """
    if await sealer.rekeyed(seen) is None:
        return False
    for _ in range(_TRIES):
        # Whoever refreshes it now has tokens in hand that are to be written in the place of these.
        lock = await store.lock(seen.provider, seen.name, _LOCK_SECONDS)
        if lock is None:
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        try:
            record = await store.get(seen.provider, seen.name)
            new = None if record is None else await sealer.rekeyed(record)
            if record is None or new is None:
                return False
            await store.put(msgspec.structs.replace(new, fence=lock.fence), record.version)
        except StoreConflict:
            continue  # its operator has changed it meanwhile
        else:
            return True
        finally:
            await lock.release()
    raise StoreConflict(
        f"the account `{seen.provider}/{seen.name}` is being refreshed or changed all the time: run the command again"
    )
