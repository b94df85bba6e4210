"""``./sluice ctl RESOURCE VERB``: the management API of a running gateway, from the shell.

The commands are those of the routes' table and of no other: an operation that is added there is one here.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

from config.environment import environment
from gateway.ctl.body import body_of
from gateway.ctl.client import Answer, Client, Refused
from gateway.ctl.commands import Command, parse
from gateway.ctl.errors import CtlError
from gateway.ctl.key import key_of
from gateway.ctl.show import as_json, as_text, escaped

DEFAULT_URL = "http://127.0.0.1:8080"


def ctl_command(arguments: Sequence[str]) -> int:
    """The exit status: 0; 1 where the gateway refuses or cannot be reached. Ends the program where the usage is wrong."""
    command, options = parse(arguments)
    try:
        _run(command, options, environment())
    except CtlError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    return 0


def _run(command: Command, options: argparse.Namespace, env: Mapping[str, str]) -> None:
    body = body_of(command, options)
    client = Client(
        getattr(options, "url", None) or env.get("SLUICE_URL") or DEFAULT_URL,
        key=None if command.is_open else key_of(getattr(options, "key_file", None), env),
        ca=getattr(options, "ca", None),
    )
    headers = {}
    if (tag := getattr(options, "if_match", None)) is not None:
        headers["If-Match"] = f'"{tag.strip(chr(34))}"'
    elif command.route.operation.if_match:
        headers["If-Match"] = _tag_of(client, command, options)
    answer = client.ask(command.route.method, command.target(options), body, headers, _show_line)
    if getattr(options, "all", False):
        answer = _with_all_pages(client, command, options, answer)
    _show(answer, options)


def _tag_of(client: Client, command: Command, options: argparse.Namespace) -> str:
    """What is there now, so that the change is made for it: somebody else's in between is not overwritten."""
    shown = command.shown_by
    if shown is None:
        raise CtlError("this needs --if-match: nothing that the API shows has the ETag of it")
    tag = client.ask("GET", shown.target(options)).headers.get("etag")
    if tag is None:
        raise CtlError(f"{shown.target(options)} has no ETag: name the revision by --if-match")
    return tag


def _with_all_pages(client: Client, command: Command, options: argparse.Namespace, first: Answer) -> Answer:
    page, data = first.json(), []
    while True:
        data += page["data"]
        if page["next_cursor"] is None:
            return first.with_json({**page, "data": data})
        options.query_cursor = page["next_cursor"]
        page = client.ask("GET", command.target(options)).json()


def _show_line(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _show(answer: Answer, options: argparse.Namespace) -> None:
    if answer.status == 202:
        print("sluice: accepted; not everything is done yet", file=sys.stderr)
    if not answer.body:
        return
    if not answer.is_json:
        # A document or the metrics: as it is, also into a file.
        sys.stdout.flush()
        sys.stdout.buffer.write(answer.body)
        sys.stdout.buffer.flush()
        return
    value = answer.json()
    if getattr(options, "json", False):
        print(as_json(value))
        return
    for line in as_text(value, cut=sys.stdout.isatty()):
        print(line)
    if isinstance(value, dict) and isinstance(value.get("next_cursor"), str):
        cursor = escaped(value["next_cursor"])
        print(f"sluice: there is more: --cursor {cursor}, or --all", file=sys.stderr)


__all__ = ["CtlError", "Refused", "ctl_command"]
