"""Tokens for the tests of handlers: a database in memory, and a file."""

from typing import Any

import msgspec

from config.schema import Token
from core.identity import Author
from management.token_service import Kept, Successor
from storage.errors import BadCursor, NameTaken, NotFound, Stale
from storage.records import NewToken, Page, StoredToken

AT = 1_700_000_000_000_000


class Tokens:
    """:class:`management.token_service.TokenService`."""

    def __init__(self) -> None:
        self.file: tuple[Token, ...] = ()
        self.stored: dict[str, StoredToken] = {}
        self.everywhere = True
        self.meanwhile = 0
        """How many times somebody else changes a token between its being read and its being written."""
        self.version = 0

    def declared(self) -> tuple[Token, ...]:
        return self.file

    async def get(self, token_id: str) -> StoredToken | None:
        return self.stored.get(token_id)

    async def list(
        self, *, cursor: str | None, limit: int, owner: str | None, include_revoked: bool
    ) -> Page[StoredToken]:
        found = [
            each
            for each in reversed(self.stored.values())
            if (owner is None or each.owner == owner) and (include_revoked or each.revoked_at is None)
        ]
        if cursor is not None and not cursor.isdecimal():
            raise BadCursor("not a cursor")
        begin = int(cursor or 0)
        following = str(begin + limit) if begin + limit < len(found) else None
        return Page(tuple(found[begin : begin + limit]), following)

    async def create(self, token: NewToken, author: Author) -> Kept:
        if any(each.name == token.name and each.revoked_at is None for each in self.stored.values()):
            raise NameTaken(f"a token has the name `{token.name}`: choose another")
        return self._keep(StoredToken(**msgspec.structs.asdict(token), created_at=AT, changed=0))

    async def update(self, token_id: str, expected: int, author: Author, **values: Any) -> Kept:
        if self.meanwhile:
            self.meanwhile -= 1
            self._keep(self.stored[token_id])
        return self._keep(msgspec.structs.replace(self._living(token_id, expected), **values))

    async def revoke(self, token_id: str, expected: int | None, author: Author) -> Kept:
        return self._keep(msgspec.structs.replace(self._living(token_id, expected), revoked_at=AT))

    async def rotate(self, token_id: str, expected: int | None, successor: Successor, author: Author) -> Kept:
        old = self._living(token_id, expected)
        if old.grace_until is not None:
            raise Stale("it has been rotated already: rotate its successor", old.changed)
        ended = {"grace_until": successor.grace_until} if successor.grace_until else {"revoked_at": AT}
        self._keep(msgspec.structs.replace(old, **ended))
        new = msgspec.structs.replace(
            old, id=successor.id, sha256=successor.sha256, prefix=successor.prefix, rotated_from=token_id
        )
        return self._keep(msgspec.structs.replace(new, created_by=author.name))

    def change(self, token_id: str, **values: Any) -> None:
        """As another version of the program may write it."""
        self.stored[token_id] = msgspec.structs.replace(self.stored[token_id], **values)

    def _living(self, token_id: str, expected: int | None) -> StoredToken:
        found = self.stored.get(token_id)
        if found is None or found.revoked_at is not None:
            raise NotFound(f"there is no living token `{token_id}`")
        if expected is not None and found.changed != expected:
            raise Stale("the token has changed since it was read: read it again", found.changed)
        return found

    def _keep(self, token: StoredToken) -> Kept:
        self.version += 1
        kept = self.stored[token.id] = msgspec.structs.replace(token, changed=self.version)
        return Kept(kept, self.everywhere)
