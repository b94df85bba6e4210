"""Tokens that nobody keeps go back to the server that gave them."""

import logging
from typing import Protocol

from credentials.errors import CredentialUnavailable
from credentials.tokens import TokenSet

_log = logging.getLogger("sluice.credentials")


class RevokingServer(Protocol):
    """What is needed of :class:`credentials.oauth.server.OAuthServer`."""

    async def revoke(self, tokens: TokenSet) -> bool:
        """Whether it has a way to; raises CredentialUnavailable."""
        ...


async def revoke_unkept(server: RevokingServer, tokens: TokenSet, what: str) -> None:
    """``what``: what came to nothing, for the log. A server that does not answer is not asked again."""
    try:
        await server.revoke(tokens)
    except CredentialUnavailable as error:
        _log.warning("tokens of %s could not be revoked: %s", what, error)
