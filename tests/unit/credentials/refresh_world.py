"""Several processes that share a store of accounts and a server of one-time refresh tokens, in virtual time.

The store and the server answer late, and the store is down at times: then what was asked for is done or not, and nobody is
told. The server is a stand-in: as strict as RFC 9700, section 4.14.2, has it, and it remembers every use of every token.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any, TypeVar

import msgspec

from config.schema import OAuthProvider, Provider
from config.sealing import KeyRing, SealingKey
from core.clock import Clock
from core.events import Event
from core.secret import Secret
from core.tasks import Tasks
from credentials.accounts import Accounts
from credentials.errors import CredentialUnavailable, NeedsLogin, StoreUnavailable
from credentials.records import AccountRecord, AccountSettings, Listing, Lock, SignIn
from credentials.sealer import RecordSealer
from credentials.stores.memory import MemoryStore
from credentials.tokens import TokenSet
from tests import virtual_time
from tests.conftest import ExpectLog
from tests.planted import planted_key
from tests.virtual_time import VirtualClock

PROVIDER = Provider(name="claude", type="openai", oauth="accounts")
NAME = "main"
LIFE_SECONDS = 100.0
AHEAD_SECONDS = 30.0

_T = TypeVar("_T")
_Token = tuple[int, int]
"""Which sign-in it comes of, and how many there were before."""


class StrictServer:
    """Gives tokens. Whoever uses a refresh token that was used before loses all that came of that sign-in."""

    placement = None

    def __init__(self, clock: Clock, latency: Callable[[], float]) -> None:
        self.entry = OAuthProvider(name="accounts")
        self.used: dict[str, int] = {}
        self.revoked: set[int] = set()
        """Sign-ins that nothing is given for any more."""
        self.failing = False
        self.exchanged = asyncio.Event()
        """Set as an exchange is done, before it is answered."""
        self._sign_ins = 0
        self.latency = latency
        self.rotates = True
        """Whether a refresh token is good for one use."""
        self._clock = clock

    @property
    def sign_ins(self) -> int:
        return self._sign_ins

    def sign_in(self) -> TokenSet:
        self._sign_ins += 1
        return self._given(self._sign_ins, 0)

    async def revoke(self, tokens: TokenSet) -> bool:
        """RFC 7009 section 2.1: with a refresh token all goes that came of its sign-in."""
        await asyncio.sleep(self.latency())
        if self.failing:
            raise CredentialUnavailable("the server answers 503")
        assert tokens.refresh_token is not None
        self.revoked.add(parsed(tokens.refresh_token.reveal())[0])
        return True

    async def refresh(self, held: TokenSet) -> TokenSet:
        await asyncio.sleep(self.latency())
        if self.failing:
            raise CredentialUnavailable("the server answers 503")
        assert held.refresh_token is not None
        token = held.refresh_token.reveal()
        self.used[token] = self.used.get(token, 0) + 1
        sign_in, number = parsed(token)
        if (self.rotates and self.used[token] > 1) or sign_in in self.revoked:
            self.revoked.add(sign_in)
            raise NeedsLogin("the server says `invalid_grant`")
        self.exchanged.set()
        await asyncio.sleep(self.latency())
        if self.rotates:
            return self._given(sign_in, number + 1)
        return msgspec.structs.replace(self._given(sign_in, self.used[token]), refresh_token=held.refresh_token)

    def _given(self, sign_in: int, number: int) -> TokenSet:
        now = self._clock.time()
        return TokenSet(
            access_token=Secret.literal(f"access-{sign_in}-{number}"),
            refresh_token=Secret.literal(f"refresh-{sign_in}-{number}"),
            issued_at=now,
            expires_at=now + LIFE_SECONDS,
        )


class Shared:
    """The store that all processes have."""

    def __init__(self, clock: Clock) -> None:
        self.store = MemoryStore(clock)
        self.down = False
        self.history: list[AccountRecord | None] = []
        """Everything that was written, in order; None: it was removed."""


class Line:
    """:class:`credentials.records.AccountStore` as one process reaches it."""

    def __init__(self, shared: Shared, latency: Callable[[], float]) -> None:
        self._shared = shared
        self.latency = latency
        self.cut = False
        """Whether this process alone does not reach it."""

    async def version(self) -> int:
        return await self._ask(self._shared.store.version)

    async def all(self) -> Listing:
        return await self._ask(self._shared.store.all)

    async def get(self, provider: str, name: str) -> AccountRecord | None:
        return await self._ask(lambda: self._shared.store.get(provider, name))

    async def put(self, record: AccountRecord, seen: int | None) -> AccountRecord:
        async def put() -> AccountRecord:
            kept = await self._shared.store.put(record, seen)
            self._shared.history.append(kept)
            return kept

        return await self._ask(put)

    async def delete(self, provider: str, name: str, seen: int | None) -> bool:
        async def delete() -> bool:
            deleted = await self._shared.store.delete(provider, name, seen)
            self._shared.history.append(None)
            return deleted

        return await self._ask(delete)

    async def lock(self, provider: str, name: str, seconds: float) -> Lock | None:
        lock = await self._ask(lambda: self._shared.store.lock(provider, name, seconds))
        return None if lock is None else _Held(self, lock)

    async def release(self, lock: Lock) -> None:
        try:
            await self._ask(lock.release)
        except StoreUnavailable:
            pass  # it runs out

    async def _ask(self, question: Callable[[], Awaitable[_T]]) -> _T:
        await asyncio.sleep(self.latency())
        self._check()
        answer = await question()
        await asyncio.sleep(self.latency())
        self._check()
        return answer

    def _check(self) -> None:
        if self._shared.down or self.cut:
            raise StoreUnavailable("the store does not answer")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody here asks for {name}")


class _Held:
    def __init__(self, line: Line, lock: Lock) -> None:
        self._line = line
        self._lock = lock
        self.fence = lock.fence

    async def release(self) -> None:
        await self._line.release(self._lock)


class Process:
    """One of them."""

    def __init__(self, world: "World", number: int, key: str = "k1") -> None:
        self.line = Line(world.shared, world.latency)
        self.events: list[Event] = []
        self.background = Tasks()
        self.served: list[_Token] = []
        """The tokens that it served by, in order."""
        self.accounts = Accounts(
            store=self._store,
            sealer=RecordSealer(partial(_keys, key)),
            clock=world.clock,
            random=random.Random(number).random,
            tell=self.events.append,
        )
        self.accounts.follow([PROVIDER], {}, {"accounts": world.server}, AHEAD_SECONDS)

    async def start(self) -> None:
        await self.accounts.start(self.background)
        self.background.spawn(self._watch(), "watch")

    async def stop(self) -> None:
        await self.background.cancel()
        await self.accounts.close()

    @property
    def token(self) -> str:
        """What it serves by; empty: nothing."""
        members = self.accounts.members(PROVIDER.name)
        secret = members[0].secret if members else None
        return "" if secret is None else secret.reveal()

    async def freshen(self, *, reject: bool = False) -> None:
        """A request. ``reject``: its provider has answered 401. Raises CredentialFault."""
        for member in self.accounts.members(PROVIDER.name):
            assert member.live is not None
            await member.live.freshen(self.token if reject else None)

    async def _store(self) -> Any:
        return self.line

    async def _watch(self) -> None:
        while True:
            if (token := self.token) and (not self.served or self.served[-1] != parsed(token)):
                self.served.append(parsed(token))
            await asyncio.sleep(0.5)


class World:
    """All of it. ``latency`` gives how long one way takes."""

    def __init__(self, processes: int, latency: Callable[[], float] = lambda: 0.0) -> None:
        self.clock = VirtualClock()
        self.latency = latency
        self.shared = Shared(self.clock)
        self.server = StrictServer(self.clock, latency)
        self.processes = [Process(self, number) for number in range(processes)]

    async def start(self) -> None:
        await asyncio.gather(*(process.start() for process in self.processes))

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))

    async def sign_in(self, process: int = 0, **settings: Any) -> None:
        """Somebody signs in, by one of the processes. Raises StoreFault."""
        given = AccountSettings(**settings) if settings else None
        await self.processes[process].accounts.signed_in(
            SignIn(PROVIDER.name, NAME, "accounts", self.server.sign_in(), given)
        )

    async def edit(self, process: int, word: str) -> None:
        """Its operator adds ``word`` to what is said of it. Raises StoreFault."""

        def edited(record: AccountRecord) -> AccountRecord:
            settings = msgspec.structs.replace(record.settings, models=(*record.settings.models, word))
            return msgspec.structs.replace(record, settings=settings)

        await self.processes[process].accounts.change(PROVIDER.name, NAME, edited, None)

    async def kept(self) -> AccountRecord:
        record = await self.shared.store.get(PROVIDER.name, NAME)
        assert record is not None
        return record

    async def opened(self, record: AccountRecord) -> _Token:
        """Which tokens are in it."""
        tokens = await RecordSealer(_keys).open_tokens(record)
        assert tokens is not None
        return parsed(tokens.access_token.reveal())


def parsed(token: str) -> _Token:
    _, sign_in, number = token.split("-")
    return int(sign_in), int(number)


@cache
def _ring(key: str) -> KeyRing:
    return KeyRing([SealingKey(key, planted_key(key))])


async def _keys(key: str = "k1") -> KeyRing:
    return _ring(key)


def world(processes: int = 1) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[], None]]:
    """The test has a world of so many processes, where somebody has signed in."""

    def wrapped(test: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
        async def play() -> None:
            there = World(processes)
            await there.start()
            await there.sign_in()
            for process in there.processes:
                await process.accounts.sync()
            try:
                await test(there)
            finally:
                await there.stop()

        @functools.wraps(test)
        def run() -> None:
            virtual_time.run(play())

        del run.__wrapped__  # pytest would ask for a fixture `there`
        return run

    return wrapped


def logged(*patterns: str) -> Callable[[Callable[[], None]], Callable[[ExpectLog], None]]:
    """The test provokes such log records."""

    def wrapped(test: Callable[[], None]) -> Callable[[ExpectLog], None]:
        def run(expect_log: ExpectLog) -> None:
            with contextlib.ExitStack() as expected:
                for pattern in patterns:
                    expected.enter_context(expect_log(pattern))
                test()

        run.__name__ = test.__name__
        return run

    return wrapped
