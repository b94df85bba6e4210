"""The body of a request, from a file and from `--set`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from config.document import parse
from gateway.ctl.client import Body
from gateway.ctl.commands import Command
from gateway.ctl.errors import CtlError
from management.handler.operation import JSON


def body_of(command: Command, options: argparse.Namespace) -> Body | None:
    """What ``options`` say, or nothing where nothing need be said.

    Raises:
        CtlError: a file that cannot be read or is no JSON and no YAML, a value that has no place.
    """
    kind = command.route.operation.body
    if kind is None:
        return None
    if isinstance(kind, str):
        return Body(_read(options.body), kind)
    if options.body is None and not options.set and not options.set_file:
        if command.needs_members:
            options.usage_error("give the body: -f FILE, or --set KEY=VALUE")
        return Body(b"{}", JSON) if command.route.operation.body_required else None
    members: dict[str, Any] = {} if options.body is None else _mapping(_read(options.body), options.body)
    for key, text in options.set:
        put(members, key, _value(text))
    for key, file in options.set_file:
        put(members, key, _text(_read(file), file))
    return Body(msgspec.json.encode(members), JSON)


def put(members: dict[str, Any], key: str, value: Any) -> None:
    """Set ``key`` of ``members`` (`a.b.c`; `a.0.b` in the first of a list), making objects and lists on the way.

    Raises:
        CtlError: something else stands on the way.
    """
    parts = key.split(".")
    place: Any = members
    for name, following in zip(parts, [*parts[1:], None], strict=True):
        if isinstance(place, list) and name.isdecimal() and int(name) <= len(place):
            at: Any = int(name)
            if at == len(place):
                place.append(None)
        elif isinstance(place, dict):
            at = name
        else:
            raise CtlError(f"--set {key}: `{name}` cannot be set in what is there")
        if following is None:
            place[at] = value
            return
        # What is new, and what is null.
        if (place.get(at) if isinstance(place, dict) else place[at]) is None:
            place[at] = [] if following.isdecimal() else {}
        place = place[at]


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _mapping(data: bytes, file: str) -> dict[str, Any]:
    """YAML, of which JSON is a part."""
    found = parse(data, "standard input" if file == "-" else file)
    if found.faults:
        raise CtlError("\n".join(str(fault) for fault in found.faults))
    return found.value


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CtlError(f"{file} cannot be read: {error.strerror}") from error


def _text(data: bytes, file: str) -> str:
    try:
        # One line break ends the file, and is not of the value.
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise CtlError(f"{file} is no text in UTF-8") from error
