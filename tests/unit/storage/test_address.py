"""`storage.url`: what is taken, what is refused, and that a password is never told."""

from pathlib import Path

import pytest

from core.clock import ManualClock
from storage.address import Server, SqliteFile, parse_address
from storage.database import Database
from storage.errors import StorageUrlFault


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/sluice.db", "data/sluice.db"),
        ("sqlite+aiosqlite:///data/sluice.db", "data/sluice.db"),
        ("sqlite:////var/lib/sluice/sluice.db", "/var/lib/sluice/sluice.db"),
        ("sqlite:///with%20space%25 ü.db", "with space% ü.db"),
    ],
)
def test_a_file_of_sqlite(url: str, path: str) -> None:
    found = parse_address(url)
    assert SqliteFile(Path(path)) == found
    assert path == found.shown


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_a_server_of_postgresql_is_shown_without_its_password(scheme: str, planted_secret: str) -> None:
    found = parse_address(f"{scheme}://ann:{planted_secret}%40%2f@db.example:6432/sluice?sslmode=verify-full")
    expected = Server(
        database="sluice",
        host="db.example",
        port=6432,
        username="ann",
        password=f"{planted_secret}@/",
        ssl_mode="verify-full",
    )
    assert expected == found
    assert "postgresql://ann@db.example:6432/sluice" == found.shown
    assert "Server(postgresql://ann@db.example:6432/sluice)" == repr(found)


def test_a_relative_path_begins_where_it_is_said_to() -> None:
    place = Path("/etc/sluice")
    assert SqliteFile(place / "data/sluice.db") == parse_address("sqlite:///data/sluice.db", place)
    assert SqliteFile(Path("/var/lib/sluice.db")) == parse_address("sqlite:////var/lib/sluice.db", place)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql:///sluice?host=/run/postgresql", "postgresql:///run/postgresql/sluice"),
        ("postgresql://db/sluice", "postgresql://db/sluice"),
        ("postgresql:///sluice", "postgresql://localhost/sluice"),
        ("postgresql://ann@[2001:db8::1]:6432/sluice", "postgresql://ann@[2001:db8::1]:6432/sluice"),
    ],
)
def test_a_server_may_be_at_a_socket_or_the_usual_place(url: str, shown: str) -> None:
    assert shown == parse_address(url).shown


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a URL"),
        ("data/sluice.db", "not a URL"),
        ("postgresql://ann:{}@db:port/sluice", "not a URL"),
        ("postgresql://ann:{}@at@db/sluice", "not a URL"),
        ("postgresql://ann:{}@db:65536/sluice", "a port that there cannot be"),
        ("mysql://ann:{}@db/sluice", "unknown scheme"),
        ("sqlite+pysqlite:///data/sluice.db", "unknown scheme"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///file:x?mode=memory", "takes no"),
        ("sqlite:///file:x", "names no file"),
        ("sqlite://data/sluice.db", "three slashes"),
        ("sqlite:///data/sluice.db?timeout=5", "takes no"),
        ("postgresql://ann:{}@db", "names no database"),
        ("postgresql://ann:{}@db/sluice?sslmode=perhaps", "unknown `sslmode`: write one of `disable`"),
        ("postgresql://ann:{}@db/sluice?password={}", "takes no `password`: after `[?]` may stand `host`, `sslmode`"),
        ("postgresql://ann:{}@db/sluice?sslmode=require&sslmode=disable", "says `sslmode` twice"),
    ],
)
def test_what_is_no_such_url_is_refused_by_its_name_and_not_repeated(url: str, why: str, planted_secret: str) -> None:
    with pytest.raises(StorageUrlFault, match=f"`storage.url`.*{why}") as refused:
        Database(url.replace("{}", planted_secret), ManualClock())
    assert planted_secret not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
