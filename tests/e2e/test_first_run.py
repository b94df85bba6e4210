"""A newcomer's first minutes: nothing is configured, and what is printed works as it is printed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway_process import (
    Gateway,
    _await_ready,
    command,
    document,
    environment,
    gateway,
    put_text,
    run_cli,
    until,
)

LISTEN = ("--listen", "127.0.0.1:0")

curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, which is what a newcomer would run")


def printed_request(running: Gateway) -> str:
    """The `curl` command of the banner: all its lines, as somebody would copy them."""
    match = re.search(r"^curl(?:.*\\\n)*.*$", running.out, re.MULTILINE)
    assert match, running.out
    return match[0]


def paste(text: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``text`` in a shell, where it is pasted."""
    return subprocess.run(
        ["sh"],
        input=text,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def target_of(running: Gateway, token: str) -> str:
    """Where a request for `fast` goes."""
    body = {"model": "fast", "messages": [{"role": "user", "content": "?"}]}
    return running.request("POST", "/v1/chat/completions", body, key=token).headers["x-sluice-target"]


@curl
def test_the_demo_needs_nothing_and_its_request_works_as_printed(tmp_path: Path) -> None:
    with gateway("", tmp_path, arguments=("demo", *LISTEN)) as running:
        answer = paste(printed_request(running)).stdout
        assert answer.endswith("data: [DONE]\n\n")
        assert " Sluice!" in answer
        assert "keep it" not in running.out
        place = re.search(r"Configuration\s+(\S+)", running.out)
        assert place
        assert Path(place[1]).exists()
    # Nothing is left of it.
    assert not Path(place[1]).parent.exists()
    assert ["err.log", "out.log"] == sorted(path.name for path in tmp_path.iterdir())


@curl
async def test_a_first_start_writes_a_config_and_shows_its_token_once(tmp_path: Path) -> None:
    with gateway("", tmp_path, arguments=("serve", *LISTEN)) as running:
        config = tmp_path / "config.yaml"
        assert config.exists()
        answer = paste(printed_request(running)).stdout
        assert answer.endswith("data: [DONE]\n\n")
        token = re.search(r"Your token\s+(\S+)", running.out)
        assert token
        assert token[1].startswith("sk-sluice-")
        assert token[1] not in config.read_text()
        assert token[1] not in running.err
        # And it can be edited live, as its own comments say.
        put_text(config, config.read_text().replace("to: echo/echo-small", "to: echo/echo-large"))
        await until(lambda: "echo/echo-large" == target_of(running, token[1]))
    assert 0 == run_cli("check", cwd=tmp_path)[0]

    # A later start uses what is there, and reads the token from the environment.
    before = config.read_bytes()
    with gateway("", tmp_path, arguments=("serve", "--banner", *LISTEN)) as running:
        assert "$SLUICE_TOKEN" in printed_request(running)
        assert "the one that the first run showed (export SLUICE_TOKEN=…)" in running.out
        assert "lost: put another SHA-256 into config.yaml" in running.out
        assert token[1] not in running.out
        answer = paste(printed_request(running), {"SLUICE_TOKEN": token[1]}).stdout
        assert answer.endswith("data: [DONE]\n\n")
    assert before == config.read_bytes()


def test_a_start_without_a_terminal_prints_no_banner(tmp_path: Path) -> None:
    with gateway(document("providers: []"), tmp_path) as running:
        assert "" == running.out


def test_a_named_file_that_is_missing_is_not_invented(tmp_path: Path) -> None:
    status, _, err = run_cli("serve", "--config", "mine.yaml", *LISTEN, cwd=tmp_path)
    assert 1 == status
    assert "mine.yaml" in err
    assert [] == list(tmp_path.iterdir())


def test_a_faulty_document_starts_nothing_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("providers:\n  - {name: echo, typ: echo}\n")
    status, out, err = run_cli("serve", *LISTEN, cwd=tmp_path)
    assert (1, "") == (status, out)
    assert "config.yaml:2:18: providers[0].typ: unknown key `typ`: did you mean `type`?" in err
    assert "nothing was started" in err


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with gateway(document("providers: []"), tmp_path / "first") as running:
        address = f"{running.host}:{running.port}"
        status, _, err = run_cli("serve", "-c", running.config, "--listen", address, cwd=tmp_path)
    assert 1 == status
    assert f"cannot listen on {address}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("listen", ["taken", "nonsense", "192.0.2.1:0"])
def test_a_first_start_that_fails_leaves_no_config_whose_token_nobody_has(tmp_path: Path, listen: str) -> None:
    first_run = tmp_path / "first-run"
    first_run.mkdir()
    with gateway(document("providers: []"), tmp_path / "other") as running:
        address = f"{running.host}:{running.port}" if listen == "taken" else listen
        status, out, err = run_cli("serve", "--banner", "--listen", address, cwd=first_run)
    assert (1, "") == (status, out)
    assert "cannot listen on" in err
    assert [] == list(first_run.iterdir())


def test_who_used_make_run_is_told_how_to_choose_another_port(tmp_path: Path) -> None:
    with gateway(document("providers: []"), tmp_path / "other") as running:
        address = f"{running.host}:{running.port}"
        (tmp_path / "mine.yaml").write_text(f"management: {{listen: '{address}'}}\n")
        for arguments, mend in (
            (("serve", "--listen", address), "choose another: ./sluice serve --banner --listen"),
            (("demo", "--listen", address), "choose another with --listen\n"),
            (("serve", "-c", "mine.yaml", *LISTEN), "choose another: set management.listen in mine.yaml"),
            (
                ("serve", "-c", "mine.yaml", "--listen", address),
                "choose another with --listen, or set server.listen in mine.yaml",
            ),
        ):
            status, _, err = run_cli(*arguments, cwd=tmp_path)
            assert 1 == status
            assert mend in err


def test_a_gateway_whose_output_is_closed_serves_and_ends_in_order(tmp_path: Path) -> None:
    with (tmp_path / "err.log").open("wb") as err:
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" >&- <&-', "sh", *command("demo", *LISTEN)],
            cwd=tmp_path,
            env=environment(),
            stderr=err,
        )
    running = Gateway(process, tmp_path / "config.yaml", tmp_path)
    try:
        _await_ready(running)
        # Each of these is a line of the access log, which must not go into a connection.
        assert [401] * 20 == [running.request("GET", "/v1/models", key=None).status for _ in range(20)]
        running.stop()
    finally:
        process.kill()
        process.wait()
    events = [str(record["event"]) for record in running.log()]
    # The last of them may still be at its end.
    assert re.fullmatch("stopping: [01] requests in flight have up to 30 s", events[-2])
    assert "stopped" == events[-1]


def test_a_banner_that_nobody_reads_starts_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *command("serve", *LISTEN)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Traceback" not in run.stderr
    assert "BrokenPipe" not in run.stderr
    assert [] == list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory where not even root can make files")
def test_a_directory_that_cannot_be_written_to_is_named() -> None:
    status, _, err = run_cli("serve", *LISTEN, cwd=Path("/proc"))
    assert 1 == status
    assert "cannot write config.yaml" in err
    assert "Traceback" not in err
