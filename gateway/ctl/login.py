"""``./sluice login PROVIDER``: an account of a provider signs in, with a browser here or anywhere else.

The gateway does the sign-in; this begins it, shows where to go, and waits. A browser that cannot reach the gateway (over SSH,
say) ends on a page that it cannot load: its address, pasted here, completes the sign-in just as well.
"""

import argparse
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from config.environment import environment
from core.clock import SystemClock
from gateway.ctl import DEFAULT_URL
from gateway.ctl.client import Body, Client, Refused
from gateway.ctl.errors import CtlError
from gateway.ctl.key import key_of
from gateway.ctl.show import as_json, escaped
from gateway.ctl.waiting import Lines, Spinner
from management.errors import LoginError
from management.handler.operation import JSON

_LOGIN = "/api/v1/credentials/login"
_POLL_SECONDS = 1.0
_MOST_FAILURES = 15
"""Of questions one after another, before the waiting ends."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def login_command(arguments: Sequence[str]) -> int:
    """The exit status: 0; 1 where there is no account in the end. Ends the program where the usage is wrong."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options, environment())
    except CtlError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluice login",
        description="Sign an account of a provider in at a running gateway, and wait until it is done.",
        epilog="environment: SLUICE_ADMIN_KEY and SLUICE_URL, as for `./sluice ctl`",
        allow_abbrev=False,
    )
    parser.add_argument("provider", metavar="PROVIDER", help="an entry of `providers` with an `oauth`")
    parser.add_argument(
        "--name", help="of the account (default: `main`, or `main-2` and so on where that works already)"
    )
    parser.add_argument("--device", action="store_true", help="type a code in at the server, on whatever device")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--url", help="the gateway's address")
    parser.add_argument("--key-file", metavar="FILE", help="a file that holds the key")
    parser.add_argument("--ca", metavar="FILE", help="certificates of the authorities that may vouch for the gateway")
    parser.add_argument("--json", action="store_true", help="how it ended, as JSON")
    return parser


def _run(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    client = Client(
        options.url or env.get("SLUICE_URL") or DEFAULT_URL, key=key_of(options.key_file, env), ca=options.ca
    )
    wanted = {"provider": options.provider, "name": options.name, "flow": "device" if options.device else None}
    begun = _ask(client, "POST", "", {name: value for name, value in wanted.items() if value is not None})
    state = str(begun["state"])
    try:
        _show(begun)
        if not options.no_browser:
            _open_browser(begun, env)
        ended = _wait(client, state, takes_address=begun["flow"] == "code")
    except KeyboardInterrupt:
        _cancel(client, state)
        print("sluice: cancelled", file=sys.stderr)
        return INTERRUPTED
    return _told(ended, as_json_too=options.json)


def _show(begun: Mapping[str, Any]) -> None:
    """Where to go on; to standard error, as the outcome alone is for programs."""
    account = escaped(f"{begun['provider']}/{begun['name']}")
    if begun["flow"] == "device":
        lines = [
            f"To sign in {account}, open",
            f"\n  {escaped(begun['verification_uri'])}\n",
            f"on any device, and type in the code  {escaped(begun['user_code'])}",
        ]
        if begun["verification_uri_complete"] is not None:
            lines.append(f"(or open {escaped(begun['verification_uri_complete'])})")
    else:
        lines = [
            f"To sign in {account}, open",
            f"\n  {escaped(begun['authorization_url'])}\n",
            f"The browser comes back to {escaped(begun['redirect_url'])}.",
            "If it cannot load that page, copy its whole address, paste it here, and press Enter.",
        ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _open_browser(begun: Mapping[str, Any], env: Mapping[str, str]) -> None:
    """Where one can be shown to who sits here; what is printed does otherwise."""
    url = begun["authorization_url"] or begun["verification_uri_complete"] or begun["verification_uri"]
    # Over SSH it would open on the far machine, and without a desktop it would take the terminal; who names one knows better.
    remote = "SSH_CONNECTION" in env or "SSH_TTY" in env
    desktop = sys.platform == "darwin" or "DISPLAY" in env or "WAYLAND_DISPLAY" in env
    if not ("BROWSER" in env or (desktop and not remote)) or urlsplit(url).scheme not in ("http", "https"):
        return
    try:
        opened = webbrowser.open(url)
    except (webbrowser.Error, OSError):
        opened = False
    if not opened:
        print("(no browser could be opened here)", file=sys.stderr)


def _wait(client: Client, state: str, *, takes_address: bool) -> dict[str, Any]:
    """How it ended."""
    lines = Lines(sys.stdin) if takes_address else None
    with Spinner(sys.stderr, "waiting for the sign-in; Ctrl-C cancels it", SystemClock()) as spinner:
        failures = 0
        while True:
            try:
                shown = _ask(client, "GET", f"/{quote(state, safe='')}")
            except CtlError as error:
                failures += 1
                # A gateway that is started anew is there again soon.
                if failures == _MOST_FAILURES or (
                    isinstance(error, Refused) and error.code == LoginError.UNKNOWN.value
                ):
                    raise
            else:
                failures = 0
                if shown["status"] != "pending":
                    return shown
            pasted = spinner.wait(_POLL_SECONDS, lines)
            if pasted is not None and pasted.strip():
                _paste(client, pasted.strip(), spinner.say)


def _paste(client: Client, address: str, say: Callable[[str], None]) -> None:
    """Complete the sign-in with ``address``; how it stands then is asked for as always."""
    try:
        _ask(client, "POST", "/complete", {"redirect_url": address})
    except Refused as refused:
        # An address of something else ends nothing: another may be pasted.
        say(f"sluice: {refused}")


def _cancel(client: Client, state: str) -> None:
    try:
        _ask(client, "DELETE", f"/{quote(state, safe='')}")
    except CtlError as error:
        # It ends by itself in ten minutes.
        print(f"sluice: the sign-in could not be cancelled: {error}", file=sys.stderr)


def _told(ended: Mapping[str, Any], *, as_json_too: bool) -> int:
    if as_json_too:
        print(as_json(ended))
    account = escaped(f"{ended['provider']}/{ended['name']}")
    if ended["status"] == "complete":
        if not as_json_too:
            whose = "" if ended["account"] is None else f" ({escaped(ended['account'])})"
            print(f"signed in: {account}{whose}")
        return 0
    why = escaped(ended["message"] or {"expired": "it took longer than it may"}.get(ended["status"], "it was ended"))
    print(f"sluice: the sign-in of {account} is {ended['status']}: {why}", file=sys.stderr)
    return 1


def _ask(client: Client, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    answer = client.ask(method, f"{_LOGIN}{path}", None if body is None else Body(msgspec.json.encode(body), JSON))
    found: dict[str, Any] = answer.json()
    return found
