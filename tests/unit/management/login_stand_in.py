"""Sign-ins for the tests of handlers: the gateway's own, at a stand-in for the server."""

from collections.abc import Mapping

from credentials.credential_state import CredentialState
from gateway.login_service import GatewayLogins
from management.login_service import LoginBegun, LoginShown, NewLogin
from tests.login_stand_in import CONFIG, LoginWorld


class LoginsInMemory:
    """:class:`management.login_service.LoginService`. Made when it is first asked: before, there is no event loop."""

    def __init__(self) -> None:
        self._world: LoginWorld | None = None
        self.states: dict[tuple[str, str], CredentialState] = {}
        self.failure: Exception | None = None
        """What every answer of a person ends with."""

    @property
    def world(self) -> LoginWorld:
        if self._world is None:
            self._world = LoginWorld()
        return self._world

    async def begin(self, new: NewLogin) -> LoginBegun:
        return await self._service.begin(new)

    async def status(self, state: str) -> LoginShown:
        return await self._service.status(state)

    async def look(self, state: str) -> LoginShown:
        return await self._service.look(state)

    async def cancel(self, state: str) -> LoginShown:
        return await self._service.cancel(state)

    async def complete(self, redirect_url: str) -> LoginShown:
        return await self._service.complete(redirect_url)

    async def callback(self, query: Mapping[str, str]) -> LoginShown:
        if self.failure is not None:
            raise self.failure
        return await self._service.callback(query)

    async def _settled(self) -> bool:
        return True

    @property
    def _service(self) -> GatewayLogins:
        return GatewayLogins(
            lambda: self.world.logins,
            lambda provider, name: self.states.get((provider, name)),
            self._settled,
            lambda: CONFIG,
        )
