"""The commands of docs/tutorial.md, run as they stand there, in the order of the page; their answers are as printed."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tests.gateway_process import ADMIN_KEY, ADMIN_KEY_HASH, ROOT, environment, gateway

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
(DOCUMENT,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
CONSOLE = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
MARK = "@@@ next @@@"
# What the page waits for comes when this machine gets to it.
PATIENCE = """\
sleep() {
    for _ in $(seq 600); do
        command sleep 0.1
        if api $SLUICE/api/v1/config/pending | grep '"pending":null' >/dev/null; then return; fi
    done
}
"""


def steps() -> list[tuple[str, str]]:
    """Each command, and what it prints."""
    found: list[tuple[str, str]] = []
    for line in CONSOLE.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        else:
            command, printed = found[-1]
            found[-1] = command, f"{printed}\n{line}".strip()
    return found


async def test_a_newcomers_day_goes_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "sluice").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n')
    (tmp_path / "sluice").chmod(0o755)
    (tmp_path / "config.yaml").write_text(DOCUMENT)
    extra = {"SLUICE_ADMIN_KEY_HASH": ADMIN_KEY_HASH}
    serve = ("serve", "--config", "config.yaml", "--listen", "127.0.0.1:0")
    with gateway("", tmp_path, extra=extra, arguments=serve) as running:
        running.expect_log("configuration refused|stays|taken back|rolled back")
        script = PATIENCE + "\n".join(f"{command}\necho '{MARK}'" for command, _ in steps())
        run = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=environment({**extra, "SLUICE": running.url, "SLUICE_ADMIN_KEY": ADMIN_KEY}),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert (0, "") == (run.returncode, run.stderr)
    outputs = run.stdout.split(f"{MARK}\n")[:-1]
    for (command, printed), output in zip(steps(), outputs, strict=True):
        pattern = ".*?".join(re.escape(piece) for piece in printed.split("…"))
        assert re.match(pattern, output.strip(), re.DOTALL), f"$ {command}\n{output}\nis not as printed:\n{printed}"
