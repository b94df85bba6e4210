"""Clients of `oauth.providers` that sign in for themselves (RFC 6749 section 4.4)."""

from credentials.oauth.server import OAuthServer
from credentials.tokens import TokenSet


class ClientCredentialsSource:
    """:class:`credentials.tokens.CredentialSource` of a client."""

    kind = "client_credentials"

    def __init__(self, server: OAuthServer) -> None:
        self._server = server

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        return await self._server.client_credentials()
