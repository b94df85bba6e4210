"""What ``./sluice doctor`` tells of the database and of the places for what is stored; the databases are real."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from core.tasks import Tasks
from gateway.doctor import storage as check
from gateway.doctor.context import Context, Settings
from gateway.doctor.examine import examine
from gateway.doctor.report import Finding, Severity
from gateway.resources import Resources
from storage.audit import AuditStore
from storage.database import Database
from storage.records import NewAuditEntry
from tests.databases import PASSWORD, PostgreSQL
from tests.doctor import ECHO, doctor, write
from tests.integration.conftest import NewDatabase, NewUrl
from tests.planted import place_of_secrets
from transport.dialing import Dialer

Look = Callable[..., Awaitable[list[Finding]]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """``look(url)``: what is found where `storage.url` says this; with no fault but those that have a mend."""

    async def look(url: str | None = None, more: str = "", *, offline: bool = False) -> list[Finding]:
        config = place_of_secrets(tmp_path / "config.yaml")
        config.write_text(ECHO + "\n" + (f"storage: {{url: '{url}'}}\n" if url else "") + more)
        resources, tasks = Resources({}, writes=False), Tasks()
        try:
            examined = examine(config, resources, offline=offline)
            assert examined.generation is not None
            resources.follow(examined.generation.loaded)
            context = Context(Settings(offline=offline), resources, Dialer(tasks), examined)
            found = [each async for each in check.check_places(context)]
            found += [each async for each in check.check_database(context)]
        finally:
            await tasks.cancel()
            await resources.close()
        assert all(each.mend for each in found if each.severity is Severity.FAULT)
        return found

    return look


def loud(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.where.path, each.what, each.mend) for each in found if each.severity is not Severity.FINE]


def everything(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


async def audit(database: Database, count: int) -> None:
    entries = [
        NewAuditEntry(id=f"{number}", at=1, actor="a", actor_kind="b", action="c", resource="d", outcome="done")
        for number in range(count)
    ]
    await AuditStore(database).append(entries)


async def test_a_default_file_that_is_not_there_yet_is_no_fault_and_is_not_made(tmp_path: Path, look: Look) -> None:
    found = await look()
    assert [] == loud(found)
    assert [f"there is no database {tmp_path}/data/sluice.db yet: the first write makes it"] == [
        each.what for each in found
    ]
    assert {"config.yaml"} == everything(tmp_path)


async def test_a_place_that_is_no_directory(tmp_path: Path, look: Look) -> None:
    (tmp_path / "taken").touch()
    ((where, what, mend),) = loud(await look("sqlite:///taken/sluice.db"))
    assert ("storage.url", f"{tmp_path}/taken is no directory") == (where, what)
    assert "name another place in `storage.url`" in mend
    ((where, what, mend),) = loud(await look("sqlite:///sluice.db", "secrets: {directory: taken}\n"))
    assert ("secrets.directory", True) == (where, what.startswith(f"{tmp_path}/taken is no directory: while"))
    assert "name another place in `secrets.directory`" in mend


async def test_a_good_database_is_told_with_its_schema_and_its_audit(
    kind: str, look: Look, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind)
    database = new_database(kind, url=url)
    await audit(database, 3)
    found = await look(url)
    assert [] == loud(found)
    told = " | ".join(each.what for each in found)
    assert "answers, and has the schema 0" in told
    assert "the chain of the audit is whole: its head is 3 " in told
    # A file is no matter of the network.
    assert (kind == "sqlite") == any("answers" in each.what for each in await look(url, offline=True))


async def test_a_broken_audit_is_a_fault(kind: str, look: Look, new_url: NewUrl, new_database: NewDatabase) -> None:
    url = new_url(kind)
    database = new_database(kind, url=url)
    await audit(database, 3)
    async with database.transaction() as connection:
        await connection.run(lambda plain: plain.exec_driver_sql("UPDATE audit SET actor = 'x' WHERE seq = 2"))
    ((where, what, mend),) = loud(await look(url))
    assert ("storage.url", True) == (where, what.startswith("the chain of the audit is broken: entry 2 was changed"))
    assert "restore a backup" in mend


async def test_a_large_audit_is_left_to_the_command(
    look: Look, new_url: NewUrl, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_MOST_ENTRIES", 2)
    url = new_url("sqlite")
    await audit(new_database("sqlite", url=url), 3)
    assert "the audit has 3 entries: `./sluice audit verify` follows its chain" in [
        each.what for each in await look(url)
    ]


async def test_what_is_no_database_of_ours_is_told_and_left_as_it_is(tmp_path: Path, look: Look) -> None:
    file = tmp_path / "sluice.db"
    url = "sqlite:///sluice.db"
    file.write_text("this was never a database\n" * 100)
    ((_, what, mend),) = loud(await look(url))
    assert (f"the database {file} is damaged (file is not a database)", "restore a backup") == (what, mend)
    for statement, words in (
        ("CREATE TABLE alembic_version AS SELECT '9999' AS version_num", "has revision `9999` of the schema"),
        ("CREATE TABLE tokens (a)", "has a table `tokens` that is not of this program"),
    ):
        file.unlink()
        with sqlite3.connect(file) as made:
            made.execute(statement)
        made.close()
        before = file.read_bytes()
        ((_, what, mend),) = loud(await look(url))
        assert words in what
        assert mend
        assert before == file.read_bytes()
    file.write_bytes(b"")
    assert f"the database {file} answers, and is empty: the first use makes its tables" in [
        each.what for each in await look(url)
    ]
    assert b"" == file.read_bytes()


async def test_a_server_that_does_not_let_us_in_or_does_not_answer(
    look: Look, new_url: NewUrl, postgresql_server: PostgreSQL, planted_secret: str
) -> None:
    url = new_url("postgresql")
    ((_, what, mend),) = loud(await look(url.replace(PASSWORD, planted_secret)))
    assert "lets us not in (" in what
    assert mend.startswith("check the user, the password and the database in `storage.url`")
    with postgresql_server.stopped():
        ((where, what, mend),) = loud(await look(url))
    assert ("storage.url", True) == (where, "cannot be reached (" in what)
    assert "see that it runs and that `storage.url` names it" == mend


@pytest.mark.parametrize("how", ["a standby", "no rights in it", "no rights to make it"])
async def test_a_server_that_takes_no_writes(
    look: Look, new_url: NewUrl, postgresql_server: PostgreSQL, new_database: NewDatabase, how: str
) -> None:
    url = new_url("postgresql", empty=how == "no rights to make it")
    name = url.rpartition("/")[2]
    user = name.replace("test", "reader")
    if how == "a standby":
        postgresql_server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    else:
        postgresql_server.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
        if how == "no rights in it":
            async with new_database("postgresql", url=url).transaction() as connection:
                await connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}"))
        url = url.replace("//sluice:", f"//{user}:")
    ((where, what, mend),) = loud(await look(url))
    assert ("storage.url", True) == (where, what.startswith("nothing can be written to the database postgresql://"))
    assert "name the primary" in mend


async def test_what_is_left_in_the_spool_stays_there(tmp_path: Path, look: Look) -> None:
    spool = tmp_path / "data/spool"
    spool.mkdir(parents=True)
    (spool / "audit.1-a.spool").write_text("00000000 {}\n")
    (spool / "audit.1-b.spool.damaged").write_text("x")
    before = everything(tmp_path) | {"config.yaml"}
    ((where, what, _),) = loud(await look())
    assert ("secrets.directory", True) == (where, what.startswith(f"{spool}/audit.1-b.spool.damaged has entries"))
    assert before == everything(tmp_path)


@pytest.mark.parametrize(("free", "told"), [(99_999_999, "has 99 MB left"), (100_000_000, None), (0, "has 0 MB left")])
def test_little_room_on_a_disk_is_a_notice(tmp_path: Path, free: int, told: str | None) -> None:
    found = list(check.judge_room({tmp_path: free}))
    assert [Severity.WARNING] * bool(told) == [each.severity for each in found]
    assert told is None or (told in found[0].what and found[0].mend)


async def test_the_command_tells_it(tmp_path: Path) -> None:
    path = write(
        tmp_path, f"storage: {{url: 'sqlite:///config.yaml/sluice.db'}}\nserver: {{listen: '127.0.0.1:0'}}\n{ECHO}\n"
    )
    report = await doctor(path, "--offline")
    assert "storage.url" == report.fault("config.yaml is no directory").where
