"""The credentials of one process whose tokens end, with all that they need: where they are kept, the keys that seal them,
where accounts sign in. They outlive generations.

Without any of it in the configuration nothing is opened or started, and nothing large is imported.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from config.load import LoadedConfig
from config.schema import Config, Provider
from core.clock import Clock
from core.events import Event
from core.tasks import Tasks
from credentials.accounts import Accounts
from credentials.errors import StoreFault
from credentials.logins.pasted import CALLBACK_PATH
from credentials.outcomes import Observer
from credentials.records import AccountStore
from credentials.sealer import RecordSealer
from credentials.stores.build import open_store
from gateway.control import Others, RefreshAccounts
from gateway.master_keys import MasterKeys
from gateway.others import TaskFailed
from gateway.stores import Stores
from gateway.token_sources import TokenSources
from routing.cooldown import Cooldowns
from telemetry.credential_series import CredentialSeries, Shown

if TYPE_CHECKING:
    # At run time they are imported by whoever uses them first.
    from credentials.logins.logins import Logins
    from credentials.oauth.server import OAuthServer

_SHOW_SECONDS = 2.0


class _Observer(Observer):
    """Counts exchanges in the metrics of one process, and has a credential with another token chosen again."""

    def __init__(self, series: CredentialSeries, cooldowns: Cooldowns) -> None:
        self._series = series
        self._cooldowns = cooldowns

    def renewed(self, provider: str, credential: str) -> None:
        self._cooldowns.renewed(provider, credential)

    def refresh_ended(self, provider: str, outcome: str) -> None:
        self._series.refreshed(provider, outcome)


class CredentialKeeper:
    """Owned by Resources. The first configuration that is put in force says where accounts are kept, for as long as the
    process lives."""

    def __init__(
        self,
        *,
        stores: Stores,
        keys: MasterKeys,
        clock: Clock,
        random: Callable[[], float],
        emit: Callable[[Event], None],
        series: CredentialSeries,
        cooldowns: Cooldowns,
        background: Tasks,
        others: Callable[[], Others],
    ) -> None:
        """``others``: the other workers, which are told of what is written here."""
        self._stores = stores
        self._keys = keys
        self._clock = clock
        self._series = series
        self._background = background
        self._others = others
        self._first: tuple[Config, Path] | None = None
        """The first configuration, and the directory where its relative names begin."""
        self._loaded: LoadedConfig | None = None
        self._token_sources = TokenSources()
        self._store: AccountStore | None = None
        self._nothing: AccountStore | None = None
        self._opening = asyncio.Lock()
        self._address: str | None = None
        self._started = False
        self._asked = False
        self._untold = False
        self._telling = False
        self._logins: Logins | None = None
        self.sealer = RecordSealer(keys.read)
        self.accounts = Accounts(
            store=self.store,
            sealer=self.sealer,
            clock=clock,
            random=random,
            tell=emit,
            observer=_Observer(series, cooldowns),
        )
        self.accounts.changed = self._changed

    def follow(self, loaded: LoadedConfig, token_sources: TokenSources) -> None:
        """A configuration is put in force."""
        if self._first is None:
            self._first = loaded.config, loaded.sources.root.parent
        self._loaded = loaded
        self._token_sources = token_sources
        self._keys.follow(loaded)
        ahead_seconds = loaded.config.oauth.refresh_ahead_seconds
        self.accounts.follow(loaded.config.providers, token_sources.sources, token_sources.servers, ahead_seconds)
        if self._address is not None and self._must_start:
            self._started = True
            self._background.spawn(self._start(), "start of accounts")

    async def start(self, address: str) -> None:
        """The process begins to serve at ``address``, the URL of its management. Gives back when the accounts are known,
        or after a bounded time."""
        self._address = address
        if self._must_start:
            self._started = True
            await self._start()

    @property
    def servers(self) -> Mapping[str, "OAuthServer"]:
        """Where accounts sign in, by the names of `oauth.providers`."""
        return self._token_sources.servers

    @property
    def logins(self) -> "Logins":
        """Sign-ins of accounts."""
        if self._logins is None:
            from credentials.logins.logins import Logins  # noqa: PLC0415  for those alone who sign in

            self._logins = Logins(
                accounts=self.accounts,
                store=self.store,
                sealer=self.sealer,
                servers=lambda: self._token_sources.servers,
                providers=self._providers,
                clock=self._clock,
                background=self._background,
            )
        return self._logins

    def redirect_url(self) -> str:
        """Where people come back to from a sign-in, where the configuration does not say."""
        public_url = None if self._loaded is None else self._loaded.config.server.public_url
        return f"{(public_url or self._address or '').rstrip('/')}{CALLBACK_PATH}"

    async def store(self) -> AccountStore:
        """Where accounts are kept, opened where it is not yet.

        Raises:
            StoreUnavailable: not now.
        """
        async with self._opening:
            if self._store is None and (self.servers or (self._asked and self._may_be_there())):
                self._store = await self._opened()
            if self._store is not None:
                return self._store
            # Where nobody can sign in nothing is opened to see that there are no accounts.
            if self._nothing is None:
                self._nothing = await self._opened(nothing=True)
            return self._nothing

    async def refresh(self) -> None:
        """Know the accounts as the store has them, also those of servers that the configuration does not have.

        Raises:
            StoreFault: they cannot be read.
        """
        self._asked = True
        await self.accounts.sync()

    async def told(self, _task: RefreshAccounts) -> None:
        """What another worker asks for.

        Raises:
            TaskFailed: the store does not answer, which is logged already.
        """
        try:
            await self.refresh()
        except StoreFault:
            raise TaskFailed from None

    async def settle(self) -> bool:
        """Gives back when the other workers know what was written here; whether all do."""
        return (await self._others().ask(RefreshAccounts())).by_all

    async def close(self) -> None:
        """Requests have ended, and so has what runs in the background."""
        self.accounts.changed = lambda: None
        await self.accounts.close()
        if self._store is not None:
            await self._store.close()

    @property
    def _must_start(self) -> bool:
        return not self._started and bool(self._token_sources.servers or self._token_sources.sources)

    async def _start(self) -> None:
        await self.accounts.start(self._background)
        self._background.spawn(self._show(), "metrics of credentials")

    async def _opened(self, *, nothing: bool = False) -> AccountStore:
        assert self._first is not None, "a configuration comes first"
        config, directory = self._first
        return await open_store(
            "memory" if nothing else config.oauth.store,
            clock=self._clock,
            directory=directory / config.secrets.directory / config.oauth.directory,
            redis=config.redis,
            cells=self._stores.account_cells,
        )

    def _providers(self) -> Mapping[str, Provider]:
        assert self._loaded is not None, "a configuration comes first"
        return {provider.name: provider for provider in self._loaded.config.providers}

    def _may_be_there(self) -> bool:
        assert self._first is not None, "a configuration comes first"
        config, _ = self._first
        return config.oauth.store != "database" or self._stores.exists()

    def _changed(self) -> None:
        self._untold = True
        if not self._telling:
            self._telling = True
            self._background.spawn(self._tell(), "accounts for the other workers")

    async def _tell(self) -> None:
        """One after the other: who refreshes many tells of several at once."""
        try:
            while self._untold:
                self._untold = False
                await self._others().ask(RefreshAccounts())
        finally:
            self._telling = False

    async def _show(self) -> NoReturn:
        while True:
            self._series.show(
                {
                    (state.provider, state.name): Shown(
                        state.state == "needs_login",
                        None if state.expires_at is None else state.expires_at / 1_000_000,
                    )
                    for state in self.accounts.states()
                    if state.kind != "api_key" and state.state not in ("disabled", "shadowed", "damaged")
                }
            )
            await asyncio.sleep(_SHOW_SECONDS)
