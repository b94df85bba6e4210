"""What a pool chooses among: a provider's credentials, whatever kind they are of."""

from typing import Protocol

import msgspec

from config.schema import Credential, TokenPlacement
from core.secret import Secret


class Live(Protocol):
    """A credential whose token changes while it serves; :class:`credentials.live.LiveCredential` is one."""

    @property
    def usable(self) -> bool:
        """Whether it may be chosen: it has a token, or can get one without a person."""
        ...

    def fresh(self, now: float) -> bool:
        """Whether its token has not ended at ``now``, in seconds since the Unix epoch; costs next to nothing."""
        ...

    async def freshen(self, rejected: str | None = None) -> None:
        """Give back when :attr:`Member.secret` reveals a token that has not ended and is not ``rejected``, which a provider
        has answered 401 to. However many wait, one asks.

        Raises:
            credentials.errors.CredentialFault: no such token can be had now.
        """
        ...


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One credential of a provider's pool."""

    name: str
    secret: Secret | None
    """Key or access token; None: the provider needs none."""
    weight: int = 1
    priority: int = 0
    prefix: str | None = None
    models: tuple[str, ...] = ()
    """Globs of the models that it may be used for; none: all."""
    placement: TokenPlacement | None = None
    """How the secret is put on requests; None: as the vendor's adapter places a key."""
    proxy_url: Secret | None = None
    """Instead of the provider's; None: that one."""
    live: Live | None = None
    """None: its secret is as it is."""


def member_of_file(
    credential: Credential, secret: Secret | None, live: Live | None = None, placement: TokenPlacement | None = None
) -> Member:
    """A credential of the file, as a pool has it."""
    return Member(
        name=credential.name,
        secret=secret,
        weight=credential.weight,
        priority=credential.priority,
        prefix=credential.prefix,
        models=credential.models,
        placement=placement,
        proxy_url=credential.proxy_url,
        live=live,
    )
