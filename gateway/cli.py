"""The commands of ``./sluice``. Each returns the process's exit status."""

import argparse
import asyncio
import getpass
import http.client
import os
import shlex
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from access.admin_key import hash_admin_key, new_admin_key
from config.checks import parse_listen
from config.environment import environment
from config.faults import ConfigFaults, render_path
from config.master_key import MasterKeyFault
from core.clock import SystemClock
from gateway.build import load_and_build
from gateway.doctor import add_arguments as add_doctor_arguments
from gateway.doctor import doctor_command
from gateway.explain import explain_command
from gateway.generated import add_generated_commands, generated_command
from gateway.resources import Resources
from gateway.runs import RuntimeFolder
from gateway.sealing import SealingRefused, rekey, seal
from gateway.serve import ServeOptions, serve, write_starter
from gateway.storage_commands import add_storage_commands, storage_command
from gateway.upgrade import Inheritance, UpgradeFailed, request_upgrade
from gateway.version import VERSION
from gateway.workers import Place
from storage.errors import StorageError
from webhooks.signing import new_secret

DEFAULT_CONFIG = "config.yaml"
DEFAULT_ADDRESS = "127.0.0.1:8080"

_VERSION_LINE = f"sluice {VERSION}"

_T = TypeVar("_T")

OK = 0
FAULTY = 1
USAGE = 2


class _FaultLine(msgspec.Struct):
    file: str
    line: int
    column: int
    path: str
    message: str


class _CheckReport(msgspec.Struct):
    ok: bool
    revision: str | None
    faults: list[_FaultLine]
    notices: list[str]


def main(arguments: Sequence[str]) -> int:
    """Run one command; see ``./sluice --help``."""
    try:
        if arguments[:1] == ["ctl"]:
            # It has a command for every operation.
            from gateway.ctl import ctl_command  # noqa: PLC0415  their table is read for none but those who want them

            return ctl_command(arguments[1:])
        if arguments[:1] == ["login"]:
            from gateway.ctl.login import login_command  # noqa: PLC0415  as above

            return login_command(arguments[1:])
        options = _parse(arguments)
        return _COMMANDS[options.command](options)
    except ConfigFaults as refused:
        for fault in refused.faults:
            print(fault, file=sys.stderr)
        if arguments[0] in ("serve", "demo"):
            print(f"sluice: {len(refused.faults)} fault(s); nothing was started", file=sys.stderr)
        return FAULTY
    except (SealingRefused, MasterKeyFault, StorageError) as refused:
        print(f"sluice: {refused}", file=sys.stderr)
        return FAULTY
    except BrokenPipeError:
        # Whoever read has enough (`| head`). What is buffered still would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAULTY
    except KeyboardInterrupt:
        return 130


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the program, and those of its commands."""
    parser = argparse.ArgumentParser(prog="sluice", description="A config-driven gateway for language-model APIs.")
    parser.add_argument("--version", action="version", version=_VERSION_LINE)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        if config:
            added.add_argument("-c", "--config", help=f"the configuration file (default: {DEFAULT_CONFIG})")
            added.add_argument("--env-file", help="NAME=VALUE lines for ${env:…}; the real environment wins")
        return added

    serving = command("serve", "run the gateway")
    serving.add_argument("--listen", help="address:port, instead of server.listen")
    serving.add_argument("--banner", action="store_true", help="print the address and a request to try")
    # What processes of one gateway tell each other.
    serving.add_argument("--worker", type=Place.parse, help=argparse.SUPPRESS)
    serving.add_argument("--inherited", type=Inheritance.parse, help=argparse.SUPPRESS)

    upgrading = command("upgrade", "start the program anew in the place of a running gateway", config=False)
    upgrading.add_argument("-c", "--config", help=f"the configuration file that it serves (default: {DEFAULT_CONFIG})")
    upgrading.add_argument("--pid", type=int, help="its process, where several serve the same file")

    checking = command("check", "tell every fault of a configuration; exit status 1 when there is any")
    checking.add_argument("file", nargs="?", metavar="FILE", help="the configuration file, as with --config")
    checking.add_argument("--json", action="store_true", help="the report as JSON")

    add_doctor_arguments(
        command("doctor", "look after everything that the gateway depends on; 1 when there is a fault")
    )

    explaining = command("explain", "tell where a request would go, and why")
    explaining.add_argument("asked", nargs="?", metavar="MODEL", help="the model that the client asks for")
    explaining.add_argument("--model", help="the same")
    explaining.add_argument("--token", help="the name of the client's token")
    explaining.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    explaining.add_argument("--stream", action="store_true", help="as a streamed request")
    explaining.add_argument("--path", default="/v1/chat/completions", help="the request path")
    explaining.add_argument("--json", action="store_true", help="the explanation as JSON")

    demo = command("demo", "run the gateway on a throw-away configuration with the echo provider", config=False)
    demo.add_argument("--listen", default=DEFAULT_ADDRESS, help=f"address:port (default: {DEFAULT_ADDRESS})")

    hashing = command("hash-key", "print the hash of an admin key, for management.admin_key_hash", config=False)
    hashing.add_argument("--generate", action="store_true", help="make a key too, and print it first")

    command("webhook-secret", "print a new secret to sign the deliveries of a webhook with", config=False)
    command("seal", "seal a secret from standard input, and print the ${sealed:…} that stands for it")
    command("rekey", "seal everything in the configuration anew that the first master key has not sealed")
    add_storage_commands(command)

    add_generated_commands(command)
    # For the list of commands: `main` hands the rest of the line on for both.
    command("ctl", "drive the management API of a running gateway", config=False)
    command("login", "sign an account of a provider in at a running gateway", config=False)

    health = command("health", "ask the gateway on this machine whether it is ready", config=False)
    health.add_argument("--address", default=DEFAULT_ADDRESS, help=f"address:port (default: {DEFAULT_ADDRESS})")
    health.add_argument("--live", action="store_true", help="ask only whether it is alive")

    command("version", "print the version", config=False)
    return parser, commands.choices


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; what is wrong with it is told with the usage of its command, and ends the program."""
    parser, commands = _parser()
    options, unknown = parser.parse_known_args(arguments)
    command = commands[options.command]
    if unknown:
        command.error(f"unrecognized arguments: {shlex.join(unknown)}")
    if options.command == "check" and options.file is not None:
        if options.config is not None:
            command.error("name the file once: FILE or --config")
        options.config = options.file
    if options.command == "explain" and options.asked is not None:
        if options.model is not None:
            command.error("name the model once: MODEL or --model")
        options.model = options.asked
    return options


def _config_path(options: argparse.Namespace) -> Path:
    return Path(options.config or DEFAULT_CONFIG)


def _environment(options: argparse.Namespace) -> Mapping[str, str]:
    return environment(options.env_file)


def _serve(options: argparse.Namespace) -> int:
    path = _config_path(options)
    first_token = None
    if options.config is None and not path.exists():
        try:
            first_token = write_starter(path)
        except OSError as error:
            print(f"sluice: cannot write {path}: {error.strerror}; name a file with --config", file=sys.stderr)
            return FAULTY
    arguments = ["-m", "gateway", "serve", "--config", str(path)]
    if options.listen is not None:
        arguments += ["--listen", options.listen]
    if options.env_file is not None:
        arguments += ["--env-file", options.env_file]
    return serve(
        ServeOptions(
            path,
            listen=options.listen,
            # A first start tells its token whoever asks: it is shown this once.
            banner=options.banner or first_token is not None,
            first_token=first_token,
            arguments=tuple(arguments),
            place=options.worker,
            inheritance=options.inherited,
        ),
        _environment(options),
    )


def _upgrade(options: argparse.Namespace) -> int:
    try:
        folder = RuntimeFolder(environment())
        old, new = request_upgrade(folder, _config_path(options), options.pid, SystemClock())
    except (UpgradeFailed, OSError) as error:
        print(f"sluice: {error}", file=sys.stderr)
        return FAULTY
    print(f"process {new} serves; process {old} ends when its requests in flight have")
    return OK


def _check(options: argparse.Namespace) -> int:
    report = _CheckReport(ok=True, revision=None, faults=[], notices=[])
    try:
        env = _environment(options)
        loaded = with_resources(env, lambda resources: load_and_build(_config_path(options), resources)).loaded
        report.revision = loaded.revision
        report.notices = [str(notice) for notice in loaded.notices]
    except ConfigFaults as refused:
        report.ok = False
        report.faults = [
            _FaultLine(fault.file, fault.line, fault.column, render_path(fault.path), fault.message)
            for fault in refused.faults
        ]
        lines = [str(fault) for fault in refused.faults]
    else:
        lines = []
    if options.json:
        print(msgspec.json.encode(report).decode())
    else:
        for line in lines:
            print(line)
        for notice in report.notices:
            print(f"notice: {notice}")
        if report.ok:
            print(f"{_config_path(options)} is good (revision {(report.revision or '')[:12]})")
    return OK if report.ok else FAULTY


def _doctor(options: argparse.Namespace) -> int:
    return doctor_command(options, _config_path(options))


def with_resources(env: Mapping[str, str], use: Callable[[Resources], _T]) -> _T:
    """What ``use`` gives, with resources that are closed again: for commands that build without serving."""

    async def main() -> _T:
        resources = Resources(env, writes=False)
        try:
            return use(resources)
        finally:
            await resources.close()

    return asyncio.run(main())


def _explain(options: argparse.Namespace) -> int:
    def use(resources: Resources) -> tuple[str, bool]:
        return explain_command(load_and_build(_config_path(options), resources), options)

    text, found = with_resources(_environment(options), use)
    print(text)
    return OK if found else FAULTY


def _demo(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="sluice-demo-") as directory:
        path = Path(directory) / DEFAULT_CONFIG
        token = write_starter(path)
        return serve(
            ServeOptions(path, listen=options.listen, banner=True, first_token=token, passing=True), environment()
        )


def _hash_key(options: argparse.Namespace) -> int:
    if options.generate:
        key = new_admin_key()
        print(key)
    elif sys.stdin.isatty():
        key = getpass.getpass("Admin key: ")
    else:
        key = sys.stdin.readline().rstrip("\r\n")
    try:
        hashed = hash_admin_key(key)
    except ValueError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return FAULTY
    print(hashed, flush=True)
    if sys.stderr.isatty():
        # In single quotes: a shell would take `$argon2id` and the like for its variables.
        print(f"\nFor the shell:       export SLUICE_ADMIN_KEY_HASH='{hashed}'", file=sys.stderr)
        print("For config.yaml:     admin_key_hash: '${env:SLUICE_ADMIN_KEY_HASH}'", file=sys.stderr)
    return OK


def _webhook_secret(_options: argparse.Namespace) -> int:
    print(new_secret())
    return OK


def _seal(options: argparse.Namespace) -> int:
    seal(_config_path(options), _environment(options), named=options.config is not None)
    return OK


def _rekey(options: argparse.Namespace) -> int:
    return OK if rekey(_config_path(options), _environment(options)) else FAULTY


def _storage(options: argparse.Namespace) -> int:
    return storage_command(options, _config_path(options), _environment(options))


def _health(options: argparse.Namespace) -> int:
    path = "/healthz" if options.live else "/readyz"
    if "/" in options.address:
        mend = "write the address and the port alone, such as 127.0.0.1:8080"
        print(f"sluice: --address {options.address}: {mend}", file=sys.stderr)
        return USAGE
    try:
        host, port = parse_listen(options.address)
    except ValueError as error:
        print(f"sluice: --address {options.address}: {error}", file=sys.stderr)
        return USAGE
    try:
        try:
            status = _status(http.client.HTTPConnection(host, port, timeout=3), path)
        except (http.client.HTTPException, ConnectionResetError):
            # Somebody listens who does not speak plain HTTP. This machine asks itself, most likely by an address that
            # the certificate does not name.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            status = _status(http.client.HTTPSConnection(host, port, timeout=3, context=context), path)
    except (OSError, http.client.HTTPException) as error:
        print(f"sluice: no answer from {options.address}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return FAULTY
    print(f"{path} answers {status}")
    return OK if status == http.client.OK else FAULTY


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _version(_options: argparse.Namespace) -> int:
    print(_VERSION_LINE)
    return OK


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve,
    "upgrade": _upgrade,
    "check": _check,
    "doctor": _doctor,
    "explain": _explain,
    "demo": _demo,
    "hash-key": _hash_key,
    "webhook-secret": _webhook_secret,
    "seal": _seal,
    "rekey": _rekey,
    "migrate": _storage,
    "export": _storage,
    "import": _storage,
    "audit": _storage,
    "schema": generated_command,
    "openapi": generated_command,
    "health": _health,
    "version": _version,
}
