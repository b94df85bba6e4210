"""Answers what the management API asks of credentials: over the accounts of one process and their store."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from config.schema import ClientTls, Config, Provider
from core.clock import Clock
from core.moments import MICROSECONDS, microseconds
from core.secret import Secret
from credentials.accounts import Accounts
from credentials.credential_state import CredentialState, of_record
from credentials.errors import CredentialFault, RecordElsewhere, StoreConflict, StoreFault
from credentials.records import AccountRecord, AccountStore
from credentials.revoking import RevokingServer
from credentials.sealer import RecordSealer
from credentials.tokens import TokenSet
from gateway.account_checks import proxy_url_of, require_fit
from management.credential_bodies import CredentialPatch, CredentialShown, Exported, NewCredential, SecretSet
from management.credential_service import (
    CannotRefresh,
    Changed,
    InFile,
    NameTaken,
    NothingSealed,
    Removed,
    Unfit,
    UnknownCredential,
    UnknownProvider,
)

REVOKE_SECONDS = 10.0
"""So long a removal waits for the server that the tokens are given back to."""


class Keeper(Protocol):
    """What is needed of :class:`gateway.credentials.CredentialKeeper`."""

    sealer: RecordSealer
    accounts: Accounts

    @property
    def servers(self) -> Mapping[str, Any]: ...

    async def store(self) -> AccountStore: ...

    async def refresh(self) -> None: ...

    async def settle(self) -> bool: ...


class GatewayCredentials:
    """Fits :class:`management.credential_service.CredentialService`."""

    def __init__(self, keeper: Keeper, config: Callable[[], Config], clock: Clock) -> None:
        """``config``: the one in force."""
        self._keeper = keeper
        self._accounts = keeper.accounts
        self._config = config
        self._clock = clock

    async def all(self) -> tuple[CredentialShown, ...]:
        await self._look()
        found = sorted(self._accounts.states(), key=lambda state: (state.provider, state.name, state.source))
        return tuple(map(CredentialShown.of, found))

    async def get(self, provider: str, name: str) -> CredentialShown:
        await self._look()
        return CredentialShown.of(self._state(provider, name))

    async def account(self, provider: str, name: str) -> CredentialShown:
        await self._look()
        return CredentialShown.of(self._require_account(provider, name))

    async def add(self, new: NewCredential) -> CredentialShown:
        oauth = self._oauth_of(new.provider)
        self._require_free(new.provider, new.name)
        require_fit(new.settings, self._config())
        proxy_url = None if new.proxy_url is None else proxy_url_of(new.proxy_url, self._config())
        now = self._clock.time()
        tokens = _tokens_of(new, now)
        sealer = self._keeper.sealer
        record = AccountRecord(
            provider=new.provider,
            name=new.name,
            version=0,
            oauth=oauth,
            settings=new.settings,
            sealed_tokens=await sealer.seal_tokens(new.provider, new.name, tokens),
            sealed_proxy_url=(
                None if proxy_url is None else await sealer.seal_proxy_url(new.provider, new.name, proxy_url)
            ),
            account=new.account,
            scopes=new.scopes,
            expires_at=microseconds(new.expires_at),
            created_at=round(now * MICROSECONDS),
            updated_at=round(now * MICROSECONDS),
        )
        return await self._keep(record)

    async def change(self, provider: str, name: str, seen: int, patch: CredentialPatch) -> Changed:
        state = self._require_account(provider, name)
        require_fit(patch.patched(state.settings), self._config())
        edited: dict[str, Any] = {}
        if patch.proxy_url is None:
            edited["sealed_proxy_url"] = None
        elif isinstance(patch.proxy_url, SecretSet):
            url = proxy_url_of(patch.proxy_url, self._config())
            edited["sealed_proxy_url"] = await self._keeper.sealer.seal_proxy_url(provider, name, url)
        if edited:
            self._require_tls(provider)
        before: list[AccountRecord] = []

        def edit(record: AccountRecord) -> AccountRecord:
            before[:] = [record]
            return msgspec.structs.replace(
                record, settings=patch.patched(record.settings), updated_at=self._now(), **edited
            )

        after = await self._accounts.change(provider, name, edit, seen)
        await self._spread()
        return Changed(self._shown(before[0], state), self._shown(after, self._accounts.state(provider, name)))

    async def remove(self, provider: str, name: str, seen: int | None) -> Removed:
        shown = CredentialShown.of(self._require_account(provider, name))
        # First: from now on nobody refreshes what is given back.
        removed = await self._accounts.remove(provider, name, seen)
        await self._spread()
        revoked, because = await self._revoke(removed)
        return Removed(shown, revoked, because)

    async def refresh(self, provider: str, name: str) -> CredentialShown:
        state = self._state(provider, name)
        if state.kind == "api_key":
            raise CannotRefresh(f"`{provider}/{name}` is a key, which has no end")
        if state.state in ("disabled", "shadowed", "damaged"):
            raise CannotRefresh(f"`{provider}/{name}` is not in use: it is {state.state}")
        refreshed = await self._accounts.refresh(provider, name)
        await self._spread()
        return CredentialShown.of(refreshed)

    async def export(self, provider: str, name: str) -> Exported:
        self._require_account(provider, name)
        record = await (await self._keeper.store()).get(provider, name)
        if record is None:
            raise _unknown(provider, name)
        if record.sealed_tokens is None:
            raise NothingSealed(f"`{provider}/{name}` has not signed in yet: there is nothing to be exported")
        document = await self._keeper.sealer.export(record, self._goes_to(provider, record.oauth))
        return msgspec.convert(document, Exported)

    async def take(self, exported: Exported) -> CredentialShown:
        provider, name = exported.provider, exported.name
        self._oauth_of(provider)
        if all(each.name != exported.oauth for each in self._config().oauth.providers):
            raise Unfit("oauth", f"names no entry of `oauth.providers`: declare `{exported.oauth}` there")
        self._require_free(provider, name)
        require_fit(exported.settings, self._config())
        document: dict[str, Any] = msgspec.to_builtins(exported)
        record = await self._keeper.sealer.import_(document, self._goes_to(provider, exported.oauth))
        now = self._now()
        return await self._keep(msgspec.structs.replace(record, created_at=now, updated_at=now))

    async def _keep(self, record: AccountRecord) -> CredentialShown:
        """Keep a new account, here and on all workers."""
        store = await self._keeper.store()
        try:
            kept = await store.put(record, None)
        except StoreConflict:
            raise _taken(record.provider, record.name) from None
        await self._spread()
        return self._shown(kept, self._accounts.state(kept.provider, kept.name))

    async def _look(self) -> None:
        """Know what others have changed, if the store tells it."""
        with contextlib.suppress(StoreFault):
            await self._keeper.refresh()

    async def _spread(self) -> None:
        """See that all workers know of a change. It is kept: who cannot read it now will."""
        with contextlib.suppress(StoreFault):
            await self._accounts.sync()
            await self._keeper.settle()

    async def _revoke(self, removed: AccountRecord | None) -> tuple[bool, str | None]:
        if removed is None:
            return False, "what was kept of it could not be read: revoke its tokens at the server"
        try:
            tokens = await self._keeper.sealer.open_tokens(removed)
        except StoreFault as fault:
            return False, f"{fault}: its tokens were not given back, revoke them at the server"
        server: RevokingServer | None = self._keeper.servers.get(removed.oauth)
        if tokens is None:
            return False, "it had no tokens"
        if server is None:
            return (
                False,
                f"no entry of `oauth.providers` is named `{removed.oauth}` any more: revoke them at the server",
            )
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                revoked = await server.revoke(tokens)
        except CredentialFault as fault:
            return False, str(fault)
        except TimeoutError:
            return False, f"the server has not answered for {REVOKE_SECONDS:g} seconds"
        return revoked, None if revoked else "the server has no address for that: revoke them there"

    def _shown(self, record: AccountRecord, state: CredentialState | None) -> CredentialShown:
        """``record``, standing as ``state`` says of a version of it."""
        if state is None or state.version is None:
            state = CredentialState(
                provider=record.provider,
                name=record.name,
                kind="oauth",
                source="account",
                settings=record.settings,
                state="disabled" if record.settings.disabled else "pending",
            )
        return CredentialShown.of(of_record(state, record))

    def _state(self, provider: str, name: str) -> CredentialState:
        state = self._accounts.state(provider, name)
        if state is None:
            raise _unknown(provider, name)
        return state

    def _require_account(self, provider: str, name: str) -> CredentialState:
        """The account of that name, also where one of the file hides it."""
        found = [each for each in self._accounts.states() if (each.provider, each.name) == (provider, name)]
        for state in found:
            if state.source == "account":
                return state
        if found:
            raise InFile(
                f"the credential `{provider}/{name}` is declared in the configuration: edit `providers[{provider}]` there"
            )
        raise _unknown(provider, name)

    def _require_free(self, provider: str, name: str) -> None:
        if self._accounts.state(provider, name) is not None:
            raise _taken(provider, name)

    def _require_tls(self, provider: str) -> None:
        """Tokens that are kept go by another way only where that cannot read them."""
        found = self._provider(provider)
        if found is not None and _is_plain(found):
            raise RecordElsewhere(
                f"the requests of `{provider}` go without TLS, so that a proxy would read the tokens of the account: sign in "
                "again with the other `proxy_url`"
            )

    def _oauth_of(self, provider: str) -> str:
        found = self._provider(provider)
        if found is None:
            raise UnknownProvider(f"No provider is named `{provider}`: see `GET /api/v1/providers`")
        if found.oauth is None:
            raise UnknownProvider(
                f"The provider `{provider}` does not say where its accounts sign in: set its `oauth` to an entry of "
                "`oauth.providers`"
            )
        return found.oauth

    def _provider(self, name: str) -> Provider | None:
        return next((each for each in self._config().providers if each.name == name), None)

    def _goes_to(self, provider: str, oauth: str) -> str:
        """A word for where the tokens of accounts are sent: to the provider, and to the server where they sign in."""
        config = self._config()
        target = self._provider(provider)
        server = next((each for each in config.oauth.providers if each.name == oauth), None)
        told: list[Any] = []
        if target is not None:
            told += [target.type, target.base_url, target.options, _told(target.tls)]
            told.append(_revealed(target.proxy_url or config.transport.proxy_url) if _is_plain(target) else None)
        if server is not None:
            told += [
                server.template,
                server.issuer,
                server.token_endpoint,
                server.revocation_endpoint,
                _told(server.tls),
            ]
        text = msgspec.json.encode([provider, oauth, *told], enc_hook=_revealed, order="sorted")
        return hashlib.sha256(text).hexdigest()

    def _now(self) -> int:
        return round(self._clock.time() * MICROSECONDS)


def _is_plain(provider: Provider) -> bool:
    """Whether its requests go without TLS, so that a proxy reads them."""
    return provider.base_url is not None and urlsplit(provider.base_url).scheme == "http"


def _told(tls: ClientTls) -> list[str | None]:
    return [tls.ca, tls.cert, tls.key]


def _revealed(value: object) -> str | None:
    if isinstance(value, Secret):
        return value.reveal()
    if value is None:
        return None
    raise NotImplementedError(f"no text for {type(value)}")


def _tokens_of(new: NewCredential, now: float) -> TokenSet:
    access, refresh = new.access_token, new.refresh_token
    return TokenSet(
        # One that has ended already: the first request, or the scheduler, gets another.
        access_token=Secret.literal("" if access is None else access.value, "access token"),
        issued_at=now,
        expires_at=now if access is None else None if new.expires_at is None else new.expires_at.timestamp(),
        refresh_token=None if refresh is None else Secret.literal(refresh.value, "refresh token"),
        scopes=new.scopes,
        account=new.account,
    )


def _unknown(provider: str, name: str) -> UnknownCredential:
    return UnknownCredential(f"There is no credential `{provider[:64]}/{name[:64]}`")


def _taken(provider: str, name: str) -> NameTaken:
    return NameTaken(
        f"The provider `{provider}` has a credential `{name}` already: choose another name, or delete that one"
    )
