"""Real processes that share a store of accounts and a real OAuth server, for the tests. Each has the accounts as a worker of
the gateway has them, and does what it is told over a socket, a line of JSON each.

``python -m tests.refresh_processes SOCKET COUNT`` imports everything once and forks: on a slow machine many start as fast as
one. It ends when all have.
"""

import asyncio
import base64
import contextlib
import hashlib
import importlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from config.schema import OAuthProvider, Provider, Redis
from config.sealing import KeyRing, SealingKey
from core.clock import SystemClock
from core.events import Event
from core.secret import Secret
from core.tasks import Tasks
from credentials.accounts import Accounts
from credentials.errors import CredentialFault, StoreFault
from credentials.oauth.server import OAuthServer
from credentials.records import AccountStore
from credentials.sealer import RecordSealer
from credentials.stores.build import StoreKind, open_store
from credentials.tokens import TokenSet
from storage.accounts import AccountCells
from storage.database import Database
from transport.client import HttpClient
from transport.messages import STRAIGHT

PROVIDER = Provider(name="strict", type="openai", oauth="strict")
NAME = "main"
OAUTH = "strict"
AHEAD_SECONDS = 0.2
_PATIENCE_SECONDS = 90.0
_LOCK_SECONDS = 60.0
_JUMP_AFTER_SECONDS = 0.3


class Settings(msgspec.Struct, kw_only=True):
    """What all of them have."""

    issuer: str
    store: StoreKind
    url: str = ""
    """Of the database or the Redis."""
    directory: str = ""
    key: str
    """The master key, in base64."""


class Order(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one is to do."""

    settings: Settings | None = None
    """The first thing that each is told."""
    requests: int = 0
    """So many ask for a token at once."""
    until_not: str = ""
    """They ask again and again until another token serves than the one of this digest."""
    reject: str = ""
    """Their provider has answered 401 to the token of this digest."""
    locks_run_out: bool = False
    """While they ask, by the clock of the one that is told so, all locks run out that others have taken before."""
    stand_still: str | None = None
    """From now on: `before` or `after` an exchange, for ever."""


class Answer(msgspec.Struct, kw_only=True):
    """What came of it."""

    pid: int = 0
    faults: tuple[str, ...] = ()
    token: str = ""
    """SHA-256 of the token that serves now."""
    stands: bool = False
    """It has come to where it is to stand still; nothing follows."""
    told: tuple[str, ...] = ()
    """Names of events since the last answer."""


class _Clock:
    """The system's, or one that is ahead of it."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self._ahead_seconds = 0.0

    def monotonic(self) -> float:
        return self._system.monotonic()

    def time(self) -> float:
        return self._system.time() + self._ahead_seconds

    def jump(self, seconds: float) -> None:
        self._ahead_seconds += seconds


class Part:
    """What each of them, and the test, has of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None
        self._client = HttpClient()
        self.clock = _Clock()
        self._opened: AccountStore | None = None
        self.told: list[str] = []
        self.background = Tasks()
        self.server = OAuthServer(
            OAuthProvider(
                name=OAUTH, client_id="public", issuer=settings.issuer, scopes=("openid", "email", "models.read")
            ),
            None,
            self._client,
            STRAIGHT,
            self.clock,
            lambda: "http://127.0.0.1:8080/oauth/callback",
        )
        self.sealer = RecordSealer(self._keys)
        self.accounts = Accounts(
            store=self.store,
            sealer=self.sealer,
            clock=self.clock,
            random=random.random,
            tell=self._note,
            lock_seconds=_LOCK_SECONDS,
        )

    async def start(self) -> None:
        self.accounts.follow([PROVIDER], {}, {OAUTH: self.server}, AHEAD_SECONDS)
        await self.accounts.start(self.background)
        await self.accounts.sync()

    async def stop(self) -> None:
        await self.background.cancel()
        await self.accounts.close()
        if self._opened is not None:
            await self._opened.close()
        if self._database is not None:
            await self._database.close()
        await self._client.close()

    async def store(self) -> AccountStore:
        if self._opened is None:
            settings = self._settings
            self._opened = await open_store(
                settings.store,
                clock=self.clock,
                directory=Path(settings.directory),
                redis=Redis(url=Secret.literal(settings.url) if settings.url else None, timeout_seconds=60.0),
                cells=self._cells,
            )
        return self._opened

    async def _cells(self) -> AccountCells:
        self._database = Database(self._settings.url, self.clock)
        return AccountCells(self._database)

    async def _keys(self) -> KeyRing:
        return KeyRing([SealingKey("k1", base64.b64decode(self._settings.key))])

    def _note(self, event: Event) -> None:
        self.told.append(event.name)


class _Standing:
    """The server, in front of which, or behind which, a process stands still."""

    def __init__(self, server: OAuthServer, where: str, says: Callable[[], Awaitable[None]]) -> None:
        self.entry = server.entry
        self.placement = server.placement
        self._server = server
        self._where = where
        self._says = says

    async def revoke(self, tokens: TokenSet) -> bool:
        return await self._server.revoke(tokens)

    async def refresh(self, held: TokenSet) -> TokenSet:
        if self._where == "after":
            await self._server.refresh(held)
        await self._says()
        while True:
            # The whole process: as one that is killed, it does nothing any more.
            signal.pause()


class Processes:
    """Those that were started, by the order in which they came."""

    def __init__(self) -> None:
        self._lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._all_here = asyncio.Event()
        self._count = 0

    async def tell(self, number: int, order: Order) -> None:
        self._lines[number][1].write(msgspec.json.encode(order) + b"\n")

    async def answer(self, number: int) -> Answer:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return msgspec.json.decode(await self._lines[number][0].readline(), type=Answer)

    async def ask(self, number: int, order: Order) -> Answer:
        await self.tell(number, order)
        return await self.answer(number)

    async def ask_all(self, order: Order) -> list[Answer]:
        return list(await asyncio.gather(*(self.ask(number, order) for number in range(self._count))))

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.append((reader, writer))
        if len(self._lines) == self._count:
            self._all_here.set()


@contextlib.asynccontextmanager
async def processes(count: int, settings: Settings, place: Path) -> AsyncIterator[Processes]:
    """So many, which know the accounts."""
    made = Processes()
    made._count = count
    path = place / "orders"
    server = await asyncio.start_unix_server(made._came, path)
    command = [sys.executable, "-m", "tests.refresh_processes", str(path), str(count)]
    starter = subprocess.Popen(command)  # noqa: ASYNC220  it starts within milliseconds
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await made._all_here.wait()
        await made.ask_all(Order(settings=settings))
        yield made
    finally:
        for _, writer in made._lines:
            # They end with their sockets.
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.to_thread(starter.wait, _PATIENCE_SECONDS)


async def _serve(path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    part: Part | None = None
    while line := await reader.readline():
        order = msgspec.json.decode(line, type=Order)
        answer = Answer(pid=os.getpid())
        if order.settings is not None:
            part = Part(order.settings)
            await part.start()
        assert part is not None
        if order.stand_still is not None:

            async def says() -> None:
                writer.write(msgspec.json.encode(Answer(pid=os.getpid(), stands=True)) + b"\n")
                await writer.drain()

            standing = _Standing(part.server, order.stand_still, says)
            part.accounts.follow([PROVIDER], {}, {OAUTH: standing}, AHEAD_SECONDS)
        if order.locks_run_out:
            asyncio.get_running_loop().call_later(_JUMP_AFTER_SECONDS, part.clock.jump, 2 * _LOCK_SECONDS)
        outcomes = await asyncio.gather(*(_requests(part, order, _token(part)) for _ in range(order.requests)))
        answer.faults = tuple(filter(None, outcomes))
        answer.token = digest(_token(part))
        answer.told, part.told = tuple(part.told), []
        writer.write(msgspec.json.encode(answer) + b"\n")
    if part is not None:
        await part.stop()


async def _requests(part: Part, order: Order, token: str) -> str:
    """Empty, or why there was no token once."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS / 2
    while asyncio.get_running_loop().time() < deadline:
        try:
            for member in part.accounts.members(PROVIDER.name):
                assert member.live is not None
                # Another token may have come before the order did.
                await member.live.freshen(token if order.reject == digest(token) else None)
        except (CredentialFault, StoreFault) as fault:
            return f"{type(fault).__name__}: {fault}"
        if digest(_token(part)) != order.until_not:
            return ""
        await asyncio.sleep(0.002)
    return "no other token came"


def _token(part: Part) -> str:
    members = part.accounts.members(PROVIDER.name)
    return "" if not members or members[0].secret is None else members[0].secret.reveal()


def digest(token: str) -> str:
    """What the test may be told of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def main(path: str, count: int) -> None:
    # What they need is imported before they are parted.
    for module in ("stores.database", "stores.file", "stores.redis", "sealer"):
        importlib.import_module(f"credentials.{module}")
    for _ in range(count):
        if os.fork() == 0:
            asyncio.run(_serve(path))
            os._exit(0)
    for _ in range(count):
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
