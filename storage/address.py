"""`storage.url`: which database, and how it is named without its password. Free of SQL's packages: it is read at each load."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import msgspec

from storage.errors import StorageUrlFault

_SQLITE = frozenset({"sqlite", "sqlite+aiosqlite"})
_POSTGRESQL = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_FORMS = "`sqlite:///data/sluice.db`, or `postgresql://USER:PASSWORD@HOST/DATABASE`"
_QUERY = ("host", "sslmode")
# https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# A password may hold anything but `@`, which is written %40 there, as `%` is %25.
_URL = re.compile(
    r"(?P<scheme>[a-z0-9+]+)://"
    r"(?:(?P<username>[^:/@]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^]/?]+)\]|(?P<host>[^:/?@]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)


class SqliteFile(msgspec.Struct, frozen=True):
    """A database in a file of this machine."""

    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL server."""

    database: str
    host: str | None
    """A name, an address, or the directory of its socket; None: where the driver looks."""
    port: int | None
    username: str | None
    password: str | None
    ssl_mode: str | None

    @property
    def shown(self) -> str:
        """Without the password."""
        user = f"{self.username}@" if self.username else ""
        host = self.host or "localhost"
        if ":" in host:
            host = f"[{host}]"
        return f"postgresql://{user}{host}{f':{self.port}' if self.port else ''}/{self.database}"

    def __repr__(self) -> str:
        return f"Server({self.shown})"


Address = SqliteFile | Server


def parse_address(url: str, directory: Path | None = None) -> Address:
    """Read `storage.url`; a relative path of a file begins at ``directory``.

    Raises:
        StorageUrlFault: it names no database that can be used.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise StorageUrlFault(f"`storage.url` is not a URL: write {_FORMS}")
    if found["scheme"] in _SQLITE:
        return _sqlite(found, directory or Path())
    if found["scheme"] in _POSTGRESQL:
        return _server(found)
    raise StorageUrlFault(f"`storage.url` begins with an unknown scheme: write {_FORMS}")


def _sqlite(url: re.Match[str], directory: Path) -> SqliteFile:
    if any(url[part] for part in ("host", "ipv6", "username", "password", "port")):
        raise StorageUrlFault(
            "`storage.url` names a host for SQLite: write three slashes, as in `sqlite:///data/sluice.db`"
        )
    if url["query"]:
        raise StorageUrlFault("`storage.url` takes no `?…` for SQLite: remove it")
    path = unquote(url["database"] or "")
    if not path or path == ":memory:" or path.startswith("file:") or "\0" in path:
        raise StorageUrlFault(
            "`storage.url` names no file: what is stored must outlive a restart; write a path after `sqlite:///`"
        )
    return SqliteFile(directory / path)


def _server(url: re.Match[str]) -> Server:
    query: dict[str, str] = {}
    for name, value in parse_qsl(url["query"] or "", keep_blank_values=True):
        if name not in _QUERY:
            raise StorageUrlFault(f"`storage.url` takes no `{name}`: after `?` may stand {_listed(_QUERY)}")
        if name in query:
            raise StorageUrlFault(f"`storage.url` says `{name}` twice: remove one")
        query[name] = value
    if not url["database"]:
        raise StorageUrlFault("`storage.url` names no database: write it after the last slash")
    mode = query.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise StorageUrlFault(f"`storage.url` has an unknown `sslmode`: write one of {_listed(_SSL_MODES)}")
    port = int(url["port"]) if url["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise StorageUrlFault("`storage.url` names a port that there cannot be: write one of 1 to 65535")
    return Server(
        database=unquote(url["database"]),
        host=query.get("host") or url["ipv6"] or url["host"] or None,
        port=port,
        username=unquote(url["username"]) if url["username"] else None,
        password=unquote(url["password"]) if url["password"] else None,
        ssl_mode=mode,
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
