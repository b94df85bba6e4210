"""How an account is refreshed when many processes have it, and its refresh token may be good for one use.

::

    lock ──▶ read it again ──▶ somebody has done it: theirs is taken
                   │
                   ▼
              exchange, in less time than the lock lasts ──▶ from here on the new tokens serve
                   │
                   ▼
              write, if the record is still the one that was read ──▶ release
                   │ it is not
                   ▼
              read it again: of an operator's edit everything stays, and the tokens are put into it;
              after another sign-in that one counts, and what was exchanged is dropped

No exchange is begun while the store cannot be written to (whoever could not write the lock could not write the tokens), nor
so late that the lock might run out before it ends. What was exchanged and could not be written serves in memory, and is
written later: nobody else begins meanwhile, as the lock is kept until it runs out, and as after an outage all wait for a while.

One loss cannot be avoided: a process that is killed after the server has answered and before the store has. The store then
has a refresh token that was used. The next process takes over when the lock has run out, and uses it once more; a server
that goes by RFC 9700, section 4.14.2, then refuses with `invalid_grant` and revokes what it had given: the account needs a
new sign-in, and says so. The window is that of one write. One that is killed before the exchange costs no more than the
time until its lock has run out.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from core.clock import Clock
from core.secret import Secret
from credentials.account import Account, Opened, Unsaved, outcome_on
from credentials.errors import (
    CredentialFault,
    CredentialRefused,
    CredentialUnavailable,
    LoginAwaited,
    NeedsLogin,
    RecordDamaged,
    StoreAway,
    StoreConflict,
    StoreFault,
    StoreUnavailable,
)
from credentials.live import Obtain, Wanted
from credentials.reach import Reach
from credentials.records import AccountRecord, Lock
from credentials.tokens import CredentialSource, TokenSet

_log = logging.getLogger("sluice.credentials")

LOCK_SECONDS = 60.0
_RELEASE_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 0.1
"""Between looks at what another process does, up to twice that."""
_TRIES = 20


class Sealer(Protocol):
    """What is needed of :class:`credentials.sealer.RecordSealer`."""

    async def seal_tokens(self, provider: str, name: str, tokens: TokenSet) -> str: ...
    async def seal_proxy_url(self, provider: str, name: str, url: str) -> str: ...
    async def open_tokens(self, record: AccountRecord) -> TokenSet | None: ...
    async def open_proxy_url(self, record: AccountRecord) -> Secret | None: ...


class AccountRefresh:
    """For all accounts of one process."""

    def __init__(
        self,
        reach: Reach,
        sealer: Sealer,
        clock: Clock,
        random: Callable[[], float],
        source: Callable[[str], CredentialSource | None],
        changed: Callable[[], None],
        give_back: Callable[[str, TokenSet], None],
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        """``source`` gives the tokens of accounts of an entry of `oauth.providers`, by its name; ``changed`` is told of each
        write; ``give_back`` gets what an entry has given and nobody keeps."""
        self._reach = reach
        self._sealer = sealer
        self._clock = clock
        self._random = random
        self._source = source
        self._changed = changed
        self._give_back = give_back
        self._lock_seconds = lock_seconds

    def of(self, account: Account) -> Obtain:
        """What gets tokens for ``account``."""
        return partial(self.obtain, account)

    async def obtain(self, account: Account, wanted: Wanted) -> bool:
        """As :data:`credentials.live.Obtain` says."""
        live = account.live
        try:
            if account.unsaved is not None:
                await self.save(account)
            return await self._under_lock(account, wanted)
        except StoreUnavailable as fault:
            tokens = live.tokens
            if tokens is not None and not wanted.stale(tokens):
                return False
            if account.rotates is False and account.record is not None:
                # The present refresh token stays good, whatever becomes of what is given for it.
                await self._exchange(account, account.record, account.record.fence)
                return True
            raise StoreAway(f"{live.called} is not refreshed while that could not be kept: {fault}") from None
        except StoreFault as fault:
            raise CredentialRefused(str(fault)) from None

    async def save(self, account: Account) -> None:
        """Write what is not written.

        Raises:
            StoreFault: it cannot be, and is kept.
        """
        async with account.saving:
            unsaved = account.unsaved
            fence = None if unsaved is None else unsaved.fence
            for _ in range(_TRIES):
                unsaved, record = account.unsaved, account.record
                if unsaved is None:
                    return
                if account.damaged is not None or record is None:
                    raise RecordDamaged(account.damaged or "")
                # Its lock may have run out. But as long as the store has what was exchanged for these tokens, whoever has the
                # lock by now has nothing newer.
                await self._put(account, record, unsaved, record.fence if fence is None else fence)
                fence = None
            raise StoreUnavailable(f"{account.live.called} is being changed by too many others at once")

    async def read(self, account: Account) -> AccountRecord:
        """What the store has, taken over.

        Raises:
            CredentialUnavailable: there is none any more.
            StoreFault: it cannot be read.
        """
        live = account.live
        while True:
            moves = account.moves
            record = await self._reach.ask(lambda store: store.get(live.provider, live.name))
            if record is None:
                raise CredentialUnavailable(f"{live.called} has been removed")
            opened = await self.open(record, account)
            # What was read before it changed here may be older.
            if moves == account.moves:
                account.adopt(record, opened)
                return record

    async def open(self, record: AccountRecord, known: Account | None) -> Opened:
        """What is sealed in ``record``; what is ``known`` already is not opened again. Raises StoreFault."""
        held = None if known is None or known.damaged is not None else known.record
        if known is None or held is None:
            return Opened(await self._sealer.open_tokens(record), await self._sealer.open_proxy_url(record))
        tokens, proxy_url = known.live.tokens, known.proxy_url
        if held.sealed_tokens != record.sealed_tokens or known.unsaved is not None:
            tokens = await self._sealer.open_tokens(record)
        # Else the same handle: connections are kept by it.
        if held.sealed_proxy_url != record.sealed_proxy_url:
            proxy_url = await self._sealer.open_proxy_url(record)
        return Opened(tokens, proxy_url)

    async def _under_lock(self, account: Account, wanted: Wanted) -> bool:
        live = account.live
        began = self._clock.monotonic()
        while self._clock.monotonic() < began + 2 * self._lock_seconds:
            asked = self._clock.monotonic()
            lock = await self._lock(account) if self._reach.settled else None
            try:
                record = await self.read(account)
                if record.needs_login is not None and not wanted.force:
                    raise LoginAwaited(record.needs_login)
                if live.tokens is not None and not wanted.stale(live.tokens):
                    return False
                in_time = self._clock.monotonic() < asked + self._lock_seconds / 4
                # The store may have come back with the lock.
                if lock is not None and in_time and self._reach.settled:
                    await self._exchange(account, record, lock.fence)
                    return True
            finally:
                # What could not be written is written by whoever has this lock still.
                if lock is not None and account.unsaved is None:
                    await _release(lock)
            if lock is None:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS * (1 + self._random()))
        raise CredentialUnavailable(f"{live.called} is being refreshed by another process, which does not end")

    async def _exchange(self, account: Account, record: AccountRecord, fence: int) -> None:
        live, held = account.live, account.live.tokens
        source = self._source(record.oauth)
        if source is None:
            raise CredentialRefused(
                f"{live.called} signed in at `{record.oauth}`, of which `oauth.providers` has no entry: "
                "put it back, or sign in elsewhere"
            )
        if held is None:
            raise NeedsLogin(record.needs_login or f"{live.called} has not signed in yet")
        seconds = self._lock_seconds / 2
        try:
            async with asyncio.timeout(seconds):
                tokens = await source.obtain(held)
        except TimeoutError:
            raise CredentialUnavailable(
                f"{live.called}: its server does not answer within {seconds:g} seconds"
            ) from None
        except NeedsLogin as fault:
            account.exchanged(held, fence, None, str(fault))
            await self._try_to_save(account)
            raise
        account.exchanged(held, fence, tokens)
        await self._try_to_save(account)

    async def _try_to_save(self, account: Account) -> None:
        try:
            await self.save(account)
        except StoreFault as fault:
            _log.warning("%s was refreshed, and is used, but is not written yet: %s", account.live.called, fault)

    async def _put(self, account: Account, record: AccountRecord, unsaved: Unsaved, fence: int) -> None:
        """Write it; where another has written meanwhile, read that."""
        live, tokens = account.live, unsaved.tokens
        sealed = None if tokens is None else await self._sealer.seal_tokens(live.provider, live.name, tokens)
        new = outcome_on(record, unsaved, sealed, fence, self._clock.time())
        try:
            written = await self._reach.ask(lambda store: store.put(new, record.version))
        except StoreConflict:
            try:
                await self.read(account)
            except CredentialFault:
                # Removed: whatever was exchanged is of no use, and should not live on.
                account.unsaved = None
                if tokens is not None:
                    self._give_back(record.oauth, tokens)
        else:
            account.written(written, unsaved)
            self._changed()

    async def _lock(self, account: Account) -> Lock | None:
        live = account.live
        return await self._reach.ask(lambda store: store.lock(live.provider, live.name, self._lock_seconds))


async def _release(lock: Lock) -> None:
    try:
        async with asyncio.timeout(_RELEASE_SECONDS):
            await lock.release()
    except TimeoutError:
        pass  # it runs out
