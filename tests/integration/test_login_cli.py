"""``./sluice login`` at a running gateway: with a browser, with an address that is pasted, on a terminal, and without one."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.ctl import login
from tests.gateway_process import ADMIN_KEY, Gateway, command, environment
from tests.integration.conftest import StartGateway
from tests.oauth_server import Browser, OAuthServerProcess, browser, oauth_server

# A browser that keeps cookies and goes wherever it is sent, up to the gateway's page; the person allows all.
_BROWSER = """\
import sys, urllib.request
from http.cookiejar import CookieJar
urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar())).open(sys.argv[1]).read()
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    with oauth_server(tmp_path_factory.mktemp("oauth")) as server:
        yield server


@pytest.fixture(scope="module")
def running(strict: OAuthServerProcess, start_shared_gateway: StartGateway) -> Gateway:
    gateway = start_shared_gateway(f"""
        oauth:
          providers:
            - {{name: strict, issuer: "{strict.url}", client_id: public, scopes: [openid, email]}}
            - {{name: devices, issuer: "{strict.url}", client_id: device, scopes: [openid, email]}}
        providers:
          - {{name: real, type: echo, oauth: strict}}
          - {{name: boxed, type: echo, oauth: devices}}
    """)
    gateway.expect_log("made a master key")
    return gateway


@pytest.fixture
async def person() -> AsyncIterator[Browser]:
    async with browser() as opened:
        yield opened


class Login:
    """A running ``./sluice login``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        """On standard error so far."""

    async def says(self, pattern: str) -> str:
        """The first group of ``pattern``, once it has been said."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while (found := re.search(pattern, self.said)) is None:
                more = await self.process.stderr.read(4096)
                assert more, f"{pattern!r} is not in {self.said!r}"
                self.said += more.decode()
        return found[1]

    async def paste(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        await self.process.stdin.drain()

    async def ended(self) -> tuple[int, str]:
        """Exit status and standard output."""
        async with asyncio.timeout(60):
            out, err = await self.process.communicate()
        self.said += err.decode()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


@contextlib.asynccontextmanager
async def sluice_login(gateway: Gateway, *arguments: str, **variables: str) -> AsyncIterator[Login]:
    known = environment({"SLUICE_URL": gateway.url, "SLUICE_ADMIN_KEY": ADMIN_KEY})
    # No desktop of whoever runs the tests.
    inherited = {name: value for name, value in known.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    process = await asyncio.create_subprocess_exec(
        *command("login", *arguments),
        env=inherited | variables,
        cwd=gateway.config.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Login(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_browser_that_can_reach_the_gateway_does_it_all(running: Gateway, tmp_path: Path) -> None:
    (tmp_path / "browser.py").write_text(_BROWSER)
    shown_by = f"{sys.executable} {tmp_path / 'browser.py'} %s"
    async with sluice_login(running, "real", "--name", "ada", "--json", BROWSER=shown_by) as signing:
        assert signing.process.stdin is not None
        signing.process.stdin.close()
        status, out = await signing.ended()
    assert 0 == status, signing.said
    assert {
        "provider": "real",
        "name": "ada",
        "status": "complete",
        "account": "ada@example.com",
    }.items() <= json.loads(out).items()
    # Not a terminal: nothing turns.
    assert "\r" not in signing.said


async def test_an_address_that_is_pasted_completes_it_and_another_does_not(running: Gateway, person: Browser) -> None:
    async with sluice_login(running, "real") as signing:
        address = await person.sign_in(await signing.says(r"\n  (http\S+)\n"))
        await signing.says(r"(Ctrl-C cancels it)")
        await signing.paste("what is this")
        await signing.says(r"(login_error-mismatch: This is no address)")
        await signing.paste(address.replace("127.0.0.1", "evil.example.com"))
        await signing.says(r"(login_error-mismatch: The address is not one below http://127\.0\.0\.1)")
        await signing.paste(address)
        assert (0, "signed in: real/main (ada@example.com)\n") == await signing.ended()


async def test_a_device_signs_in_by_the_code_that_is_shown(
    running: Gateway, person: Browser, strict: OAuthServerProcess
) -> None:
    await strict.hurry_device()
    async with sluice_login(running, "boxed", "--device") as signing:
        place, code = await signing.says(r"\n  (http\S+)\n"), await signing.says(r"type in the code  (\S+)")
        await person.enter_code(place, code)
        assert (0, "signed in: boxed/main (ada@example.com)\n") == await signing.ended()


async def test_who_says_no_is_told_why(running: Gateway, person: Browser) -> None:
    async with sluice_login(running, "real", "--name", "denied") as signing:
        await signing.paste(await person.sign_in(await signing.says(r"\n  (http\S+)\n"), allow=False))
        assert (1, "") == await signing.ended()
    assert re.search(r"sluice: the sign-in of real/denied is failed: .*access_denied", signing.said)


def test_on_a_terminal_it_turns_and_ctrl_c_cancels_it_at_the_gateway(running: Gateway) -> None:
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        command("login", "real", "--name", "cancelled", "--no-browser"),
        env=environment({"SLUICE_URL": running.url, "SLUICE_ADMIN_KEY": ADMIN_KEY}),
        cwd=running.config.parent,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    said = b""
    with os.fdopen(controller, "rb", buffering=0) as screen:
        # By now it has turned a few times.
        while said.count(b"\r") < 8:
            said += screen.read(4096)
        process.send_signal(signal.SIGINT)
        assert b"" == process.communicate(timeout=60)[0]
        with contextlib.suppress(OSError):  # Linux says so when the last one has closed the terminal
            while piece := screen.read(4096):
                said += piece
    assert login.INTERRUPTED == process.returncode
    text = said.decode()
    assert "sluice: cancelled" in text
    assert {"/ waiting", "- waiting"} <= set(re.findall(r"\r([/\-] waiting)", text))
    state = re.search(r"state=([\w-]{43})", text)
    assert state is not None
    shown = running.request("GET", f"/api/v1/credentials/login/{state[1]}", key=ADMIN_KEY)
    assert "cancelled" == shown.json()["status"]


@pytest.mark.parametrize(
    ("variables", "opens"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}, False),
        ({"WAYLAND_DISPLAY": "wayland-0", "SSH_TTY": "/dev/pts/1"}, False),
        ({"BROWSER": "mine %s", "SSH_TTY": "/dev/pts/1"}, True),
    ],
)
def test_a_browser_is_opened_where_who_sits_here_sees_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], opens: bool
) -> None:
    opened: list[str] = []

    def stand_in(url: str) -> bool:
        """No test opens a browser of whoever runs it."""
        opened.append(url)
        return True

    monkeypatch.setattr("webbrowser.open", stand_in)
    monkeypatch.setattr("sys.platform", "linux")
    begun = {"authorization_url": "https://accounts.example.com/authorize"}
    login._open_browser(begun, variables)
    assert ([begun["authorization_url"]] if opens else []) == opened


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("nowhere",), 1, "sluice: credential_error-unknown_provider: There is no provider `nowhere`"),
        (("boxed", "--device", "--name", "a/b"), 1, "sluice: request_error-invalid_body"),
        (("real", "--url", "http://127.0.0.1:1"), 1, "cannot be asked: Connection refused"),
        ((), 2, "the following arguments are required: PROVIDER"),
        (("real", "--dev"), 2, "unrecognized arguments: --dev"),
    ],
)
def test_what_cannot_begin_is_told_with_its_mend(
    running: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    told: str,
) -> None:
    monkeypatch.setenv("SLUICE_URL", running.url)
    monkeypatch.setenv("SLUICE_ADMIN_KEY", ADMIN_KEY)
    try:
        found = main(["login", *arguments])
    except SystemExit as end:
        found = int(str(end.code))
    out, err = capsys.readouterr()
    assert (status, "") == (found, out)
    assert told in err
