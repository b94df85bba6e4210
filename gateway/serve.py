"""`./sluice serve`: from a path to a running gateway, in one process or several."""

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from access.tokens import RANDOM_BYTES, digest, new_token
from config.faults import ConfigFaults
from config.schema import Config
from config.starter import starter_config
from core.events import Event, GatewayStarted
from gateway.link import Link
from gateway.listeners import CannotListen, bind, shown_address, shown_url
from gateway.memory import keep_freed_memory
from gateway.resources import Resources
from gateway.runs import PrivateFolder, RunRecord, RuntimeFolder
from gateway.server import Server
from gateway.settings import Started
from gateway.upgrade import Bound, Doors, Inheritance, Predecessor, Upgrader
from gateway.workers import LAST_GOOD, METRICS_DIR, WORKER, Place, Supervisor
from telemetry import logs

_log = logging.getLogger("sluice.server")

_T = TypeVar("_T")

_NO_RECORD = "no record of this process is kept, so `./sluice upgrade` will not find it: %s"


class ServeOptions:
    """What the command line says of a start."""

    def __init__(
        self,
        config: Path,
        *,
        listen: str | None = None,
        banner: bool = False,
        first_token: str | None = None,
        passing: bool = False,
        arguments: tuple[str, ...] = (),
        place: Place | None = None,
        inheritance: Inheritance | None = None,
    ) -> None:
        """What is not given is not said.

        Args:
            arguments: how the interpreter is told to start a successor.
            first_token: a token just made, to be shown once: ``config`` was written with its hash and nothing else
                has it, so the file goes again when the start fails.
            inheritance: this process takes the place of another.
            passing: ``config`` and the token end with this run.
            place: this process is a worker.
        """
        self.config = config
        self.listen = listen
        self.banner = banner
        self.first_token = first_token
        self.passing = passing
        self.arguments = arguments
        self.place = place
        self.inheritance = inheritance


def write_starter(path: Path) -> str:
    """Write a first configuration to ``path``; the text of the token that it knows.

    Raises:
        OSError: it exists already or cannot be written.
    """
    token = new_token(secrets.token_bytes(RANDOM_BYTES))
    with path.open("x", encoding="utf-8") as file:
        file.write(starter_config(digest(token)))
    return token


def serve(options: ServeOptions, environment: Mapping[str, str]) -> int:
    """Run until told to stop; the exit status.

    Raises:
        ConfigFaults: the configuration cannot be put in force.
    """
    logs.configure()
    for number in (signal.SIGHUP, signal.SIGUSR2):
        # They ask something of a gateway that runs, and must not end one that is about to.
        signal.signal(number, signal.SIG_IGN)
    _allow_many_files()
    _leave_no_core_files()
    keep_freed_memory()
    if options.place is not None:
        return run(_to_its_end(_serve_as_worker(options, options.place, environment)))
    return run(_to_its_end(_serve(options, environment)))


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run ``main`` on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _to_its_end(main: Coroutine[Any, Any, int]) -> int:
    done = await main
    # The interpreter takes a while to end. A signal that comes twice must not make a failure of an orderly end.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    return done


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each connection is a file, and nothing here uses select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        # Some systems say of a limit that it is unlimited, and refuse it all the same.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _leave_no_core_files() -> None:
    """They would hold every secret in use. Who needs one raises the soft limit of the running process (prlimit(1))."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


async def _serve_as_worker(options: ServeOptions, place: Place, environment: Mapping[str, str]) -> int:
    resources = Resources(environment, environment.get(METRICS_DIR), workers=place.slots)
    link = Link(place, resources.clock, resources.background)
    resources.others = link
    resources.event_feed.link(link, Path(environment[LAST_GOOD]).parent, environment[WORKER])
    started = Started(options.listen, place.slots)
    server = Server(options.config, resources, link.spread, keeps_files=place.slot == 0, started=started)
    try:
        server.reloader.start()
    except ConfigFaults:
        await resources.close()
        raise
    background = resources.background
    background.spawn(link.spread.keep_beating(), "spread")
    link.follow(server, lambda trigger: background.spawn(server.reloader.reload(trigger), "reload"), resources.events)
    try:
        await server.run(
            [socket.socket(fileno=number) for number in place.sockets],
            [socket.socket(fileno=number) for number in place.management_sockets],
        )
    finally:
        link.close()
    return 0


async def _serve(options: ServeOptions, environment: Mapping[str, str]) -> int:
    predecessor = Predecessor(options.inheritance.control) if options.inheritance is not None else None
    resources = Resources(environment)
    server = Server(options.config, resources, started=Started(options.listen))
    try:
        config = server.reloader.start().config
        doors = _open_doors(options, config)
        if options.banner and predecessor is None:
            url = shown_url(doors.sockets, tls=config.server.tls is not None)
            print(banner(url, options, config), flush=True)
    except (ConfigFaults, CannotListen, OSError) as error:
        await _give_up(resources, options)
        if predecessor is not None:
            # It tells, in its log and to who asked for the upgrade.
            predecessor.refused(error)
            predecessor.close()
            return 1
        if isinstance(error, CannotListen):
            print(f"sluice: {error}", file=sys.stderr)
            return 1
        # An OSError: nobody has read the banner: a pipe that is closed, a disk that is full.
        raise
    life = _Life(options, environment, doors, predecessor)
    try:
        if config.server.workers == 1:
            resources.events.subscribe(life.observe)
            life.begin(server.hand_over, server.is_draining)
            await server.run(doors.sockets, doors.management_sockets)
            return 0
        revision = server.reloader.current().revision
        await resources.close()
        url = shown_url(doors.sockets, tls=config.server.tls is not None)
        supervisor = Supervisor(
            # Its environment holds what an environment file had to say.
            ("-m", "gateway", "serve", "--config", str(options.config), *_said_of_listen(options)),
            environment,
            config.server.workers,
            life.private_folder(),
            lambda: life.serves(revision),
        )
        life.begin(supervisor.hand_over, supervisor.is_stopping)
        supervisor.take_signals()
        _log.info("listening on %s with %d workers", url, config.server.workers)
        return await supervisor.run(doors.sockets, doors.management_sockets)
    finally:
        await life.end()


def _said_of_listen(options: ServeOptions) -> tuple[str, ...]:
    return () if options.listen is None else ("--listen", options.listen)


def _open_doors(options: ServeOptions, config: Config) -> Doors:
    """The sockets to serve: bound, or inherited where the addresses are the same as the predecessor's.

    Raises:
        CannotListen: an address is taken, or is none.
    """
    inherited = options.inheritance
    listen, management = options.listen or config.server.listen, config.management.listen
    sockets = _inherited(inherited.server if inherited is not None else None, listen)
    management_sockets = _inherited(inherited.management if inherited is not None else None, management)
    if not sockets:
        sockets = bind(listen, _other_address(options))
    if management is not None and not management_sockets:
        management_sockets = bind(management, f"choose another: set management.listen in {options.config}")
    return Doors(listen, sockets, management, management_sockets)


def _inherited(bound: Bound | None, wanted: str | None) -> list[socket.socket]:
    """The sockets of ``bound`` if they are the ``wanted`` ones; else they are closed here and none are given."""
    sockets = bound.take() if bound is not None else []
    if bound is not None and bound.listen == wanted:
        return sockets
    for each in sockets:
        each.close()
    return []


class _Life:
    """This process among those before and after it: its record, its predecessor, its successor."""

    def __init__(
        self, options: ServeOptions, environment: Mapping[str, str], doors: Doors, predecessor: Predecessor | None
    ) -> None:
        self._options = options
        self._doors = doors
        self._predecessor = predecessor
        self._upgrader: Upgrader | None = None
        try:
            self._folder: RuntimeFolder | None = RuntimeFolder(environment)
        except OSError as error:
            self._folder = None
            _log.info(_NO_RECORD, error)

    def private_folder(self) -> PrivateFolder:
        """A folder for what workers share."""
        return self._folder.private_folder() if self._folder is not None else PrivateFolder()

    def begin(self, hand_over: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Take SIGUSR2; ``hand_over`` begins the drain when a successor serves, ``stopping`` tells whether one has."""
        arguments = None if self._options.passing else self._options.arguments
        self._upgrader = Upgrader(arguments, self._doors, hand_over, stopping)
        self._upgrader.take_signal()

    def observe(self, event: Event) -> None:
        if isinstance(event, GatewayStarted):
            self.serves(event.revision)

    def serves(self, revision: str) -> None:
        """Connections are being accepted: whoever looks may find this process, and the predecessor may go."""
        if self._folder is not None and self._upgrader is not None:
            inheritance = self._options.inheritance
            record = RunRecord(
                pid=os.getpid(),
                config=str(self._options.config.resolve()),
                listen=shown_address(self._doors.sockets),
                predecessor=inheritance.predecessor if inheritance is not None else None,
            )
            try:
                self._upgrader.record = self._folder.record(record)
            except OSError as error:
                _log.info(_NO_RECORD, error)
        if self._predecessor is not None:
            self._predecessor.ready(revision)

    async def end(self) -> None:
        if self._upgrader is not None:
            await self._upgrader.close()
        if self._predecessor is not None:
            self._predecessor.close()


async def _give_up(resources: Resources, options: ServeOptions) -> None:
    """Leave nothing of a start that failed: a token that nobody has seen opens nothing."""
    await resources.close()
    if options.first_token is not None:
        options.config.unlink(missing_ok=True)


def _other_address(options: ServeOptions) -> str:
    if options.passing:
        return "choose another with --listen"
    if options.first_token is not None:
        return "choose another: ./sluice serve --banner --listen 127.0.0.1:8081"
    return f"choose another with --listen, or set server.listen in {options.config}"


def banner(url: str, options: ServeOptions, config: Config) -> str:
    """What a person sees first: where it listens, a request that works as printed, and what to edit."""
    token = options.first_token or "$SLUICE_TOKEN"
    edited = "edit and save: it is live at once"
    model = _first_model(config)
    lines = [
        "",
        f"  Sluice listens on  {url}",
        f"  Configuration      {options.config}  ({edited}{'; it goes when this ends' if options.passing else ''})",
    ]
    if options.passing:
        lines.append(f"  Your token         {token}  (until this ends)")
    elif options.first_token is not None:
        lines += [
            f"  Your token         {token}",
            f"                     shown this once; keep it:  export SLUICE_TOKEN={token}",
        ]
    elif config.tokens:
        lines += [
            "  Your token         the one that the first run showed (export SLUICE_TOKEN=…);",
            f"                     lost: put another SHA-256 into {options.config}",
        ]
    if model is not None:
        lines += [
            "",
            "  Try it:",
            "",
            f"curl -N {url}/v1/chat/completions \\",
            f'  -H "Authorization: Bearer {token}" \\',
            "  -H 'Content-Type: application/json' \\",
            f'  -d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello, Sluice!"}}]}}\'',
        ]
    return "\n".join([*lines, ""])


def _first_model(config: Config) -> str | None:
    """A name that can be asked for as it stands: the first exact alias, else the first exact model of a provider."""
    names = [alias.from_ for alias in config.model_aliases]
    names += [f"{provider.name}/{model}" for provider in config.providers for model in provider.models]
    return next((name for name in names if not set("*?[{'\\") & set(name)), None)
