"""What operators and sign-ins write of accounts. Each write is of the record as it is at that moment: a refresh that goes on
meanwhile loses nothing, and takes nothing away."""

from collections.abc import Callable
from typing import Any

import msgspec

from core.clock import Clock
from core.moments import MICROSECONDS
from credentials.account import with_tokens
from credentials.account_refresh import Sealer
from credentials.errors import AccountMissing, RecordDamaged, RecordUnknown, StoreConflict, StoreUnavailable
from credentials.reach import Reach
from credentials.records import AccountRecord, SignIn

_TRIES = 20


class AccountEdits:
    """Writes to the store alone."""

    def __init__(self, reach: Reach, sealer: Sealer, clock: Clock) -> None:
        self._reach = reach
        self._sealer = sealer
        self._clock = clock

    async def signed_in(self, given: SignIn) -> AccountRecord:
        """As :meth:`credentials.accounts.Accounts.signed_in`."""
        provider, name, tokens = given.provider, given.name, given.tokens
        sealed = await self._sealer.seal_tokens(provider, name, tokens)
        changes: dict[str, Any] = {} if given.settings is None else {"settings": given.settings}
        if given.proxy_url is not None:
            changes["sealed_proxy_url"] = await self._sealer.seal_proxy_url(provider, name, given.proxy_url)
        for _ in range(_TRIES):
            now = round(self._clock.time() * MICROSECONDS)
            try:
                held = await self._get(provider, name)
            except RecordDamaged:
                # A new sign-in is what mends it.
                await self._reach.ask(lambda store: store.delete(provider, name, None))
                held = None
            base = held or AccountRecord(
                provider=provider, name=name, version=0, oauth=given.oauth, created_at=now, updated_at=now
            )
            new = msgspec.structs.replace(
                with_tokens(base, tokens, sealed),
                oauth=given.oauth,
                account=tokens.account,
                refreshed_at=now,
                updated_at=now,
                **changes,
            )
            try:
                return await self._put(new, None if held is None else held.version)
            except StoreConflict:
                continue
        raise _too_busy(provider, name)

    async def change(
        self, provider: str, name: str, edit: Callable[[AccountRecord], AccountRecord], seen: int | None
    ) -> AccountRecord:
        """As :meth:`credentials.accounts.Accounts.change`."""
        for _ in range(_TRIES):
            held = await self._get(provider, name)
            if held is None:
                raise AccountMissing(f"there is no account `{provider}/{name}`")
            if seen not in (None, held.version):
                raise StoreConflict(
                    f"the account `{provider}/{name}` has version {held.version} by now, and not {seen}: read it again"
                )
            try:
                return await self._put(edit(held), held.version)
            except StoreConflict:
                if seen is not None:
                    raise
        raise _too_busy(provider, name)

    async def remove(self, provider: str, name: str, seen: int | None) -> AccountRecord | None:
        """As :meth:`credentials.accounts.Accounts.remove`."""
        for _ in range(_TRIES):
            try:
                held = await self._get(provider, name)
            except (RecordDamaged, RecordUnknown):
                held, expected = None, seen
            else:
                if held is None:
                    break
                expected = held.version if seen is None else seen
            try:
                if await self._delete(provider, name, expected):
                    return held
            except StoreConflict:
                if seen is not None:
                    raise
                continue
            break
        else:
            raise _too_busy(provider, name)
        raise AccountMissing(f"there is no account `{provider}/{name}`")

    async def _get(self, provider: str, name: str) -> AccountRecord | None:
        return await self._reach.ask(lambda store: store.get(provider, name))

    async def _put(self, record: AccountRecord, seen: int | None) -> AccountRecord:
        return await self._reach.ask(lambda store: store.put(record, seen))

    async def _delete(self, provider: str, name: str, seen: int | None) -> bool:
        return await self._reach.ask(lambda store: store.delete(provider, name, seen))


def _too_busy(provider: str, name: str) -> StoreUnavailable:
    return StoreUnavailable(f"the account `{provider}/{name}` is being changed by too many others at once: try again")
