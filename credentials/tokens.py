"""A set of tokens, and whoever gives one."""

from typing import Protocol

import msgspec

from core.secret import Secret


class TokenSet(msgspec.Struct, frozen=True, kw_only=True):
    """What a server gave for one account or client."""

    access_token: Secret
    issued_at: float
    """Seconds since the Unix epoch, by our clock."""
    expires_at: float | None
    """Seconds since the Unix epoch, by our clock; None: it was not said, and is taken as never."""
    refresh_token: Secret | None = None
    scopes: tuple[str, ...] = ()
    """What was granted."""
    account: str | None = None
    """Whose it is, as the server shows it: an address or a name of at most 200 characters; None: it does not say."""

    def fresh(self, now: float) -> bool:
        """Whether it has not ended at ``now``, in seconds since the Unix epoch."""
        return self.expires_at is None or now < self.expires_at


class CredentialSource(Protocol):
    """A way to get tokens: one for each kind of credential. Owns no state; whoever asks keeps what it gives."""

    @property
    def kind(self) -> str:
        """`oauth`, `client_credentials`, `google_service_account`, `azure_entra` or `command`."""
        ...

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        """A fresh set; ``held`` is the last one, whose refresh token counts where the kind has one.

        A refresh token that the server does not give anew is carried over from ``held``, as are scopes and account.

        Raises:
            credentials.errors.NeedsLogin: ``held`` is of no use (any more), and nothing else is there.
            credentials.errors.CredentialRefused: the server refuses our client or what it is told of it.
            credentials.errors.CredentialUnavailable: not now.
        """
        ...
