"""What a sign-in needs of others."""

from collections.abc import Mapping
from typing import Protocol

from core.secret import Secret
from credentials.oauth.server import DeviceCode, Flow, Pending
from credentials.records import AccountRecord, SignIn
from credentials.revoking import RevokingServer
from credentials.tokens import TokenSet


class LoginServer(RevokingServer, Protocol):
    """A server that accounts sign in at; :class:`credentials.oauth.server.OAuthServer` is one, and says what each raises."""

    @property
    def flows(self) -> tuple[Flow, ...]: ...

    @property
    def issuer(self) -> str | None: ...

    @property
    def pkce(self) -> bool: ...

    @property
    def redirect_url(self) -> str: ...

    async def authorization_url(
        self, state: str, verifier: str | None, redirect_url: str, scopes: tuple[str, ...] | None = None
    ) -> str: ...

    async def read_answer(self, query: Mapping[str, str], state: str) -> str: ...

    async def exchange_code(self, code: str, verifier: str | None, redirect_url: str) -> TokenSet: ...

    async def begin_device(self, scopes: tuple[str, ...] | None = None) -> DeviceCode: ...

    async def poll_device(self, device_code: Secret) -> TokenSet | Pending: ...


class LoginAccounts(Protocol):
    """Where what a sign-in has given is kept; :class:`credentials.accounts.Accounts` is one."""

    async def signed_in(self, given: SignIn) -> AccountRecord:
        """Keep it."""
        ...


class TextSealer(Protocol):
    """Fits :class:`credentials.sealer.RecordSealer`, which says what each raises."""

    async def seal_text(self, text: str, for_what: str) -> str: ...

    async def open_text(self, sealed: str, for_what: str, shown: str) -> str: ...
