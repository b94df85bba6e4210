"""The commands of ``./sluice`` as a person or a pipeline runs them: exit statuses and what is printed."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.gateway_process import ROOT, command, environment, gateway, run_cli, sha256
from tests.planted import place_of_secrets, planted
from tests.ports import closed_port
from webhooks.signing import parse_secret

SECRET = planted("key")
DOCUMENT = f"""\
tokens:
  - {{name: team-a, sha256: {sha256("any")}, models: ["gpt-*", fast]}}
providers:
  - name: cloud
    type: openai
    credentials: [{{name: main, api_key: "${{env:CLOUD_KEY}}"}}, {{name: spare, api_key: {SECRET}-spare}}]
  - {{name: local, type: openai-compatible, base_url: "http://127.0.0.1:1/v1?key=${{env:CLOUD_KEY}}", models: ["llama*"]}}
model_aliases:
  - {{from: quick, to: fast}}
  - {{from: fast, to: cloud/gpt-4o-mini}}
routes:
  - name: gold
    match: {{model: "gpt-4*", headers: {{x-tier: gold}}}}
    strategy: weighted
    targets: [{{to: cloud/gpt-4o, weight: 3}}, local/gpt-4o]
    fallbacks: [[local/llama3]]
  - {{name: streams, match: {{requested_model: fast, stream: true}}, targets: [local/llama3]}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place_of_secrets(tmp_path / "config.yaml").write_text(DOCUMENT)
    return tmp_path


def sluice(place: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """The command with the environment that the document refers to; no output of any may show a secret."""
    status, out, err = run_cli(*arguments, cwd=place, stdin=stdin, extra={"CLOUD_KEY": f"{SECRET}-main"})
    assert SECRET not in out + err
    return status, out, err


def in_shell(line: str, *arguments: str, cwd: Path, program: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """``line`` in a shell, where ``"$@"`` is the command line of ``program`` or of ``./sluice ARGUMENTS``."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *(program or command(*arguments))],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_check_finds_a_good_document_good(place: Path) -> None:
    status, out, err = sluice(place, "check")
    assert (0, "") == (status, err)
    assert re.search(r"^config\.yaml is good \(revision [0-9a-f]{12}\)$", out, re.MULTILINE)
    assert "notice: config.yaml:6:" in out


def test_check_lists_every_fault_with_its_place(place: Path) -> None:
    text = DOCUMENT.replace("strategy: weighted", "stragety: weighted").replace("weight: 3", "weight: heavy")
    (place / "config.yaml").write_text(text)
    status, out, err = sluice(place, "check", "-c", "config.yaml")
    assert (1, "") == (status, err)
    lines = text.splitlines()
    misspelt = next(number for number, line in enumerate(lines, 1) if "stragety" in line)
    heavy = next(number for number, line in enumerate(lines, 1) if "heavy" in line)
    told = out.splitlines()
    assert 2 == len(told), out
    assert f"config.yaml:{misspelt}:5: routes[0].stragety: unknown key `stragety`: did you mean `strategy`?" in told
    assert any(line.startswith(f"config.yaml:{heavy}:") and "weight" in line for line in told)


def test_check_as_json(place: Path) -> None:
    status, out, _ = sluice(place, "check", "--json")
    good = json.loads(out)
    assert (0, True, []) == (status, good["ok"], good["faults"])
    assert 64 == len(good["revision"])
    (place / "config.yaml").write_text(DOCUMENT.replace("[local/llama3]", "[locl/llama3]"))
    status, out, _ = sluice(place, "check", "--json")
    bad = json.loads(out)
    assert (1, False) == (status, bad["ok"])
    faults = [(fault["file"], fault["line"], fault["path"]) for fault in bad["faults"]]
    assert [
        ("config.yaml", 16, "routes[0].fallbacks[0][0]"),
        ("config.yaml", 17, "routes[1].targets[0]"),
    ] == faults
    assert all("did you mean `local`?" in fault["message"] for fault in bad["faults"])


def test_check_of_a_missing_reference_names_it_and_the_key(place: Path) -> None:
    status, out, _ = run_cli("check", cwd=place)
    assert 1 == status
    assert "${env:CLOUD_KEY}" in out
    assert "providers[0].credentials[0].api_key" in out


def test_check_reads_an_env_file(place: Path) -> None:
    place_of_secrets(place / "keys.env").write_text(f"CLOUD_KEY={SECRET}\n")
    status, out, _ = run_cli("check", "--env-file", "keys.env", cwd=place)
    assert 0 == status
    assert SECRET not in out


def test_check_of_no_file_says_so(tmp_path: Path) -> None:
    status, out, _ = run_cli("check", "-c", "nothere.yaml", cwd=tmp_path)
    assert 1 == status
    assert "nothere.yaml" in out


def test_explain_tells_the_chain_who_lost_who_won_and_the_url(place: Path) -> None:
    status, out, _ = sluice(place, "explain", "--model", "quick", "--token", "team-a")
    # `team-a` may ask for `fast`, not for `quick`.
    assert 1 == status
    assert "may not ask for this name" in out
    status, out, _ = sluice(place, "explain", "--model", "fast", "--token", "team-a")
    assert 0 == status
    assert "fast → cloud/gpt-4o-mini" in out
    assert "route gold" in out
    assert "route streams: stream wants streamed" in out
    assert "https://api.openai.com/v1/chat/completions" in out
    assert "main, spare" in out


def test_the_model_and_the_file_may_stand_by_themselves(place: Path) -> None:
    assert sluice(place, "explain", "--model", "fast") == sluice(place, "explain", "fast")
    (place / "config.yaml").rename(place_of_secrets(place / "mine.yaml"))
    assert (0, True) == ((told := sluice(place, "check", "mine.yaml"))[0], "mine.yaml is good" in told[1])


def test_explain_depends_on_headers_and_streaming(place: Path) -> None:
    status, out, _ = sluice(place, "explain", "--model", "gpt-4o", "--header", "X-Tier=gold")
    assert 0 == status
    assert "won         route gold" in out
    order = [line.split()[1] for line in out.splitlines() if "→" in line]
    assert ["cloud/gpt-4o", "local/gpt-4o", "local/llama3"] == order
    assert "weight 3" in out
    status, out, _ = sluice(place, "explain", "--model", "fast", "--stream")
    assert "won         route streams" in out


def test_explain_as_json_masks_secrets_in_addresses_too(place: Path) -> None:
    status, out, _ = sluice(place, "explain", "--model", "quick", "--stream", "--json")
    report = json.loads(out)
    assert 0 == status
    assert ["quick", "fast"] == [step["from"] for step in report["explanation"]["aliases"]]
    assert "cloud" == report["upstream"][0]["provider"]
    status, out, _ = sluice(place, "explain", "--model", "llama3", "--json")
    assert "http://127.0.0.1:1/v1/chat/completions?key=…" == json.loads(out)["upstream"][0]["url"]


def test_explain_of_what_goes_nowhere(place: Path) -> None:
    status, out, _ = sluice(place, "explain", "--model", "nope")
    assert 1 == status
    assert "refused     404 model_not_found" in out
    status, _, err = sluice(place, "explain", "--model", "fast", "--token", "team-b")
    assert 1 == status
    assert "did you mean `team-a`?" in err
    assert "nothing was started" not in err
    status, _, err = sluice(place, "explain", "--model", "fast", "--header", "x-tier")
    assert 1 == status
    assert "NAME=VALUE" in err


def test_explain_of_a_request_without_a_model(place: Path) -> None:
    status, out, _ = sluice(place, "explain", "--path", "/v1/files")
    assert 1 == status
    assert "provider_required" in out
    status, out, _ = sluice(place, "explain", "--path", "/v1/files", "--header", "x-sluice-provider=cloud")
    assert 0 == status
    assert "https://api.openai.com/v1/files" in out


def test_a_hashed_key_opens_the_management_api(tmp_path: Path) -> None:
    status, out, err = run_cli("hash-key", cwd=tmp_path, stdin="a key of my own making\n")
    assert (0, "") == (status, err)
    text = f"management: {{admin_key_hash: '{out.strip()}'}}\n"
    with gateway(text, tmp_path / "run") as running:
        assert 200 == running.management("GET", "/api/v1/health", key="a key of my own making").status
        assert 401 == running.management("GET", "/api/v1/health", key="a key of my own makin").status


def test_a_key_can_be_made_and_a_weak_one_is_refused(tmp_path: Path) -> None:
    status, out, err = run_cli("hash-key", "--generate", cwd=tmp_path)
    key, hashed = out.splitlines()
    assert (0, True) == (status, hashed.startswith("$argon2id$"))
    # Who reads this by a program needs no lines to paste.
    assert "" == err
    assert 40 < len(key)
    status, out, err = run_cli("hash-key", cwd=tmp_path, stdin="short\n")
    assert (1, "") == (status, out)
    assert "at least 16 characters" in err


def test_a_secret_for_a_webhook_is_new_each_time_and_signs(tmp_path: Path) -> None:
    texts = set()
    for _ in range(2):
        status, out, err = run_cli("webhook-secret", cwd=tmp_path)
        assert (0, "") == (status, err)
        texts.add(out.strip())
        assert 32 == len(parse_secret(out))
    assert 2 == len(texts)


def test_the_schema_is_current_and_a_stale_one_is_told(tmp_path: Path) -> None:
    assert (0, "", "") == run_cli("schema", "--check", cwd=tmp_path)
    status, out, _ = run_cli("schema", cwd=tmp_path)
    assert 0 == status
    assert {"providers", "routes", "tokens"} <= json.loads(out)["$defs"]["Config"]["properties"].keys()
    assert out == (ROOT / "config/schema.json").read_text()
    stale = tmp_path / "schema.json"
    stale.write_text(out.replace("tokens", "tokns"))
    status, _, err = run_cli("schema", "--check", str(stale), cwd=tmp_path)
    assert 1 == status
    assert "not current" in err


def test_the_openapi_document_is_current_and_a_stale_one_is_told(tmp_path: Path) -> None:
    assert (0, "", "") == run_cli("openapi", "--check", cwd=tmp_path)
    status, out, _ = run_cli("openapi", cwd=tmp_path)
    assert (0, "3.1.0") == (status, json.loads(out)["openapi"])
    assert 1 == run_cli("openapi", "--check", str(tmp_path / "none"), cwd=tmp_path)[0]


def test_version(tmp_path: Path) -> None:
    status, out, _ = run_cli("version", cwd=tmp_path)
    assert 0 == status
    assert re.fullmatch(r"sluice \d+\.\d+\.\d+\n", out)
    assert (0, out, "") == run_cli("--version", cwd=tmp_path)


def test_health_asks_the_gateway_on_this_machine(tmp_path: Path) -> None:
    with gateway("providers: []\n", tmp_path / "run") as running:
        address = f"{running.host}:{running.port}"
        assert (0, "/readyz answers 200\n", "") == run_cli("health", "--address", address, cwd=tmp_path)
        assert (0, "/healthz answers 200\n", "") == run_cli("health", "--address", address, "--live", cwd=tmp_path)
    with closed_port() as port:
        status, _, err = run_cli("health", "--address", f"127.0.0.1:{port}", cwd=tmp_path)
    assert 1 == status
    assert f"no answer from 127.0.0.1:{port}" in err
    for address, mend in (("nonsense", "127.0.0.1:8080"), ("http://127.0.0.1:8080", "the address and the port alone")):
        status, _, err = run_cli("health", "--address", address, cwd=tmp_path)
        assert 2 == status
        assert f"--address {address}: " in err
        assert mend in err


def test_a_command_line_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    for arguments in ((), ("sreve",), ("check", "--jsn")):
        status, _, err = run_cli(*arguments, cwd=tmp_path)
        assert 2 == status
        assert "usage:" in err


def test_a_command_line_that_is_wrong_is_told_with_the_usage_of_its_command(tmp_path: Path) -> None:
    for arguments, told in (
        (("check", "--jsn"), "unrecognized arguments: --jsn"),
        (("check", "a.yaml", "b.yaml"), "unrecognized arguments: b.yaml"),
        (("check", "a.yaml", "-c", "b.yaml"), "name the file once"),
        (("explain", "fast", "--model", "slow"), "name the model once"),
    ):
        status, _, err = run_cli(*arguments, cwd=tmp_path)
        assert 2 == status
        assert f"usage: sluice {arguments[0]}" in err
        assert told in err


@pytest.mark.parametrize("reader", ["true", "head -n 1"])
def test_a_reader_that_has_enough_is_no_fault(tmp_path: Path, reader: str) -> None:
    run = in_shell(f'"$@" | {reader}', "schema", cwd=tmp_path)
    assert (0, "") == (run.returncode, run.stderr)


def test_a_hash_comes_with_the_lines_to_paste_on_a_terminal(tmp_path: Path) -> None:
    terminal, theirs = os.openpty()
    try:
        run = subprocess.run(
            command("hash-key", "--generate"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=120,
            check=True,
        )
        os.close(theirs)
        # It gives what it has by now, piece by piece, and in the end an error.
        told = b""
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 65536):
                told += piece
    finally:
        os.close(terminal)
    hashed = run.stdout.decode().splitlines()[1]
    assert f"export SLUICE_ADMIN_KEY_HASH='{hashed}'" in told.decode()
    assert "admin_key_hash: '${env:SLUICE_ADMIN_KEY_HASH}'" in told.decode()


_TELL_STREAMS = """
import os, sys
from gateway.__main__ import open_standard_streams

open_standard_streams()
print("out")
print("err", file=sys.stderr)
null = os.stat(os.devnull)
with open("told", "w") as file:
    file.write(" ".join(str(n) for n in range(3) if os.path.samestat(os.fstat(n), null) and os.get_inheritable(n)))
"""


@pytest.mark.parametrize(
    ("closed", "null"), [(">&-", "1"), ("2>&-", "2"), ("<&-", "0"), ("<&- >&- 2>&-", "0 1 2"), ("", "")]
)
def test_a_standard_stream_that_is_closed_is_the_null_device(tmp_path: Path, closed: str, null: str) -> None:
    program = [sys.executable, "-c", _TELL_STREAMS]
    run = in_shell(f'echo in | "$@" {closed}', cwd=tmp_path, program=program)
    assert 0 == run.returncode, run.stderr
    assert null == (tmp_path / "told").read_text()
