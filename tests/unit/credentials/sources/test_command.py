"""Programs that print tokens: real ones, of a line or two."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.schema import CommandCredential
from core.clock import ManualClock
from core.secret import Secret
from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable
from credentials.sources.command import CommandSource, Unreadable, read_token
from credentials.sources.process import OUTPUT_BYTES
from tests.conftest import ExpectLog
from tests.gateway_process import until
from tests.planted import planted

TOKEN = planted("command-token")
NOW = 1_700_000_000.0
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/srv/own", "LANG": "C.UTF-8", "MINE": "own"}


def source(*run: str, **settings: Any) -> CommandSource:
    return CommandSource(CommandCredential(run=run, **settings), ENVIRONMENT, ManualClock(time=NOW))


def shell(script: str, **settings: Any) -> CommandSource:
    return source("sh", "-c", script, **settings)


def printing(text: str, **settings: Any) -> CommandSource:
    return source("printf", "%s\n", text, **settings)


async def fault_of(command: CommandSource) -> CredentialFault:
    with pytest.raises(CredentialFault) as failed:
        await command.obtain(None)
    assert failed.value.__cause__ is None
    return failed.value


def ended(process: int) -> bool:
    """Whether it runs no more; one that nobody has asked for its status counts as ended."""
    try:
        return "Z" == Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("printed", "expires_at"),
    [
        (TOKEN, NOW + 300),
        (f"  {TOKEN}\r\n\n", NOW + 300),
        ({"access_token": TOKEN, "expires_in": 60}, NOW + 60),
        ({"token": TOKEN, "expires_in": "60"}, NOW + 60),
        ({"token": TOKEN, "expires_at": NOW + 5.5}, NOW + 5.5),
        ({"token": TOKEN, "expires_at": "2030-01-02T03:04:05Z"}, 1893553445.0),
        ({"token": TOKEN, "expires_at": "2030-01-02T05:04:05.5+02:00"}, 1893553445.5),
        ({"token": TOKEN, "expires_at": None, "other": [1]}, NOW + 300),
        ({"token": TOKEN}, NOW + 300),
        # What `az account get-access-token` prints.
        ({"accessToken": TOKEN, "expiresOn": "2030-01-02 03:04:05.000000", "expires_on": 1893553445}, 1893553445.0),
        # `gcloud config config-helper --format=json`
        (
            {"configuration": {}, "credential": {"access_token": TOKEN, "token_expiry": "2030-01-02T03:04:05Z"}},
            1893553445.0,
        ),
        # Plug-ins of kubectl.
        (
            {
                "kind": "ExecCredential",
                "apiVersion": "client.authentication.k8s.io/v1",
                "spec": {"interactive": False},
                "status": {"expirationTimestamp": "2030-01-02T03:04:05Z", "token": TOKEN},
            },
            1893553445.0,
        ),
        # As AWS writes an end.
        ({"Version": 1, "token": TOKEN, "Expiration": "2030-01-02T03:04:05Z"}, 1893553445.0),
    ],
)
async def test_a_token_is_a_word_or_stands_in_json_with_its_end(
    printed: str | dict[str, object], expires_at: float
) -> None:
    tokens = await printing(printed if isinstance(printed, str) else json.dumps(printed)).obtain(None)
    assert (TOKEN, NOW, expires_at) == (tokens.access_token.reveal(), tokens.issued_at, tokens.expires_at)


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("", "printed nothing"),
        (" \n ", "printed nothing"),
        (f"token: {TOKEN}", "no token: one word"),
        (f"{TOKEN}\n{TOKEN}", "no token: one word"),
        ("tökén", "no token: one word"),
        ('{"token": ', "JSON that is broken"),
        ("[" * 10_000, "JSON that is broken"),
        ("[1]", "JSON without a token"),
        ("{}", "JSON without a token"),
        ('{"error": "denied"}', "JSON without a token"),
        ('{"status": "ok"}', "JSON without a token"),
        ('{"token": 5}', "whose token is no text"),
        ('{"token": ""}', "no token: one word"),
        ('{"token": "a\\r\\nx-other: b"}', "no token: one word"),
        ('{"token": "a", "expires_in": "soon"}', "`expires_in` is no number"),
        ('{"token": "a", "expires_in": true}', "`expires_in` is no number"),
        ('{"token": "a", "expires_in": "nan"}', "`expires_in` is no number"),
        ('{"token": "a", "expires_in": [1]}', "`expires_in` is no number"),
        ('{"token": "a", "expires_at": 1893553445000}', "in seconds, not milliseconds"),
        ('{"token": "a", "expires_at": ' + "9" * 400 + "}", "in seconds|is no number"),
        ('{"token": "a", "expires_at": "2030-01-02T03:04:05"}', "with its zone"),
        ('{"token": "a", "expires_at": "tomorrow"}', "no point in time"),
    ],
)
async def test_anything_else_is_refused_by_name_and_not_repeated(
    printed: str, words: str, expect_log: ExpectLog
) -> None:
    with expect_log("the command `printf` "):
        fault = await fault_of(printing(printed))
    assert isinstance(fault, CredentialRefused)
    assert re.search(rf"the command `printf` .*({words})", str(fault)), str(fault)


@given(st.binary(max_size=200), st.floats(0, 1e10))
def test_no_output_makes_reading_it_fail_otherwise(output: bytes, now: float) -> None:
    with contextlib.suppress(Unreadable):
        token, _ = read_token(output, now)
        assert token.isascii()
        assert token.isprintable()
        assert " " not in token


async def test_a_token_that_has_ended_is_not_taken(expect_log: ExpectLog) -> None:
    for end in ({"expires_in": 0}, {"expires_at": NOW}, {"expires_in": -5}, {"expires_at": "2020-01-02T03:04:05Z"}):
        with expect_log("ended.*(none)"):
            fault = await fault_of(printing(json.dumps({"token": TOKEN, **end})))
        assert isinstance(fault, CredentialUnavailable)
        assert "ended already" in str(fault)


async def test_a_program_gets_little_of_the_environment_and_what_the_file_says() -> None:
    # `env -0` separates what may hold line breaks; the shell's own variables are not the program's.
    script = "tr '\\0' '\\n' </proc/$$/environ | sort | tr '\\n' '|'"
    tokens = await shell(script, environment={"WHO": "me", "HOME": "/elsewhere"}).obtain(None)
    assert f"HOME=/elsewhere|LANG=C.UTF-8|PATH={ENVIRONMENT['PATH']}|WHO=me|" == tokens.access_token.reveal()


async def test_no_shell_reads_the_arguments_and_nothing_stands_at_the_input() -> None:
    tokens = await source("printf", "%s", "$HOME;`id`|*").obtain(None)
    assert "$HOME;`id`|*" == tokens.access_token.reveal()
    assert "/0" == (await shell("printf %s%s $(pwd) $(cat | wc -c)").obtain(None)).access_token.reveal()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (("no-such-program-anywhere",), "no such file"),
        (("/",), "permission denied"),
        (("printf\0",), "characters that none may have"),
    ],
)
async def test_a_program_that_cannot_be_started_is_told(run: tuple[str, ...], words: str) -> None:
    fault = await fault_of(source(*run))
    assert isinstance(fault, CredentialRefused)
    assert words in str(fault)
    assert "name a program that the gateway's user may run" in str(fault)


@pytest.mark.parametrize(
    ("script", "words"), [("exit 3", "ended with status 3"), ("kill -TERM $$", "was ended by signal 15")]
)
async def test_a_failure_is_told_to_clients_without_what_the_program_wrote(
    script: str, words: str, expect_log: ExpectLog
) -> None:
    with expect_log(f"{words}; its error output: cannot sign in: no network$"):
        fault = await fault_of(shell(f"echo 'cannot sign in:\n\tno network' >&2; {script}"))
    assert isinstance(fault, CredentialUnavailable)
    assert words in str(fault)
    assert "network" not in str(fault)


async def test_secrets_in_the_error_output_are_not_logged(expect_log: ExpectLog) -> None:
    held = Secret.literal(planted("held"))
    script = f'echo {TOKEN}; echo "+ echo {TOKEN}; $PASSWORD {held.reveal()}" >&2; exit 1'
    with expect_log(r"its error output: \+ echo …; … …$"):
        await fault_of(shell(script, environment={"PASSWORD": planted("password")}))


async def test_a_long_error_output_is_cut_and_delays_nothing(expect_log: ExpectLog) -> None:
    with expect_log(r"error output: (?:12345678 ){44}1234…$"):
        await fault_of(shell("yes 12345678 | head -c 3000000 >&2; exit 1"))


async def test_an_output_without_end_is_cut_off(expect_log: ExpectLog) -> None:
    with expect_log(f"prints more than {OUTPUT_BYTES} bytes"):
        fault = await fault_of(shell("echo $$ >&2; exec yes"))
    assert isinstance(fault, CredentialRefused)
    assert f"prints more than {OUTPUT_BYTES} bytes" in str(fault)


async def test_as_much_as_may_be_is_read_and_not_a_byte_more(expect_log: ExpectLog) -> None:
    tokens = await shell(f"head -c {OUTPUT_BYTES} /dev/zero | tr '\\0' a").obtain(None)
    assert OUTPUT_BYTES == len(tokens.access_token.reveal())
    with expect_log("prints more"):
        await fault_of(shell(f"head -c {OUTPUT_BYTES + 1} /dev/zero | tr '\\0' a"))


async def test_a_program_that_hangs_is_killed_with_all_that_it_has_started(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    # One of its children does not listen to a polite request, and both hold its output.
    own, child = tmp_path / "own", tmp_path / "child"
    script = (
        f"trap '' TERM; sleep 600 & echo $! >{child}; echo waiting >&2; echo $$ >{own}.new; mv {own}.new {own}; wait"
    )
    # As long as a machine needs, which may be a slow one, to come as far as to hang.
    for seconds in (0.5, 5.0, 30.0):
        with expect_log(rf"has not ended within {seconds:g} seconds; its error output: (waiting|\(none\))$"):
            fault = await fault_of(shell(script, timeout_seconds=seconds))
        if own.exists():
            break
    assert isinstance(fault, CredentialUnavailable)
    told = f"has not ended within {seconds:g} seconds and was killed: see why it hangs, or raise `timeout_seconds`"
    assert told in str(fault)
    for process in (int(own.read_text()), int(child.read_text())):
        await until(partial(ended, process), what="its end")


async def test_a_child_that_survives_its_program_delays_nothing_and_is_killed(tmp_path: Path) -> None:
    tokens = await shell(f"sleep 600 & echo $! >{tmp_path}/child; echo {TOKEN}").obtain(None)
    assert TOKEN == tokens.access_token.reveal()
    child = int((tmp_path / "child").read_text())
    await until(lambda: ended(child), what="the end of the child")


async def test_a_child_that_leaves_the_group_delays_nothing_either(tmp_path: Path) -> None:
    daemon = (
        "import os, sys, time\n"
        f"print({TOKEN!r}, flush=True)\n"
        "if os.fork():\n"
        f"    while not os.path.exists({str(tmp_path / 'child')!r}): time.sleep(0.01)\n"
        "    sys.exit()\n"
        "os.setsid()\n"
        f"open({str(tmp_path / 'new')!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'new')!r}, {str(tmp_path / 'child')!r})\n"
        "time.sleep(600)\n"
    )
    tokens = await source(sys.executable, "-ISc", daemon).obtain(None)
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert TOKEN == tokens.access_token.reveal()


async def test_whoever_stops_waiting_leaves_no_program_behind(tmp_path: Path) -> None:
    obtaining = asyncio.create_task(
        shell(f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/own; sleep 600").obtain(None)
    )
    await until((tmp_path / "own").exists, what="the program")
    obtaining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await obtaining
    assert ended(int((tmp_path / "own").read_text()))
