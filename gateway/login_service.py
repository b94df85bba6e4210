"""Answers the management API's questions about sign-ins of accounts."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from config.schema import Config
from core.moments import moment_of
from credentials.credential_state import CredentialState
from credentials.records import AccountSettings
from gateway.account_checks import proxy_url_of, require_fit
from management.login_service import LoginBegun, LoginShown, NewLogin

if TYPE_CHECKING:
    # At run time it is imported by whoever signs in first.
    from credentials.logins.logins import Logins
    from credentials.logins.values import LoginStatus


class GatewayLogins:
    """Fits :class:`management.login_service.LoginService`."""

    def __init__(
        self,
        logins: Callable[[], "Logins"],
        state: Callable[[str, str], CredentialState | None],
        settle: Callable[[], Awaitable[object]],
        config: Callable[[], Config],
    ) -> None:
        """``state``: of the credential of that provider and name; ``settle`` gives back when the other workers know of a new
        account, or have not answered in time; ``config``: the one in force."""
        self._logins = logins
        self._state = state
        self._settle = settle
        self._config = config

    async def begin(self, new: NewLogin) -> LoginBegun:
        name = await self._logins().name_for(new.provider, new.name)
        config = self._config()
        begun = await self._logins().begin(
            new.provider,
            name,
            new.flow,
            self._settings(new, name),
            None if new.proxy_url is None else proxy_url_of(new.proxy_url, config),
            scopes=new.scopes,
            replaces=new.name is not None,
        )
        told = msgspec.structs.asdict(begun)
        return LoginBegun(**{**told, "expires_at": moment_of(begun.expires_at)})

    async def status(self, state: str) -> LoginShown:
        return self._shown(await self._logins().status(state))

    async def look(self, state: str) -> LoginShown:
        return self._shown(await self._logins().look(state))

    async def cancel(self, state: str) -> LoginShown:
        return self._shown(await self._logins().cancel(state))

    async def complete(self, redirect_url: str) -> LoginShown:
        return await self._completed(await self._logins().complete(redirect_url))

    async def callback(self, query: Mapping[str, str]) -> LoginShown:
        return await self._completed(await self._logins().callback(query))

    async def _completed(self, login: "LoginStatus") -> LoginShown:
        await self._settle()
        return self._shown(login)

    def _settings(self, new: NewLogin, name: str) -> AccountSettings | None:
        patch = new.patch
        if patch is None:
            return None
        present = self._state(new.provider, name)
        settings = patch.patched(AccountSettings() if present is None else present.settings)
        require_fit(settings, self._config())
        return settings

    def _shown(self, login: "LoginStatus") -> LoginShown:
        state = self._state(login.provider, login.name) if login.status == "complete" else None
        return LoginShown(
            **{**msgspec.structs.asdict(login), "expires_at": moment_of(login.expires_at)},
            account=None if state is None else state.account,
        )
