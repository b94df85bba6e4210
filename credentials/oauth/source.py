"""Tokens of accounts that have signed in, as a source."""

from typing import Protocol

from credentials.errors import NeedsLogin
from credentials.tokens import TokenSet


class RefreshingServer(Protocol):
    """What is needed of :class:`credentials.oauth.server.OAuthServer`."""

    async def refresh(self, held: TokenSet) -> TokenSet: ...


class OAuthAccountSource:
    """:class:`credentials.tokens.CredentialSource` of an account: its refresh token is exchanged."""

    kind = "oauth"

    def __init__(self, server: RefreshingServer) -> None:
        self._server = server

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        if held is None:
            raise NeedsLogin("the account has not signed in: sign in")
        return await self._server.refresh(held)
