"""The credentials whose tokens end: accounts that have signed in, and those of the file. One for each worker; it outlives
generations."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol

from config.schema import Credential, OAuthProvider, Provider, TokenPlacement
from core.clock import Clock
from core.events import Event
from core.tasks import Tasks
from credentials.account import Account
from credentials.account_edits import AccountEdits
from credentials.account_refresh import LOCK_SECONDS, AccountRefresh, Sealer
from credentials.credential_state import CredentialState, Standing, account_state, declared_state, key_state
from credentials.declared import Declared, definition_of
from credentials.errors import AccountMissing, CredentialRefused, StoreAway, StoreFault, StoreUnavailable
from credentials.live import LiveCredential
from credentials.members import Member
from credentials.oauth.source import OAuthAccountSource, RefreshingServer
from credentials.outcomes import Observer, Outcomes
from credentials.reach import Reach
from credentials.records import AccountRecord, AccountStore, SignIn
from credentials.refresher import Refresher
from credentials.revoking import RevokingServer, revoke_unkept
from credentials.tokens import CredentialSource, TokenSet

_log = logging.getLogger("sluice.credentials")

POLL_SECONDS = 1.0
START_SECONDS = 2.0
"""So long a start waits for the store: then requests are served without accounts."""
CLOSE_SECONDS = 10.0
"""So long an end waits for exchanges that are under way: what they give is not lost."""

_Key = tuple[str, str]
"""Provider and name."""


class Server(RefreshingServer, RevokingServer, Protocol):
    """What is needed of :class:`credentials.oauth.server.OAuthServer`."""

    @property
    def entry(self) -> OAuthProvider: ...

    @property
    def placement(self) -> TokenPlacement | None: ...


class Accounts:
    """What pools, sign-ins and the management API know of them."""

    def __init__(
        self,
        *,
        store: Callable[[], Awaitable[AccountStore]],
        sealer: Sealer,
        clock: Clock,
        random: Callable[[], float],
        tell: Callable[[Event], None],
        observer: Observer | None = None,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.serial = 0
        """Another one whenever what :meth:`members` gives has changed."""
        self.changed: Callable[[], None] = lambda: None
        """Told of each write of this process's own."""
        self._clock = clock
        self._random = random
        self._outcomes = Outcomes(clock, tell, observer or Observer(), self._renew)
        self._providers: Mapping[str, Provider] = {}
        self._servers: Mapping[str, Server] = {}
        self._ahead_seconds = 0.0
        self._declared: dict[_Key, Declared] = {}
        self._accounts: dict[_Key, Account] = {}
        self._members: dict[str, tuple[Member, ...]] = {}
        self._flights = Tasks()
        self._refresher = Refresher(clock)
        self._reach = Reach(store, clock, self._store_is_back)
        self._edits = AccountEdits(self._reach, sealer, clock)
        self._refresh = AccountRefresh(
            self._reach, sealer, clock, random, self._source, self._wrote, self._give_back, lock_seconds
        )
        self._reading = asyncio.Lock()
        self._version: int | None = None
        self._removals = 0
        self._known = asyncio.Event()
        self._unread: str | None = None

    def follow(
        self,
        providers: Sequence[Provider],
        sources: Mapping[_Key, CredentialSource],
        servers: Mapping[str, Server],
        refresh_ahead_seconds: float,
    ) -> None:
        """A configuration is put in force. ``sources``: of the file's live credentials. One whose definition is the same
        keeps its token."""
        self._providers = {provider.name: provider for provider in providers}
        self._servers = servers
        self._ahead_seconds = refresh_ahead_seconds
        declared: dict[_Key, Declared] = {}
        for provider in providers:
            for credential in provider.credentials:
                key = provider.name, credential.name
                if key in sources:
                    declared[key] = self._declare(key, credential, sources[key], servers)
        for key, each in self._declared.items():
            if declared.get(key) is not each:
                self._refresher.plan(each.live, None)
        self._declared = declared
        for live in self._lives():
            if isinstance(live.fault, CredentialRefused):
                # What it says may have been mended.
                live.recovered()
        self._renew()

    async def start(self, background: Tasks) -> None:
        """Read the store, and go on doing so; gives back when it is known, or after 2 seconds."""
        background.spawn(self._poll(), "accounts")
        background.spawn(self._refresher.run(), "refresh of credentials")
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._known.wait()
        except TimeoutError:
            _log.warning("accounts cannot be read yet: requests are served without them until they can")

    async def close(self) -> None:
        """Let end what is under way, and write what is not written: when nobody else uses it, before the store is closed."""
        await self._flights.join(CLOSE_SECONDS)
        for account in self._accounts.values():
            self._flights.spawn(self._save(account), "an account's last write")
        await self._flights.join(CLOSE_SECONDS)
        await self._flights.cancel()

    def members(self, provider: str) -> tuple[Member, ...]:
        """Its live ones that may serve."""
        return self._members.get(provider, ())

    def states(self) -> tuple[CredentialState, ...]:
        """All, for show, those with an API key too: the file's as configured, then accounts by name."""
        found: list[CredentialState] = []
        for provider in self._providers.values():
            for credential in provider.credentials:
                declared = self._declared.get((provider.name, credential.name))
                if declared is None:
                    found.append(key_state(provider.name, credential))
                else:
                    found.append(declared_state(declared, self._refresher.planned(declared.live)))
        for _, account in sorted(self._accounts.items()):
            found.append(account_state(account, self._left_out(account), self._refresher.planned(account.live)))
        return tuple(found)

    def state(self, provider: str, name: str) -> CredentialState | None:
        """Of the one that counts; None: there is none of that name."""
        for state in self.states():
            if (state.provider, state.name) == (provider, name):
                return state
        return None

    async def sync(self) -> None:
        """Read what has changed.

        Raises:
            StoreFault: it cannot be read.
        """
        async with self._reading:
            version = await self._reach.ask(lambda store: store.version())
            if version != self._version:
                await self._read_all()

    async def signed_in(self, given: SignIn) -> AccountRecord:
        """Make the account, or give it other tokens.

        Raises:
            StoreFault: it is not kept.
        """
        return await self._edited(await self._edits.signed_in(given))

    async def change(
        self, provider: str, name: str, edit: Callable[[AccountRecord], AccountRecord], seen: int | None
    ) -> AccountRecord:
        """Write what ``edit`` makes of the record, which may be asked again where others write too.

        Raises:
            AccountMissing: there is none.
            StoreConflict: it has another version than ``seen``; None: whichever.
            StoreFault: it cannot be read or written.
        """
        return await self._edited(await self._edits.change(provider, name, edit, seen))

    async def remove(self, provider: str, name: str, seen: int | None) -> AccountRecord | None:
        """Forget it. What it was; None: that could not be read.

        Raises:
            AccountMissing: there is none.
            StoreConflict: it has another version than ``seen``; None: whichever.
            StoreFault: it cannot be written.
        """
        removed = await self._edits.remove(provider, name, seen)
        self._removals += 1
        self._forget((provider, name))
        self._renew()
        self._wrote()
        return removed

    async def refresh(self, provider: str, name: str) -> CredentialState:
        """Exchange its token now, whatever its end.

        Raises:
            AccountMissing: there is none whose token ends.
            CredentialFault: there is no other token.
        """
        counts = self._declared.get((provider, name)) or self._accounts.get((provider, name))
        if counts is not None:
            await counts.live.refresh()
        state = self.state(provider, name)
        if state is None:
            raise AccountMissing(f"there is no credential `{provider}/{name}`")
        return state

    async def look(self) -> None:
        """Write what is not written, and read what has changed; raises nothing."""
        for account in list(self._accounts.values()):
            await self._save(account)
        try:
            await self.sync()
        except StoreFault as fault:
            self._cannot_read(str(fault), None)
        except Exception as error:
            # A fault of ours: whatever it is, the next look may go well.
            self._cannot_read(type(error).__name__, error)
        else:
            self._unread = None
            self._known.set()

    async def _poll(self) -> NoReturn:
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS * (1 - self._random() / 4))

    def _cannot_read(self, why: str, error: BaseException | None) -> None:
        if self._unread is None and not self._reach.down:
            _log.warning("accounts cannot be read, and serve as they were known: %s", why, exc_info=error)
        self._unread = why

    async def _read_all(self) -> None:
        moves = {key: account.moves for key, account in self._accounts.items()}
        removals = self._removals
        listing = await self._reach.ask(lambda store: store.all())
        damaged = {(each.provider, each.name): each.message for each in listing.damaged}
        opened = {}
        for record in listing.records:
            key = record.provider, record.name
            try:
                opened[key] = record, await self._refresh.open(record, self._accounts.get(key))
            except StoreUnavailable:
                raise
            except StoreFault as fault:
                damaged[key] = str(fault)
        # What has changed here since the store was asked is newer than its answer: then it is asked once more.
        whole = removals == self._removals
        for key in self._accounts.keys() | opened.keys() | damaged.keys():
            account = self._accounts.get(key)
            if moves.get(key) != (None if account is None else account.moves) or (account is None and not whole):
                whole = False
            elif key in opened:
                self._account(key).adopt(*opened[key])
            elif key in damaged:
                self._damage(self._account(key), damaged[key])
            else:
                self._forget(key)
        self._version = listing.version if whole else None
        self._renew()

    async def _edited(self, record: AccountRecord) -> AccountRecord:
        key = record.provider, record.name
        account = self._account(key)
        try:
            opened = await self._refresh.open(record, account)
        except StoreFault:
            pass  # the poll says what is wrong with it
        else:
            account = self._account(key)
            if account.record is None or record.version > account.record.version:
                account.adopt(record, opened)
        self._renew()
        self._wrote()
        return record

    def _store_is_back(self) -> None:
        for account in self._accounts.values():
            if isinstance(account.live.fault, StoreAway):
                account.live.hasten()
        self._renew()

    def _wrote(self) -> None:
        # Whoever is told may be another by now.
        self.changed()

    async def _save(self, account: Account) -> None:
        if account.unsaved is None or account.saving.locked():
            return
        try:
            await self._refresh.save(account)
        except StoreFault:
            return  # told when it began
        _log.info("%s: what was not written yet is written", account.live.called)

    def _declare(
        self, key: _Key, credential: Credential, source: CredentialSource, servers: Mapping[str, Server]
    ) -> Declared:
        server = servers.get(credential.client_credentials) if credential.client_credentials is not None else None
        placement = (None if server is None else server.placement) or TokenPlacement()
        definition = definition_of(credential, None if server is None else server.entry)
        known = self._declared.get(key)
        if known is not None and known.definition == definition and known.live.kind == source.kind:
            known.follow(credential, source, placement)
            return known
        return Declared(self._live(key, source.kind), credential, source, placement, definition)

    def _source(self, oauth: str) -> CredentialSource | None:
        server = self._servers.get(oauth)
        return None if server is None else OAuthAccountSource(server)

    def _give_back(self, oauth: str, tokens: TokenSet) -> None:
        server = self._servers.get(oauth)
        if server is not None:
            revoking = revoke_unkept(server, tokens, "an account that was removed")
            self._flights.spawn(revoking, "tokens that nobody keeps")

    def _account(self, key: _Key) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(self._live(key, "oauth"))
            account.live.obtain = self._refresh.of(account)
        return account

    def _live(self, key: _Key, kind: str) -> LiveCredential:
        return LiveCredential(*key, kind, self._outcomes, clock=self._clock, random=self._random, flights=self._flights)

    def _lives(self) -> list[LiveCredential]:
        declared, accounts = self._declared.values(), self._accounts.values()
        return [*(each.live for each in declared), *(each.live for each in accounts)]

    def _damage(self, account: Account, message: str) -> None:
        if account.damaged != message:
            _log.warning("%s", message)
        account.spoil(message)

    def _forget(self, key: _Key) -> None:
        account = self._accounts.pop(key, None)
        if account is not None:
            self._refresher.plan(account.live, None)

    def _left_out(self, account: Account) -> tuple[Standing, str] | None:
        """Why it does not serve, whatever its tokens are."""
        live, record = account.live, account.record
        provider = self._providers.get(live.provider)
        if provider is None:
            return "disabled", f"the configuration has no provider `{live.provider}`"
        if any(credential.name == live.name for credential in provider.credentials):
            return "shadowed", f"the configuration has a credential of this name for `{live.provider}`, which counts"
        if record is not None and record.settings.disabled:
            return "disabled", "its operator has disabled it"
        if record is not None and record.oauth not in self._servers:
            return "disabled", f"`oauth.providers` has no entry `{record.oauth}`, where it signed in"
        return None

    def _renew(self) -> None:
        """What is served by, and who is due when."""
        members: dict[str, list[Member]] = {name: [] for name in self._providers}
        for (provider, _), declared in self._declared.items():
            serves = not declared.credential.disabled
            if serves:
                members[provider].append(declared.member())
            self._plan(declared.live, serves)
        for (provider, _), account in sorted(self._accounts.items()):
            serves = self._left_out(account) is None
            record = account.record
            if serves and record is not None and (account.damaged is None or account.live.tokens is not None):
                members[provider].append(account.member(record.settings, self._servers[record.oauth].placement))
            self._plan(account.live, serves and account.damaged is None)
        found = {provider: tuple(each) for provider, each in members.items() if each}
        if found != self._members:
            self._members = found
            self.serial += 1

    def _plan(self, live: LiveCredential, serves: bool) -> None:
        self._refresher.plan(live, live.due_at(self._ahead_seconds) if serves and not live.flies else None)
