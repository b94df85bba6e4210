"""The commands of ``./sluice ctl`` and their arguments, from the routes' table."""

import argparse
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import msgspec

from management.handler.operation import JSON
from management.reference.naming import Named, names
from management.routes import ROUTES, Route

_WITH_VALUE = ("--url", "--key-file", "--ca")

_EPILOG = """\
environment:
  SLUICE_ADMIN_KEY  the admin key, or an API token; without it --key-file, or a question at the terminal
  SLUICE_URL        the gateway's address, where it is not http://127.0.0.1:8080

examples:
  ./sluice ctl health
  ./sluice ctl tokens create --set name=team-a --set 'models=["gpt-*"]'
  ./sluice ctl config document > config.copy.yaml
"""


@dataclass(frozen=True)
class Command:
    """One verb of one resource."""

    route: Route
    named: Named

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self.route.permit.open_because is not None

    @property
    def needs_members(self) -> bool:
        """Whether its body, of JSON, has members that cannot be left out."""
        kind = self.route.operation.body
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return True
        return any(field.required for field in msgspec.structs.fields(kind))

    @cached_property
    def query(self) -> tuple[msgspec.structs.FieldInfo, ...]:
        """The fields of its parameters."""
        kind = self.route.operation.query
        return () if kind is None else msgspec.structs.fields(kind)

    @cached_property
    def shown_by(self) -> "Command | None":
        """The command that shows what this one changes, with its ETag: of the same path, or of the next above it."""
        parts = self.route.path.split("/")
        for depth in range(len(parts), 0, -1):
            path = "/".join(parts[:depth])
            for command in COMMANDS:
                route = command.route
                if route.path == path and route.method == "GET" and route.operation.etag:
                    return command
        return None

    def target(self, options: argparse.Namespace) -> str:
        """Path and query."""
        path = self.route.path
        for name in self.route.parameters:
            path = path.replace(f"{{{name}}}", quote(getattr(options, f"path_{name}"), safe=""))
        given = {field.encode_name: getattr(options, f"query_{field.name}", None) for field in self.query}
        written = {name: _written(value) for name, value in given.items() if value is not None}
        return f"{path}?{urlencode(written, quote_via=quote)}" if written else path


COMMANDS: tuple[Command, ...] = tuple(Command(route, named) for route, named in names(ROUTES).items())


def resources() -> dict[str, list[Command]]:
    """The commands by their resources, in the order of the table."""
    found: dict[str, list[Command]] = {}
    for command in COMMANDS:
        found.setdefault(command.named.resource, []).append(command)
    return found


def parse(arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """What is asked. Ends the program where the usage is wrong, or asks for help."""
    by_resource = resources()
    helps = not {"-h", "--help"}.isdisjoint(arguments)
    options = _parser(by_resource, helps=helps).parse_args(_with_verb(list(arguments), by_resource))
    command: Command = options.command
    return command, options


def _with_verb(arguments: list[str], by_resource: dict[str, list[Command]]) -> list[str]:
    """Where a resource has but one verb it may be left out."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in _WITH_VALUE else 1
    if at == len(arguments) or len(verbs := by_resource.get(arguments[at], [])) != 1:
        return arguments
    (command,) = verbs
    if at + 1 < len(arguments) and arguments[at + 1] in (command.named.verb, "-h", "--help"):
        return arguments
    return [*arguments[: at + 1], command.named.verb, *arguments[at + 1 :]]


def _parser(by_resource: dict[str, list[Command]], *, helps: bool) -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="sluice ctl",
        description="Drive the management API of a running gateway: ./sluice ctl RESOURCE VERB.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    of_resources = parser.add_subparsers(dest="resource", required=True, metavar="RESOURCE", title="resources")
    for resource, commands in by_resource.items():
        verbs = ", ".join(command.named.verb for command in commands)
        added = of_resources.add_parser(resource, help=verbs, parents=[common], allow_abbrev=False)
        of_verbs = added.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
        for command in commands:
            summary = command.route.operation.summary.replace("%", "%%")
            verb = of_verbs.add_parser(
                command.named.verb,
                help=summary,
                description=f"{summary} ({command.route.method} {command.route.path})",
                epilog=_members(command) if helps else None,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                parents=[common],
                allow_abbrev=False,
            )
            _add_arguments(verb, command)
    return parser


def _common() -> argparse.ArgumentParser:
    # Before the resource or behind the verb: SUPPRESS, so that the latter does not undo the former.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--url", help="the gateway's address")
    common.add_argument("--key-file", metavar="FILE", help="a file that holds the key")
    common.add_argument("--ca", metavar="FILE", help="certificates of the authorities that may vouch for the gateway")
    common.add_argument("--json", action="store_true", help="the answer as JSON")
    return common


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    described = command.route.operation

    def usage_error(message: str) -> NoReturn:
        parser.error(message)

    parser.set_defaults(command=command, usage_error=usage_error)
    for name in command.route.parameters:
        parser.add_argument(f"path_{name}", metavar=name.upper())
    for field in command.query:
        flag = f"--{field.encode_name.replace('_', '-')}"
        dest = f"query_{field.name}"
        if field.type is bool:
            parser.add_argument(flag, dest=dest, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(
                flag, dest=dest, metavar="VALUE", required=field.required, help=_description(field.type)
            )
    if any(field.name == "cursor" for field in command.query):
        parser.add_argument("--all", action="store_true", help="all pages")
    if described.if_match is not None:
        default = "; without it, what is there now" if described.if_match and command.shown_by is not None else ""
        parser.add_argument("--if-match", metavar="ETAG", help=f"change this alone{default}")
    if isinstance(described.body, str):
        parser.add_argument("-f", "--body", metavar="FILE", required=True, help=f"{described.body}; -: standard input")
    elif described.body is not None:
        parser.add_argument("-f", "--body", metavar="FILE", help="the body, JSON or YAML; -: standard input")
        parser.add_argument(
            "--set",
            type=_pair,
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="a member of the body, `a.b` inside of `a`; VALUE as JSON, or else as text",
        )
        parser.add_argument(
            "--set-file",
            type=_pair,
            action="append",
            default=[],
            metavar="KEY=FILE",
            help="the same with a text from a file, for secrets; -: standard input",
        )


def _members(command: Command) -> str | None:
    """The members of a body of JSON, for the help."""
    from management.reference.openapi import openapi, resolved  # noqa: PLC0415  it takes a fifth of a second to make

    operation = openapi()["paths"][command.route.path][command.route.method.lower()]
    body = operation.get("requestBody", {}).get("content", {}).get(JSON)
    if body is None:
        return None
    schema = resolved(body["schema"])
    lines = ["members of the body (* must be there):"]
    for branch in schema.get("anyOf", [schema]):
        known = resolved(branch)
        required = known.get("required", ())
        for name, member in known.get("properties", {}).items():
            note = resolved(member).get("description", "")
            lines.append(f"  {name + ('*' if name in required else ''):<22}{note}".rstrip())
    return "\n".join(lines) if len(lines) > 1 else None


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _description(kind: Any) -> str | None:
    """Of `Annotated[…, Meta(description=…)]`."""
    found = (getattr(each, "description", None) for each in typing.get_args(kind)[1:])
    text = next((each for each in found if each), None)
    return None if text is None else text.replace("%", "%%")
