"""The TypeScript client (web/client) from Node, against a running gateway."""

import json
import re
import subprocess

from tests import servers, web_client
from tests.gateway_process import ADMIN_KEY, ROOT, environment
from tests.integration.conftest import StartGateway

_LOCK = ROOT / "web/client/package-lock.json"


def test_the_example_runs_as_it_stands(start_gateway: StartGateway) -> None:
    gateway = start_gateway("providers: [{name: echo, type: echo}]")
    run = subprocess.run(
        [servers.node(), "example.ts", gateway.url],
        cwd=web_client.installed(),
        env=environment({"SLUICE_ADMIN_KEY": ADMIN_KEY}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (0, "") == (run.returncode, run.stderr)
    expected = [
        r"revision [0-9a-f]{12}, up for \d+ s",
        r"made from-typescript \(scope_token_user\) for gpt-\*",
        r"refused: 409 token_error-name_taken",
        r"revoked; 0 left of it",
    ]
    for pattern, line in zip(expected, run.stdout.splitlines(), strict=True):
        assert re.fullmatch(pattern, line), line


def test_its_lock_has_hashes_and_names_no_registry() -> None:
    packages = json.loads(_LOCK.read_text())["packages"]
    assert [] == [name for name, each in packages.items() if name and "integrity" not in each]
    assert [] == [name for name, each in packages.items() if "resolved" in each]
