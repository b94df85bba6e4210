"""Accounts that sign in to providers, and sign-ins under way: as bytes, which credentials/stores/cells.py can read.

Each is replaced only if it is still what was read.
"""

from sqlalchemy import select, text

from storage.account_tables import accounts, logins
from storage.changes import bump, version
from storage.connection import Connection
from storage.database import Database

TOPIC = "credential_accounts"

_ADD_ACCOUNT = text(
    "INSERT INTO credential_accounts (provider, name, kept) VALUES (:provider, :name, :kept) ON CONFLICT DO NOTHING"
)
_ADD_LOGIN = text(
    "INSERT INTO credential_logins (key, kept, until) VALUES (:key, :kept, :until) ON CONFLICT DO NOTHING"
)


class AccountCells:
    """The cells of one database. Every method may raise what its transactions do (:class:`Database`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> int:
        """The time as the tables have it."""
        return self._database.now()

    async def account(self, provider: str, name: str) -> bytes | None:
        """What is kept of it."""
        statement = select(accounts.c.kept).where(accounts.c.provider == provider, accounts.c.name == name)
        async with self._database.reading() as connection:
            found: bytes | None = await connection.scalar(statement)
            return found

    async def swap_account(self, provider: str, name: str, seen: bytes | None, new: bytes, *, counts: bool) -> bool:
        """Keep ``new`` in the place of ``seen`` (None: of nothing); whether that was there. ``counts``: the version too."""
        values = {"provider": provider, "name": name, "kept": new}
        async with self._database.transaction() as connection:
            if seen is None:
                done = (await connection.execute(_ADD_ACCOUNT, values)).rowcount
            else:
                there = (accounts.c.provider == provider, accounts.c.name == name, accounts.c.kept == seen)
                done = (await connection.execute(accounts.update().where(*there).values(kept=new))).rowcount
            if done and counts:
                await bump(connection, TOPIC)
            return bool(done)

    async def login(self, key: str) -> bytes | None:
        """What is kept of a sign-in."""
        async with self._database.reading() as connection:
            found: bytes | None = await connection.scalar(select(logins.c.kept).where(logins.c.key == key))
            return found

    async def swap_login(self, key: str, seen: bytes | None, new: bytes, until: int) -> bool:
        """As :meth:`swap_account`; it may be forgotten after ``until``."""
        async with self._database.transaction() as connection:
            if seen is None:
                await connection.execute(logins.delete().where(logins.c.until <= self._database.now()))
                added = await connection.execute(_ADD_LOGIN, {"key": key, "kept": new, "until": until})
                return bool(added.rowcount)
            there = (logins.c.key == key, logins.c.kept == seen)
            return bool((await connection.execute(logins.update().where(*there).values(kept=new))).rowcount)

    async def version(self) -> int:
        """Another one after each swap that counts."""
        async with self._database.reading() as connection:
            return await version(connection, TOPIC)

    async def all(self) -> tuple[int, list[tuple[str, str, bytes]]]:
        """The version, and the provider, the name and the cell of every account, all of one state."""
        async with self._database.reading() as connection:
            return await version(connection, TOPIC), await _rows(connection)


async def _rows(connection: Connection) -> list[tuple[str, str, bytes]]:
    # As bytes too: of a name that is damaged on the disk the other rows are not to suffer.
    if connection.dialect == "postgresql":
        name = "convert_to(provider, 'UTF8'), convert_to(name, 'UTF8')"
    else:
        name = "CAST(provider AS BLOB), CAST(name AS BLOB)"
    found = (await connection.execute(text(f"SELECT {name}, kept FROM credential_accounts"))).all()  # noqa: S608  no input
    return [(row[0].decode(errors="replace"), row[1].decode(errors="replace"), row[2]) for row in found]
