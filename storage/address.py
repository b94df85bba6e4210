"""`storage.url`: which database, and how it is named without its password."""

from pathlib import Path

import msgspec
from sqlalchemy import URL, exc, make_url

from storage.errors import StorageUrlFault

_SQLITE = frozenset({"sqlite", "sqlite+aiosqlite"})
_POSTGRESQL = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_FORMS = "`sqlite:///data/sluice.db`, or `postgresql://USER:PASSWORD@HOST/DATABASE`"
_QUERY = frozenset({"host", "sslmode"})
# https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class SqliteFile(msgspec.Struct, frozen=True):
    """A database in a file of this machine."""

    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)


class Server(msgspec.Struct, frozen=True):
    """A PostgreSQL server."""

    url: URL
    ssl_mode: str | None

    @property
    def shown(self) -> str:
        """Without the password."""
        url = self.url
        host = url.query.get("host") or url.host or "localhost"
        port = f":{url.port}" if url.port else ""
        return f"postgresql://{f'{url.username}@' if url.username else ''}{host}{port}/{url.database or ''}"

    def __repr__(self) -> str:
        return f"Server({self.shown})"


Address = SqliteFile | Server


def parse_address(url: str) -> Address:
    """Read `storage.url`.

    Raises:
        StorageUrlFault: it names no database that can be used.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        # Theirs may repeat the text, and with it a password.
        raise StorageUrlFault(f"`storage.url` is not a URL: write {_FORMS}") from None
    if parsed.drivername in _SQLITE:
        return _sqlite(parsed)
    if parsed.drivername in _POSTGRESQL:
        return _server(parsed)
    raise StorageUrlFault(f"`storage.url` begins with an unknown scheme: write {_FORMS}")


def _sqlite(url: URL) -> SqliteFile:
    if url.host or url.username or url.password or url.port:
        raise StorageUrlFault(
            "`storage.url` names a host for SQLite: write three slashes, as in `sqlite:///data/sluice.db`"
        )
    if url.query:
        raise StorageUrlFault("`storage.url` takes no `?…` for SQLite: remove it")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StorageUrlFault(
            "`storage.url` names no file: what is stored must outlive a restart; write a path after `sqlite:///`"
        )
    return SqliteFile(Path(url.database))


def _server(url: URL) -> Server:
    unknown = sorted(url.query.keys() - _QUERY)
    if unknown:
        raise StorageUrlFault(f"`storage.url` takes no `{unknown[0]}`: after `?` may stand {_listed(_QUERY)}")
    for name, value in url.query.items():
        if not isinstance(value, str):
            raise StorageUrlFault(f"`storage.url` says `{name}` twice: remove one")
    if not url.database:
        raise StorageUrlFault("`storage.url` names no database: write it after the last slash")
    mode = url.query.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise StorageUrlFault(f"`storage.url` has an unknown `sslmode`: write one of {_listed(_SSL_MODES)}")
    assert mode is None or isinstance(mode, str)
    bare = url.set(drivername="postgresql+asyncpg").difference_update_query(["sslmode"])
    return Server(bare, mode)


def _listed(names: frozenset[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in (names if isinstance(names, tuple) else sorted(names)))
