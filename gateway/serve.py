"""`./sluice serve`: from a path to a running gateway, in one process or several."""

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from access.tokens import RANDOM_BYTES, digest, new_token
from config.faults import ConfigFaults
from config.schema import Config
from config.starter import starter_config
from gateway.listeners import CannotListen, bind, shown_address
from gateway.resources import Resources
from gateway.server import Server
from gateway.workers import METRICS_DIR, Supervisor, follow_supervisor
from telemetry import logs

_log = logging.getLogger("sluice.server")

_T = TypeVar("_T")


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
        worker_sockets: tuple[list[int], list[int]] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        """What is not given is not said.

        Args:
            arguments: the command line again, for workers.
            first_token: a token just made, to be shown once: ``config`` was written with its hash and nothing else
                has it, so the file goes again when the start fails.
            passing: ``config`` and the token end with this run.
        """
        self.config = config
        self.listen = listen
        self.banner = banner
        self.first_token = first_token
        self.passing = passing
        self.worker_sockets = worker_sockets
        self.arguments = arguments


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
    return run(_serve(options, environment))


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run ``main`` on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _serve(options: ServeOptions, environment: Mapping[str, str]) -> int:
    is_worker = options.worker_sockets is not None
    resources = Resources(environment, environment.get(METRICS_DIR) if is_worker else None)
    server = Server(options.config, resources, on_reload=_tell_supervisor if is_worker else lambda: None)
    try:
        config = server.reloader.start().config
    except ConfigFaults:
        await _give_up(resources, options)
        raise
    if options.worker_sockets is not None:
        resources.background.spawn(follow_supervisor(server.stop), "follow supervisor")
        sockets, management = ([socket.socket(fileno=number) for number in each] for each in options.worker_sockets)
        await server.run(sockets, management)
        return 0
    try:
        sockets = bind(options.listen or config.server.listen, _other_address(options))
        mend = f"choose another: set management.listen in {options.config}"
        management = bind(config.management.listen, mend) if config.management.listen else []
        if options.banner:
            print(banner(shown_address(sockets), options, config), flush=True)
    except CannotListen as error:
        await _give_up(resources, options)
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    except OSError:
        # Nobody has read the banner: a pipe that is closed, a disk that is full.
        await _give_up(resources, options)
        raise
    if config.server.workers == 1:
        await server.run(sockets, management)
        return 0
    await resources.close()
    _log.info("listening on http://%s with %d workers", shown_address(sockets), config.server.workers)
    supervisor = Supervisor(options.arguments, environment, config.server.workers)
    return await supervisor.run(sockets, management)


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


def _tell_supervisor() -> None:
    os.kill(os.getppid(), signal.SIGHUP)


def banner(address: str, options: ServeOptions, config: Config) -> str:
    """What a person sees first: where it listens, a request that works as printed, and what to edit."""
    token = options.first_token or "$SLUICE_TOKEN"
    edited = "edit and save: it is live at once"
    model = _first_model(config)
    lines = [
        "",
        f"  Sluice listens on  http://{address}",
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
            f"curl -N http://{address}/v1/chat/completions \\",
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
