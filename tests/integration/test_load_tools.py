"""Load by programs that others wrote: h2load (nghttp2) and wrk find no error."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests import servers
from tests.gateway_process import TOKEN, Gateway
from tests.integration.conftest import StartGateway
from tests.planted import place_of_secrets

SECONDS = 2
CLIENTS = 16
REQUESTS = 3000
ENOUGH = 100
TIMEOUT_SECONDS = 120
BODY = json.dumps({"model": "echo/m", "messages": [{"role": "user", "content": "one two three"}]})
FIELDS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
WRK = """\
wrk.method = "POST"
wrk.body = {body}
{fields}

function done(summary)
  local errors = summary.errors
  io.write(string.format("%d answers, %d failures\\n", summary.requests,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@pytest.fixture
def running(start_gateway: StartGateway) -> Gateway:
    return start_gateway("providers: [{name: echo, type: echo}]\n", measured=True)


def output(name: str, *arguments: str | Path) -> str:
    program = servers.load_tool(name)
    if program is None:
        pytest.skip(f"{name} is not installed (Debian: {servers.LOAD_TOOLS[name]})")
    command = [program.path, *arguments]
    run = subprocess.run(
        command, env=program.environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert 0 == run.returncode, run.stdout + run.stderr
    return run.stdout


def test_h2load_finds_no_error(running: Gateway, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(BODY)
    fields = [word for name, value in FIELDS.items() for word in ("-H", f"{name}: {value}")]
    told = output(
        "h2load",
        "--h1",
        "-t1",
        f"-c{CLIENTS}",
        f"-n{REQUESTS}",
        "-d",
        body,
        *fields,
        f"{running.base_url}/chat/completions",
    )
    counts = {
        name: int(count) for count, name in re.findall(r"(\d+) (done|succeeded|failed|errored|timeout|[2-5]xx)", told)
    }
    assert REQUESTS == counts["succeeded"] == counts["done"] == counts["2xx"], told
    assert {"failed": 0, "errored": 0, "timeout": 0, "3xx": 0, "4xx": 0, "5xx": 0}.items() <= counts.items(), told


def test_wrk_finds_no_error(running: Gateway, tmp_path: Path) -> None:
    script = place_of_secrets(tmp_path / "chat.lua")
    fields = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in FIELDS.items())
    script.write_text(WRK.format(body=json.dumps(BODY), fields=fields))
    # It knows no number of requests, and counts as a failure what takes longer than two seconds unless it is told to wait.
    patience = ("--timeout", f"{TIMEOUT_SECONDS}s")
    answers = 0
    for seconds in (SECONDS, 5 * SECONDS, 25 * SECONDS):
        duration = f"-d{seconds}s"
        told = output(
            "wrk", "-t1", f"-c{CLIENTS}", duration, *patience, "-s", script, f"{running.base_url}/chat/completions"
        )
        found = re.search(r"^(\d+) answers, (\d+) failures$", told, re.MULTILINE)
        assert found, told
        assert 0 == int(found[2]), told
        answers += int(found[1])
        if answers > ENOUGH:
            break
    assert answers > ENOUGH
