"""What handlers ask of the credentials that providers are called by. `gateway/credential_service.py` answers.

Credentials of the file are shown; accounts, which are kept in the store of `oauth.store`, are changed too. What cannot be
kept or read raises a :class:`credentials.errors.StoreFault`, what no token can be had for a
:class:`credentials.errors.CredentialFault`.
"""

from typing import Protocol

import msgspec

from management.credential_bodies import CredentialPatch, CredentialShown, Exported, NewCredential


class UnknownCredential(Exception):
    """No provider has a credential of that name."""


class UnknownProvider(Exception):
    """The configuration in force has no such provider, or it says nothing of where its accounts sign in."""


class InFile(Exception):
    """The configuration declares the credential: it is changed there."""


class NameTaken(Exception):
    """The provider has a credential of that name already."""


class Unfit(Exception):
    """What a caller has given cannot be; ``where`` is the member that is wrong."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where


class NothingSealed(Exception):
    """There are no tokens that could be exported."""


class CannotRefresh(Exception):
    """The credential has no end, or is not in use."""


class Changed(msgspec.Struct, frozen=True):
    """An account before and after a change."""

    before: CredentialShown
    after: CredentialShown


class Removed(msgspec.Struct, frozen=True):
    """An account that is gone."""

    before: CredentialShown
    revoked: bool
    """Whether the server where it had signed in has taken its tokens back."""
    because: str | None
    """Why not."""


class CredentialService(Protocol):
    """The credentials of all providers. Every method but :meth:`all` may raise
    :class:`credentials.errors.StoreUnavailable`."""

    async def all(self) -> tuple[CredentialShown, ...]:
        """By provider and name. While the store does not answer, what was known of it."""
        ...

    async def get(self, provider: str, name: str) -> CredentialShown:
        """The one that counts.

        Raises:
            UnknownCredential: there is none.
        """
        ...

    async def account(self, provider: str, name: str) -> CredentialShown:
        """The account of that name, also where the file has one that counts instead.

        Raises:
            UnknownCredential: there is none.
            InFile: there is one of the file alone.
        """
        ...

    async def add(self, new: NewCredential) -> CredentialShown:
        """Keep an account with tokens that the caller has.

        Raises:
            UnknownProvider, NameTaken, Unfit: as they say.
        """
        ...

    async def change(self, provider: str, name: str, seen: int, patch: CredentialPatch) -> Changed:
        """Change what an operator says of an account; its tokens are not touched.

        Raises:
            UnknownCredential, InFile, Unfit: as they say.
            credentials.errors.RecordElsewhere: the provider is asked without TLS, and its tokens would go by another proxy.
            credentials.errors.StoreConflict: its version is not ``seen``.
            credentials.errors.RecordDamaged, credentials.errors.RecordUnknown: it cannot be read.
        """
        ...

    async def remove(self, provider: str, name: str, seen: int | None) -> Removed:
        """Give the tokens of an account back, if the server takes them, and forget it. One that cannot be read is
        forgotten too.

        Raises:
            UnknownCredential, InFile: as they say.
            credentials.errors.StoreConflict: its version is not ``seen``.
        """
        ...

    async def refresh(self, provider: str, name: str) -> CredentialShown:
        """Exchange the token for a fresh one now.

        Raises:
            UnknownCredential, CannotRefresh: as they say.
            credentials.errors.CredentialFault: none can be had.
        """
        ...

    async def export(self, provider: str, name: str) -> Exported:
        """The account with its tokens, sealed.

        Raises:
            UnknownCredential, InFile, NothingSealed: as they say.
            credentials.errors.RecordDamaged, credentials.errors.RecordUnknown: it cannot be read.
        """
        ...

    async def take(self, exported: Exported) -> CredentialShown:
        """Keep what :meth:`export` has given, here or elsewhere.

        Raises:
            UnknownProvider, NameTaken, Unfit: as they say.
            credentials.errors.RecordElsewhere: it comes from a provider of another address.
            credentials.errors.RecordDamaged, credentials.errors.RecordUnknown: it does not open.
        """
        ...
