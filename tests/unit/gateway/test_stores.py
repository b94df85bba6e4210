"""The database that a configuration names: which it is, when it is opened, and that what is no address is a fault."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from config.faults import ConfigFaults
from gateway.build import load_and_build
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.stores import StoreState
from storage.errors import Reason, StorageUnavailable
from storage.records import NewAuditEntry
from storage.writer import SpooledWriter
from tests.conftest import ExpectLog
from tests.gateway_process import environment, run_cli
from tests.planted import place_of_secrets

ENTRY = NewAuditEntry(at=1, actor="a", actor_kind="b", action="c", resource="d", outcome="done")


@pytest.fixture(autouse=True)
def patient_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes a database takes its time: meanwhile nothing goes to the disk instead."""
    made: Any = SpooledWriter.__init__
    monkeypatch.setitem(made.__kwdefaults__, "patience_seconds", 60.0)


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources({})
    yield made
    await made.close()


def started(place: Path, text: str, resources: Resources) -> Reloader:
    (place / "config.yaml").write_text(text)
    reloader = Reloader(place / "config.yaml", resources)
    reloader.start()
    return reloader


async def until_ok(resources: Resources) -> None:
    async with asyncio.timeout(60):
        while resources.stores.state() != StoreState(status="ok"):
            await asyncio.sleep(0.02)


def everything(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


async def test_by_default_it_is_a_file_beside_the_configuration_made_by_the_first_write(
    tmp_path: Path, resources: Resources
) -> None:
    started(tmp_path, "providers: []\n", resources)
    stores = resources.stores
    assert (str(tmp_path / "data/sluice.db"), False) == (stores.shown, stores.exists())
    assert StoreState(status="absent") == stores.state()
    assert () == (await stores.audit.list()).entries
    assert {"config.yaml"} == everything(tmp_path)
    await stores.audit.append(ENTRY)
    await until_ok(resources)
    assert stores.exists()
    assert {"data", "data/sluice.db"} <= everything(tmp_path)
    await stores.tokens.list()
    await stores.revisions.list()
    await stores.models.all()
    await stores.jobs.list()


async def test_what_it_says_later_counts_at_the_next_start(
    tmp_path: Path, resources: Resources, expect_log: ExpectLog
) -> None:
    reloader = started(tmp_path, 'storage: {url: "sqlite:///a.db"}\n', resources)
    (tmp_path / "config.yaml").write_text('storage: {url: "sqlite:///b.db"}\n')
    with expect_log("`storage.url` has changed: it takes effect when the gateway is started again"):
        await reloader.reload("test")
    assert str(tmp_path / "a.db") == resources.stores.shown
    await resources.stores.audit.append(ENTRY)
    assert {"a.db"} == {name for name in everything(tmp_path) if name.endswith(".db")}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:///:memory:", "names no file"),
        ("mysql://ann:{}@db/sluice", "begins with an unknown scheme"),
        ("postgresql://ann:{}@db", "names no database"),
    ],
)
async def test_a_url_that_names_no_database_is_a_fault_of_the_document(
    tmp_path: Path, resources: Resources, url: str, why: str, planted_secret: str
) -> None:
    config = place_of_secrets(tmp_path / "config.yaml")
    config.write_text(f'providers: []\nstorage:\n  url: "{url.replace("{}", planted_secret)}"\n')
    with pytest.raises(ConfigFaults) as refused:
        load_and_build(config, resources)
    (fault,) = refused.value.faults
    assert ((3, ("storage", "url")), True) == ((fault.line, fault.path), f"`storage.url` {why}" in fault.message)
    assert planted_secret not in str(fault)


def test_check_tells_of_such_a_url_where_it_stands(tmp_path: Path, planted_secret: str) -> None:
    place_of_secrets(tmp_path / "config.yaml").write_text(
        f'providers: []\nstorage:\n  url: "mysql://ann:{planted_secret}@db/sluice"\n'
    )
    status, out, err = run_cli("check", cwd=tmp_path)
    assert (1, "", True) == (status, err, out.startswith("config.yaml:3:8: storage.url: `storage.url` begins with")), (
        out
    )


async def test_a_database_that_cannot_be_used_is_told_with_its_reason_and_since_when(
    tmp_path: Path, resources: Resources, expect_log: ExpectLog
) -> None:
    (tmp_path / "sluice.db").write_text("this was never a database\n" * 100)
    started(tmp_path, 'storage: {url: "sqlite:///sluice.db"}\n', resources)
    stores = resources.stores
    # Nobody has asked it anything yet.
    assert "ok" == stores.state().status
    began = resources.clock.time()
    with pytest.raises(StorageUnavailable):
        await stores.tokens.list()
    first = stores.state()
    assert ("unavailable", Reason.DAMAGED) == (first.status, first.reason)
    assert "is damaged: restore a backup" in (first.message or "")
    assert began <= (first.since or 0) <= resources.clock.time()
    with expect_log("the audit waits on the disk for the database"):
        await stores.audit.append(ENTRY)
    state = stores.state()
    assert (first.since, 0, 1) == (state.since, state.waiting, state.spooled)
    (tmp_path / "sluice.db").unlink()
    await until_ok(resources)
    assert 1 == len((await stores.audit.list()).entries)


async def test_what_a_former_process_left_is_written_at_the_start(tmp_path: Path, expect_log: ExpectLog) -> None:
    text = 'storage: {url: "sqlite:///sluice.db"}\nsecrets: {directory: elsewhere}\n'
    (tmp_path / "sluice.db").write_text("this was never a database\n" * 100)
    former = Resources({})
    started(tmp_path, text, former)
    with expect_log("the audit waits on the disk for the database"):
        await former.stores.audit.append(ENTRY)
    await former.close()
    assert [".spool"] == [path.suffix for path in (tmp_path / "elsewhere/spool").iterdir()]
    (tmp_path / "sluice.db").unlink()
    later = Resources({})
    started(tmp_path, text, later)
    await until_ok(later)
    assert [ENTRY.id] == [entry.id for entry in (await later.stores.audit.list()).entries]
    await later.close()


def test_a_gateway_without_a_database_and_accounts_imports_nothing_that_they_need(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("providers: [{name: echo, type: echo}]\n")
    program = """
import asyncio, sys
from pathlib import Path
import gateway.cli, gateway.server
from gateway.reload import Reloader
from gateway.resources import Resources

async def main():
    resources = Resources({})
    Reloader(Path(sys.argv[1]), resources).start()
    await resources.credentials.start("http://127.0.0.1:8080")
    await asyncio.sleep(0.1)
    assert not resources.stores.exists()
    of_sql = {"aiosqlite", "alembic", "asyncpg", "sqlalchemy", "sqlite3"}
    of_credentials = {"cryptography", "jwt", "oauthlib", "redis", "credentials.oauth.server", "credentials.sources.build"}
    print(sorted((of_sql | of_credentials) & sys.modules.keys()))
    await resources.close()

asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "config.yaml")]
    # `measured`: what traces it for coverage uses SQLite too.
    run = subprocess.run(command, env=environment(measured=True), capture_output=True, text=True, check=True)
    assert "[]" == run.stdout.strip()
    assert {"config.yaml"} == everything(tmp_path)
