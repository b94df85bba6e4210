"""The commands of docs/secrets.md, run as they stand there, in the order of the page."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tests.gateway_process import ROOT, environment
from tests.planted import place_of_secrets
from tests.provider import Call, provider
from tests.vault_stand_in import vault_stand_in

PAGE = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
DOCUMENT = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[str]:
    lines = "".join(CONSOLE).splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


async def test_the_commands_work_as_printed_and_show_no_secret(tmp_path: Path) -> None:
    (tmp_path / "sluice").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n')
    (tmp_path / "sluice").chmod(0o755)
    (document,) = DOCUMENT
    place_of_secrets(tmp_path / "config.yaml").write_text(document)
    (tmp_path / "config.yaml").chmod(0o600)
    asked: list[str] = []

    async def models(call: Call) -> None:
        asked.append(call.headers["authorization"])
        await call.answer({"object": "list", "data": [{"id": "mock", "object": "model"}]})

    with vault_stand_in() as vault:
        async with provider(models) as real:
            extra = {
                "VAULT_ADDR": vault.address,
                "VAULT_TOKEN": vault.root_token,
                "SLUICE_VAULT_TOKEN": vault.token(vault.policy({"secret/data/llm/*": ["read"]}), ttl=3600, period=3600),
                "MOCK_URL": f"http://127.0.0.1:{real.port}/v1",
            }
            # `-v` shows each command as it stands there; `-x` would show what is secret in it.
            script = "set -ev\n" + "\n".join(commands())
            run = await asyncio.to_thread(
                subprocess.run,
                ["sh", "-c", script],
                cwd=tmp_path,
                env=environment(extra),
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
    assert 0 == run.returncode, run.stdout + run.stderr
    assert "${sealed:" in run.stdout
    assert "sealed anew" in run.stdout
    assert ["Bearer second-key"] == asked, "the doctor asks with the key that was rotated in"
    printed = {line.strip() for line in script.splitlines()}
    shown = run.stdout + "\n".join(line for line in run.stderr.splitlines() if line.strip() not in printed)
    for secret in ("first-key", "second-key", "my-provider-key", extra["SLUICE_VAULT_TOKEN"]):
        assert secret not in shown
