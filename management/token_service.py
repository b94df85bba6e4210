"""What handlers ask of the tokens that the API makes. `gateway/issued_tokens.py` answers."""

from typing import Any, Protocol

import msgspec

from config.schema import Token
from core.identity import Author
from storage.records import NewToken, Page, StoredToken


class Kept(msgspec.Struct, frozen=True):
    """A token as it is kept from now on."""

    token: StoredToken
    everywhere: bool
    """False: some worker of this gateway has not answered in time that it knows of the change; it will."""


class TokenService(Protocol):
    """The tokens of the database and those of the file.

    Every method may raise :class:`storage.errors.StorageUnavailable`. One that changes something gives back when all
    workers of this gateway know, or have not answered for 10 seconds; other gateways know within 2 seconds.
    """

    def declared(self) -> tuple[Token, ...]:
        """Those of the file. Raises nothing."""
        ...

    async def get(self, token_id: str) -> StoredToken | None:
        """One of the database, living or not."""
        ...

    async def list(
        self, *, cursor: str | None, limit: int, owner: str | None, include_revoked: bool
    ) -> Page[StoredToken]:
        """Newest first.

        Raises:
            storage.errors.BadCursor: ``cursor`` is of no page of this list.
        """
        ...

    async def create(self, token: NewToken, author: Author) -> Kept:
        """
        Raises:
            storage.errors.NameTaken: a living token has its name.
        """
        ...

    async def update(self, token_id: str, expected: int, author: Author, **values: Any) -> Kept:
        """
        Raises:
            storage.errors.NotFound: no living token has the id.
            storage.errors.Stale: its version is not ``expected``.
            storage.errors.NameTaken: another living token has the new name.
        """
        ...

    async def revoke(self, token_id: str, expected: int | None, author: Author) -> Kept:
        """One that was revoked before stays as it is.

        Raises:
            storage.errors.NotFound: there is no such token.
            storage.errors.Stale: its version is not ``expected``.
        """
        ...

    async def rotate(self, token_id: str, expected: int | None, successor: "Successor", author: Author) -> Kept:
        """Gives the successor.

        Raises:
            storage.errors.NotFound: no living token has the id.
            storage.errors.Stale: it has a successor already, or its version is not ``expected``.
        """
        ...


class Successor(msgspec.Struct, frozen=True):
    """What a token is replaced by; all else it has from the old one."""

    id: str
    sha256: bytes
    prefix: str
    grace_until: int
    """Until when the old one lives on, in microseconds since the Unix epoch; in the past: it is revoked at once."""

    def __repr__(self) -> str:
        return f"Successor({self.id})"
