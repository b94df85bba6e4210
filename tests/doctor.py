"""``./sluice doctor`` run by tests, what it tells, and the servers that it is shown."""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

from config.master_key import parse_keys
from config.sealing import CONFIG, KeyRing
from core.tasks import Tasks
from tests.gateway_process import TOKEN, document, run_cli
from tests.planted import place_of_secrets, planted, planted_key
from tests.provider import Call, Provider

ECHO = "providers: [{name: echo, type: echo}]"
MASTER_KEY = planted_key("master").hex()
KEYS = {name: planted(name) for name in ("refused", "file-key", "sealed", "denied", "literal", "env", "vault")}
_SEALER = KeyRing(parse_keys(MASTER_KEY))


@dataclass(frozen=True)
class Found:
    """One finding."""

    where: str
    """A key of the document, or a file."""
    what: str
    mend: str


@dataclass(frozen=True)
class Told:
    """What the doctor told."""

    status: int
    told: str
    faults: list[Found]
    warnings: list[Found]
    fine: list[Found]

    def fault(self, words: str) -> Found:
        """The one fault that is told in these words."""
        return self._only(self.faults, words)

    def warning(self, words: str) -> Found:
        """The one warning."""
        return self._only(self.warnings, words)

    @staticmethod
    def _only(of: list[Found], words: str) -> Found:
        found = [each for each in of if re.search(words, f"{each.what} {each.mend}")]
        assert 1 == len(found), f"{words!r} is in {len(found)} of {of}"
        return found[0]


async def printed(config: Path, *arguments: str, status: int = 1, **environment: str) -> str:
    """What it prints, and nothing else."""
    variables = {"SLUICE_MASTER_KEY": MASTER_KEY, "DOCTOR_TOKEN": TOKEN, **environment}
    command = ("doctor", "-c", config.name, *arguments)
    ended, out, err = await asyncio.to_thread(run_cli, *command, cwd=config.parent, extra=variables)
    assert not err, err
    assert status == ended, out
    return out


async def doctor(config: Path, *arguments: str, status: int = 1, **environment: str) -> Told:
    """Its report, by what it tells a program."""
    out = await printed(config, "--json", *arguments, status=status, **environment)
    told: dict[str, list[Found]] = {"fault": [], "warning": [], "fine": []}
    for each in json.loads(out)["findings"]:
        where = each["where"]
        assert each["severity"] != "fault" or each["mend"], each
        told[each["severity"]].append(Found(where["path"] or where["file"], each["what"], each["mend"]))
    return Told(status, out, told["fault"], told["warning"], told["fine"])


def write(place: Path, text: str) -> Path:
    path = place_of_secrets(place / "config.yaml")
    path.write_text(document(text))
    path.chmod(0o600)
    return path


def sealed(text: str) -> str:
    ring = _SEALER
    return f"${{sealed:{ring.seal(text.encode(), CONFIG)}}}"


def flipped(reference: str) -> str:
    """The same with one letter of its text changed."""
    place = len(reference) - 12
    return reference[:place] + ("A" if reference[place] != "A" else "B") + reference[place + 1 :]


def vendor(ahead_seconds: float, *keys: str) -> Any:
    """A provider that knows ``keys``, whose clock goes wrong."""

    async def behave(call: Call) -> None:
        headers = {"date": formatdate(time() + ahead_seconds, usegmt=True)}
        if call.headers.get("authorization") not in [f"Bearer {key}" for key in keys]:
            await call.answer({"error": {"message": f"bad key {call.headers['authorization']}"}}, 401, headers)
            return
        await call.answer({"object": "list", "data": []}, 200, headers)

    return behave


@asynccontextmanager
async def tls_server(pem: bytes, place: Path, *keys: str) -> AsyncIterator[int]:
    """The port of a provider that speaks TLS with the certificate and key ``pem``, and knows ``keys``."""
    file = place / "server.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    running = Provider(vendor(0, *keys))
    tasks = Tasks()
    listener = await asyncio.start_server(
        lambda reader, writer: tasks.spawn(running.serve(reader, writer), "connection"), "127.0.0.1", 0, ssl=context
    )
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()


@asynccontextmanager
async def before(port: int, *, holds_back: bool) -> AsyncIterator[int]:
    """The port of a proxy before the server on ``port``; one that holds back passes on whole answers alone."""
    tasks = Tasks()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            to.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            length = re.search(rb"(?i)content-length: (\d+)", head)
            to.write(await reader.readexactly(int(length[1])) if length else b"")
            held = b""
            while piece := await there.read(65536):
                held += piece
                if not holds_back:
                    writer.write(piece)
            if holds_back:
                writer.write(held)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            to.close()

    listener = await asyncio.start_server(
        lambda reader, writer: tasks.spawn(pass_on(reader, writer), "proxied"), "127.0.0.1", 0
    )
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()


@asynccontextmanager
async def no_tls() -> AsyncIterator[int]:
    """The port of a server of plain HTTP, which answers at once to what is none."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@contextmanager
def taken_port() -> Iterator[int]:
    """A port where somebody else listens, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
