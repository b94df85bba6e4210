"""What other packages import of storage costs them nothing."""

import subprocess
import sys

from tests.gateway_process import environment


def test_records_errors_and_addresses_bring_nothing_of_sql() -> None:
    program = (
        "import sys, storage.address, storage.errors, storage.records\n"
        "print(sorted({'aiosqlite', 'alembic', 'asyncpg', 'sqlalchemy', 'sqlite3'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    # `measured`: what traces it for coverage uses SQLite too.
    run = subprocess.run(command, env=environment(measured=True), capture_output=True, text=True, check=True)
    assert "[]" == run.stdout.strip()
