"""Everything that the OpenAPI document lets be sent, and much that it does not, to a real gateway, by schemathesis.

No answer may be a 5xx, or have a status, a header, a media type or a body that is not documented. The requests are the same
with each run. ``SCHEMATHESIS_EXAMPLES=100`` tries more of them, and sequences too.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import ACCESS, ADMIN_KEY, ROOT, environment
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.webhook_receiver import SECRET

PLACE = Path(__file__).with_name("schemathesis")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))
POWER_USER = planted("power-user")
_ALIKE = ("replaceRoute", "patchRoute", "replaceProvider", "patchProvider", "replaceWebhook", "patchWebhook")
"""Their bodies have hundreds of boundaries, which are those of what is created."""

_CONFIG = """\
    providers: [{name: echo, type: echo, options: {interval_seconds: 0.001}}]
    model_aliases: [{from: fast, to: echo/echo-small}]
    routes: [{name: first, match: {model: first}, targets: [echo/echo-small]}]
    webhooks: [{name: ops, url: "http://127.0.0.1:9/", secret: "${env:HOOK_SECRET}", events: [provider.down]}]
"""


def _access() -> str:
    digest = hashlib.sha256(POWER_USER.encode()).hexdigest()
    return ACCESS.replace(
        "tokens:\n", f"tokens:\n  - {{name: power, sha256: {digest}, scope: scope_token_power_user}}\n"
    )


def _without_sign_in() -> dict[str, Any]:
    """The document, but that it knows of no key: it would try wrong ones, and be locked out."""
    document: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text())
    del document["security"], document["components"]["securitySchemes"]
    # It has no end (tests/integration/test_events_api.py).
    del document["paths"]["/api/v1/events"]
    return document


def _with_optional_body(document: dict[str, Any]) -> list[str]:
    operations = [each for path in document["paths"].values() for each in path.values() if isinstance(each, dict)]
    return [each["operationId"] for each in operations if not each.get("requestBody", {"required": True})["required"]]


def _of_operations(ids: Iterable[str], setting: str) -> str:
    return "".join(f'\n[[operations]]\ninclude-operation-id = "{each}"\n{setting}\n' for each in ids)


@pytest.mark.parametrize("caller", ["admin", "token", "nobody"])
# Thousands of requests; by far the most of the time is the gateway's own. Half a minute, on a machine that is not slow.
@pytest.mark.timeout(600 + 60 * EXAMPLES)
def test_nothing_is_answered_that_is_not_documented(start_gateway: StartGateway, caller: str, tmp_path: Path) -> None:
    gateway = start_gateway(_CONFIG, access=_access(), extra={"HOOK_SECRET": SECRET})
    gateway.expect_log("made a master key")
    key = {"admin": ADMIN_KEY, "token": POWER_USER}.get(caller)
    phases = ["fuzzing"] if caller != "admin" else ["coverage", "fuzzing"]
    if EXAMPLES:
        phases = ["coverage", "fuzzing", "stateful"]
    settings = (PLACE / "schemathesis.toml").read_text()
    if key is not None:
        settings = 'headers = {Authorization = "Bearer ${CALLERS_KEY}"}\n' + settings
    document = _without_sign_in()
    # Where a body may be left out, one of white space is none; of these it thinks as of broken ones.
    settings += _of_operations(_with_optional_body(document), "checks.negative_data_rejection.enabled = false")
    if not EXAMPLES:
        settings += _of_operations(_ALIKE, "phases.coverage.enabled = false")
    (tmp_path / "schemathesis.toml").write_text(settings)
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "hooks.py").write_text((PLACE / "hooks.py").read_text())
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
            *("run", "openapi.json", "--url", gateway.url),
            *("--phases", ",".join(phases), "--max-examples", str(EXAMPLES or (5 if caller == "admin" else 2))),
        ],
        cwd=tmp_path,
        env=environment(
            {"SLUICE_URL": gateway.url, "SLUICE_ADMIN_KEY": ADMIN_KEY, "CALLERS_KEY": key or ""}, measured=True
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == run.returncode, _short(run.stdout + run.stderr)
    tried = re.search(r"(\d+) generated", run.stdout)
    assert tried is not None
    assert 100 < int(tried[1])
    assert 200 == gateway.request("GET", "/readyz", key=None).status


def _short(report: str) -> str:
    return "\n".join(line[:500] for line in report.splitlines() if line.strip())
