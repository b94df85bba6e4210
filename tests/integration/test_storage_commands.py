"""`./sluice migrate`, `export`, `import` and `audit verify`, on both databases."""

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from core.clock import SystemClock
from gateway.cli import main
from storage.audit import AuditStore
from storage.database import Database
from storage.migrations import REVISIONS
from storage.records import NewAuditEntry
from tests.databases import PASSWORD
from tests.gateway_process import run_cli
from tests.integration.conftest import NewUrl

Sluice = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sluice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, log_records: object
) -> Sluice:
    """``sluice(url, *arguments)``: status and outputs of a command with a configuration in the test's directory that names
    ``url``; they never show the password. In this process: a start of its own would take most of the time."""

    def run(url: str, *arguments: str) -> tuple[int, str, str]:
        (tmp_path / "config.yaml").write_text("storage: {url: '${env:DATABASE_URL}'}\n")
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.chdir(tmp_path)
        status = main(arguments)
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        return status, out, err

    return run


def fill(url: str, count: int = 3) -> str:
    """Entries for the audit; the hash of the last."""

    async def write() -> str:
        database = Database(url, SystemClock())
        entries = [
            NewAuditEntry(at=number, actor="ann", actor_kind="session", action="a.b", resource="a", outcome="done")
            for number in range(count)
        ]
        head = await AuditStore(database).append(entries)
        await database.close()
        assert head is not None
        return head.hash.hex()

    return asyncio.run(write())


def test_migrate_makes_a_database_and_tells_what_it_did(
    sluice: Sluice, tmp_path: Path, new_url: NewUrl, kind: str
) -> None:
    url = new_url(kind, empty=True)
    status, out, err = sluice(url, "migrate")
    assert (0, "") == (status, err)
    assert f"has been brought from the schema none to {REVISIONS[-1]}" in out
    status, out, err = sluice(url, "migrate")
    assert (0, "") == (status, err)
    assert f"has the schema {REVISIONS[-1]} already" in out


def test_what_is_exported_is_imported_elsewhere_and_for_its_owner_alone(
    sluice: Sluice, tmp_path: Path, new_url: NewUrl, kind: str
) -> None:
    source, target = new_url(kind), new_url("postgresql" if kind == "sqlite" else "sqlite", empty=True)
    head = fill(source)
    (tmp_path / "backup").write_text("an earlier one, which all could read")
    status, out, err = sluice(source, "export", "backup")
    assert (0, "") == (status, out)
    assert "exported: 3 audit, 1 changes, " in err
    assert err.endswith("; without the ledger of requests (--with-usage)\n")
    assert 0o600 == stat.S_IMODE((tmp_path / "backup").stat().st_mode)
    status, out, err = sluice(source, "export")
    assert (0, (tmp_path / "backup").read_text()) == (status, out)
    status, _, err = sluice(target, "import", "backup")
    assert (0, "") == (status, err)
    status, out, err = sluice(target, "audit", "verify", "--head", head)
    assert (0, f"the audit is whole: the head is 3 {head}\n", "") == (status, out, err)
    status, out, err = sluice(target, "import", "backup")
    assert (1, "") == (status, out)
    assert "sluice: the database is not empty" in err
    assert {"backup", "config.yaml"} == {path.name for path in tmp_path.iterdir() if path.is_file()} - {
        path.name for path in tmp_path.glob("sluice-*")
    }


def test_an_audit_that_is_broken_ends_with_status_1(sluice: Sluice, tmp_path: Path, new_url: NewUrl) -> None:
    url = new_url("sqlite")
    head = fill(url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM audit WHERE seq = 3")
    connection.close()
    status, out, err = sluice(url, "audit", "verify")
    assert (1, "") == (status, err)
    assert (
        "the audit is broken: entry 3 is missing, and all after it: 3 have been counted; the last good entry is 2 "
        in out
    )
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE changes SET version = 2")
    connection.close()
    assert 0 == sluice(url, "audit", "verify")[0]
    status, out, err = sluice(url, "audit", "verify", "--head", head)
    assert (1, "") == (status, err)
    assert "no entry has the hash that was given" in out
    with pytest.raises(SystemExit, match="2"):
        sluice(url, "audit", "verify", "--head", "abc")


def test_what_cannot_be_done_is_told_and_makes_nothing(sluice: Sluice, tmp_path: Path, planted_secret: str) -> None:
    url = f"sqlite:///{tmp_path}/sluice.db"
    for arguments, told in [
        (("export",), f"sluice: there is no database {tmp_path}/sluice.db: nothing was stored yet\n"),
        (("import", "nowhere"), "sluice: nowhere cannot be read: No such file or directory\n"),
    ]:
        assert (1, "", told) == sluice(url, *arguments)
    assert (0, f"there is no database {tmp_path}/sluice.db, and so no audit\n", "") == sluice(url, "audit", "verify")
    assert 1 == sluice(url, "audit", "verify", "--head", "ab" * 32)[0]
    assert ["config.yaml"] == [path.name for path in tmp_path.iterdir()]
    status, out, err = sluice(f"mysql://ann:{planted_secret}@db/x", "migrate")
    assert (1, "", True) == (status, out, "unknown scheme" in err)
    status, out, err = sluice("postgresql://ann@127.0.0.1:1/x", "migrate")
    assert (1, "") == (status, out)
    assert err.startswith("sluice: the database postgresql://ann@127.0.0.1:1/x cannot be reached")


def test_an_export_goes_through_a_pipe_and_tells_what_waits(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for place in (source, target):
        place.mkdir()
        (place / "config.yaml").write_text("providers: []\n")
    fill(f"sqlite:///{source}/data/sluice.db")
    (source / "data/spool").mkdir()
    (source / "data/spool/audit.1-a.spool").write_text("something")
    status, out, err = run_cli("export", cwd=source)
    assert (0, True) == (status, "sluice: what waits in " in err), err
    status, out, err = run_cli("import", "-", cwd=target, stdin=out)
    assert (0, "") == (status, err)
    assert f"imported into {target}/data/sluice.db: 3 audit, " in out


def test_an_export_that_cannot_be_written_leaves_the_former(sluice: Sluice, tmp_path: Path, new_url: NewUrl) -> None:
    url = new_url("sqlite")
    fill(url)
    (tmp_path / "backup").mkdir()
    status, out, err = sluice(url, "export", "backup")
    assert (1, "", "sluice: backup cannot be written: Is a directory\n") == (status, out, err)
    status, out, err = sluice(url, "export", "nowhere/backup")
    assert (1, "", "sluice: nowhere/backup cannot be written: No such file or directory\n") == (status, out, err)
    assert [] == [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
