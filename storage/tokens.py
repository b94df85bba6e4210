"""API tokens that are made through the API: the SHA-256 of each and what it opens, never its text.

A token is *living* until it is revoked or its grace ends; whether it has expired is for the reader to judge. Each change
counts the topic `tokens` (storage/changes.py) and marks the row with the number: that is the row's version.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, or_, select, tuple_

from storage.changes import bump, version
from storage.connection import Connection
from storage.database import Database
from storage.errors import NameTaken, NotFound, Stale
from storage.pages import decode_cursor, encode_cursor
from storage.records import NewToken, Page, StoredToken, TokenChanges
from storage.tables import tokens

TOPIC = "tokens"


class TokenStore:
    """The tokens of one database. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, token: NewToken) -> StoredToken:
        """Keep a new one.

        Raises:
            NameTaken: a living token has its name.
            sqlalchemy.exc.IntegrityError: its id or hash is there already.
        """
        async with self._database.transaction() as connection:
            number = await bump(connection, TOPIC)
            await self._see_that_name_is_free(connection, token.name, None)
            return await self._add(connection, token, number)

    async def get(self, token_id: str) -> StoredToken | None:
        async with self._database.reading() as connection:
            return await _one(connection, tokens.c.id == token_id)

    async def by_name(self, name: str) -> StoredToken | None:
        """The living one of that name; of a token that was rotated, the successor."""
        async with self._database.reading() as connection:
            return await _one(connection, _named(name))

    async def list(
        self, *, cursor: str | None = None, limit: int = 100, owner: str | None = None, include_revoked: bool = False
    ) -> Page[StoredToken]:
        """Newest first. Without ``include_revoked`` the living alone.

        Raises:
            BadCursor: ``cursor`` is of no page of this list.
        """
        wanted: list[ColumnElement[bool]] = []
        if owner is not None:
            wanted.append(tokens.c.owner == owner)
        if not include_revoked:
            wanted.append(_living(self._database.now()))
        if cursor is not None:
            created_at, token_id = decode_cursor(cursor, tuple[int, str])
            wanted.append(tuple_(tokens.c.created_at, tokens.c.id) < tuple_(created_at, token_id))
        order = tokens.c.created_at.desc(), tokens.c.id.desc()
        async with self._database.reading() as connection:
            found = await _several(connection, select(tokens).where(*wanted).order_by(*order).limit(limit + 1))
        if len(found) <= limit:
            return Page(found)
        last = found[limit - 1]
        return Page(found[:limit], encode_cursor(last.created_at, last.id))

    async def update(self, token_id: str, expected: int, **values: Any) -> StoredToken:
        """Set columns of a living token: `name`, `scope`, `models`, `endpoints`, `owner`, `metadata`, `ip_ranges`,
        `expires_at`, `limits`. ``expected``: its version (`changed`) as it was read.

        Raises:
            NotFound: no living token has the id.
            Stale: it has changed since.
            NameTaken: another living token has the new name.
        """
        if unknown := values.keys() - _MUTABLE:
            raise ValueError(f"not to be changed: {', '.join(sorted(unknown))}")
        async with self._database.transaction() as connection:
            number = await bump(connection, TOPIC)
            await self._living_one(connection, token_id, expected)
            if "name" in values:
                await self._see_that_name_is_free(connection, values["name"], token_id)
            return await _set(connection, token_id, number, values)

    async def revoke(self, token_id: str, expected: int | None = None) -> StoredToken:
        """From now on it is dead. One that was revoked before stays as it is. ``expected``: as of :meth:`update`.

        Raises:
            NotFound: there is no such token.
            Stale: it has changed since.
        """
        async with self._database.transaction() as connection:
            number = await bump(connection, TOPIC)
            found = await _one(connection, tokens.c.id == token_id)
            if found is None:
                raise NotFound(f"there is no token `{token_id}`")
            _require_version(found, expected)
            if found.revoked_at is not None:
                return found
            return await _set(connection, token_id, number, {"revoked_at": self._database.now()})

    async def rotate(
        self,
        token_id: str,
        *,
        new_id: str,
        sha256: bytes,
        prefix: str,
        created_by: str,
        grace_until: int,
        expected: int | None = None,
    ) -> StoredToken:
        """Give a token a successor, which has all else of it; the old one lives on until ``grace_until``.

        Raises:
            NotFound: no living token has the id.
            Stale: it has a successor already, or has changed since ``expected``.
        """
        now = self._database.now()
        async with self._database.transaction() as connection:
            number = await bump(connection, TOPIC)
            old = await self._living_one(connection, token_id, expected)
            if old.grace_until is not None:
                raise Stale(f"the token `{token_id}` has been rotated already: rotate its successor", old.changed)
            ended = {"grace_until": grace_until} if grace_until > now else {"grace_until": now, "revoked_at": now}
            await _set(connection, token_id, number, ended)
            kept = {name: getattr(old, name) for name in _MUTABLE}
            # One count for both, and for those before them: who is rotated gets no new allowance.
            kept["counted_as"] = old.counted_as or old.id
            new = NewToken(id=new_id, sha256=sha256, prefix=prefix, created_by=created_by, **kept)
            return await self._add(connection, new, number, rotated_from=token_id)

    async def all_living(self) -> TokenChanges:
        """Every living token, and the version that this is of."""
        async with self._database.reading() as connection:
            found = await _several(connection, select(tokens).where(_living(self._database.now())))
            return TokenChanges(await version(connection, TOPIC), found)

    async def living(self, at_a_time: int = 500) -> AsyncGenerator[TokenChanges, None]:
        """The same in parts, all of one state: thousands need not be in memory at once. To be closed (`aclosing`)."""
        now, after = self._database.now(), ""
        async with self._database.reading() as connection:
            number = await version(connection, TOPIC)
            while True:
                wanted = select(tokens).where(_living(now), tokens.c.id > after).order_by(tokens.c.id).limit(at_a_time)
                found = await _several(connection, wanted)
                yield TokenChanges(number, found)
                if len(found) < at_a_time:
                    return
                after = found[-1].id

    async def changed_since(self, known: int) -> TokenChanges:
        """Those that have changed after the version ``known``, in that order. Cheap where none has."""
        async with self._database.reading() as connection:
            newest = await version(connection, TOPIC)
            if newest == known:
                return TokenChanges(newest, ())
            changed = select(tokens).where(tokens.c.changed > known).order_by(tokens.c.changed, tokens.c.id)
            return TokenChanges(newest, await _several(connection, changed))

    async def _add(self, connection: Connection, token: NewToken, number: int, **more: Any) -> StoredToken:
        row = msgspec.structs.asdict(token) | {"created_at": self._database.now(), "changed": number} | more
        await connection.execute(tokens.insert().values(row))
        return StoredToken(**row)

    async def _living_one(self, connection: Connection, token_id: str, expected: int | None) -> StoredToken:
        found = await _one(connection, tokens.c.id == token_id)
        if found is None or not found.living(self._database.now()):
            raise NotFound(f"there is no living token `{token_id}`")
        _require_version(found, expected)
        return found

    async def _see_that_name_is_free(self, connection: Connection, name: str, own_id: str | None) -> None:
        # No other can take it meanwhile: the transaction has the topic.
        other = await connection.scalar(select(tokens.c.id).where(_named(name), tokens.c.id != (own_id or "")))
        if other is not None:
            raise NameTaken(f"the token `{other}` has the name `{name}`: choose another, or revoke that one")


_MUTABLE = frozenset({"name", "scope", "models", "endpoints", "owner", "metadata", "ip_ranges", "expires_at", "limits"})
_COLUMNS = tuple(column.name for column in tokens.columns)
_LISTS = frozenset({"models", "endpoints", "ip_ranges", "limits"})


def _living(now: int) -> ColumnElement[bool]:
    return and_(tokens.c.revoked_at.is_(None), or_(tokens.c.grace_until.is_(None), tokens.c.grace_until > now))


def _named(name: str) -> ColumnElement[bool]:
    return and_(tokens.c.name == name, tokens.c.revoked_at.is_(None), tokens.c.grace_until.is_(None))


def _require_version(found: StoredToken, expected: int | None) -> None:
    if expected is not None and found.changed != expected:
        raise Stale(f"the token `{found.id}` has changed since it was read: read it again", found.changed)


async def _one(connection: Connection, wanted: ColumnElement[bool]) -> StoredToken | None:
    return next(iter(await _several(connection, select(tokens).where(wanted))), None)


async def _several(connection: Connection, statement: Any) -> tuple[StoredToken, ...]:
    rows = (await connection.execute(statement)).all()
    return tuple(_token(row) for row in rows)


def _token(row: Any) -> StoredToken:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in _LISTS:
        values[name] = tuple(values[name])
    return StoredToken(**values)


async def _set(connection: Connection, token_id: str, number: int, values: dict[str, Any]) -> StoredToken:
    changed = values | {"changed": number}
    await connection.execute(tokens.update().where(tokens.c.id == token_id).values(changed))
    found = await _one(connection, tokens.c.id == token_id)
    assert found is not None
    return found
