"""What a gateway without a database to open does not load."""

import subprocess
import sys


def test_webhooks_load_nothing_of_sql() -> None:
    program = "import sys, webhooks.service; print(sorted({'sqlalchemy', 'alembic', 'tornado'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]" == run.stdout.strip()
