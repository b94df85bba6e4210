"""The list of revisions, and what a migration may be."""

import subprocess
import sys
from pathlib import Path

from alembic.script import ScriptDirectory

from storage.migrations import REVISIONS
from storage.migrations.upgrade import configuration
from storage.tables import METADATA


def test_the_list_of_revisions_is_that_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    assert list(REVISIONS) == [script.revision for script in scripts.walk_revisions()][::-1]


def test_there_is_no_way_back_but_a_backup() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    assert [] == [one.revision for one in scripts.walk_revisions() if hasattr(one.module, "downgrade")]


def test_every_constraint_has_a_name_so_that_a_later_migration_can_name_it() -> None:
    for table in METADATA.tables.values():
        assert all(constraint.name for constraint in table.constraints | table.indexes), table.name


def test_an_open_database_has_imported_neither_the_orm_nor_alembic(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from core.clock import SystemClock
from storage.database import Database

async def main():
    for _ in range(2):
        database = Database(sys.argv[1], SystemClock())
        await database.ping()
        await database.close()
    print(sorted({"alembic", "asyncpg", "sqlalchemy.orm", "sqlalchemy.ext.asyncio"} & sys.modules.keys()))

asyncio.run(main())
"""
    told = []
    for _ in range(2):
        command = [sys.executable, "-W", "error", "-c", program, f"sqlite:///{tmp_path}/sluice.db"]
        told.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    # The first has made the tables.
    assert ["[]", "[]"] == told
