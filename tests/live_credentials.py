"""Accounts that have signed in, in memory and by a clock that is told to move; who gives them tokens is a stand-in."""

import asyncio
from typing import Any

import msgspec

from config.schema import OAuthProvider, Provider, TokenPlacement
from config.sealing import KeyRing, SealingKey
from core.clock import ManualClock
from core.events import Event
from core.secret import Secret
from credentials.accounts import Accounts
from credentials.errors import CredentialFault, CredentialUnavailable
from credentials.records import AccountSettings, SignIn
from credentials.sealer import RecordSealer
from credentials.stores.memory import MemoryStore
from credentials.tokens import TokenSet
from tests.planted import planted, planted_key

LIFE_SECONDS = 3600.0
OAUTH = "sign-in"


def token(name: str, number: int) -> str:
    """The ``number``-th access token that the account ``name`` gets."""
    return planted(f"token-{number}-of-{name}")


class StandIn:
    """A stand-in for :class:`credentials.live.LiveCredential`, which never gets a token."""

    def __init__(self, *, usable: bool) -> None:
        self.usable = usable

    def fresh(self, now: float) -> bool:
        return False

    async def freshen(self, rejected: str | None = None) -> None:
        raise CredentialUnavailable("it is a stand-in")


class TokenServer:
    """A stand-in for :class:`credentials.oauth.server.OAuthServer`: an exchange gives the next token of an account."""

    def __init__(self, clock: ManualClock) -> None:
        self.entry = OAuthProvider(name=OAUTH)
        self.placement: TokenPlacement | None = None
        self.asked: list[str] = []
        """For whom, in order."""
        self.fault: CredentialFault | None = None
        """Of every exchange."""
        self.answers = asyncio.Event()
        """Cleared while exchanges get no answer."""
        self.answers.set()
        self._clock = clock
        self._given: dict[str, int] = {}

    def give(self, name: str, life_seconds: float = LIFE_SECONDS) -> TokenSet:
        """The next token of ``name``."""
        number = self._given[name] = self._given.get(name, 0) + 1
        now = self._clock.time()
        return TokenSet(
            access_token=Secret.literal(token(name, number)),
            issued_at=now,
            expires_at=now + life_seconds,
            refresh_token=Secret.literal(planted("refresh")),
            account=name,
        )

    async def revoke(self, tokens: TokenSet) -> bool:
        return False

    async def refresh(self, held: TokenSet) -> TokenSet:
        assert held.account is not None
        self.asked.append(held.account)
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault
        return self.give(held.account)


class SignedIn:
    """The accounts of one process, without what goes on in its background."""

    def __init__(self, clock: ManualClock) -> None:
        self.server = TokenServer(clock)
        self.told: list[Event] = []
        self._store = MemoryStore(clock)
        self.accounts = Accounts(
            store=self._opened,
            sealer=RecordSealer(self._keys),
            clock=clock,
            random=lambda: 0.0,
            tell=self.told.append,
        )

    def follow(self, *providers: Provider) -> None:
        """These there are, which accounts sign in to."""
        self.accounts.follow(providers, {}, {OAUTH: self.server}, 300.0)

    async def add(self, name: str, provider: str = "real", *, ended: bool = False, **settings: Any) -> None:
        """Somebody signs in. ``settings`` are those of the account, and its ``proxy_url``."""
        proxy_url = settings.pop("proxy_url", None)
        tokens = self.server.give(name, -1.0 if ended else LIFE_SECONDS)
        await self.accounts.signed_in(SignIn(provider, name, OAUTH, tokens, AccountSettings(**settings), proxy_url))

    async def change(self, name: str, provider: str = "real", **settings: Any) -> None:
        """Their operator changes what is said of the account."""
        await self.accounts.change(
            provider,
            name,
            lambda record: msgspec.structs.replace(
                record, settings=msgspec.structs.replace(record.settings, **settings)
            ),
            None,
        )

    async def give_up(self, name: str, provider: str = "real") -> None:
        """Some process has found that a person must sign in again."""
        await self.accounts.change(
            provider, name, lambda record: msgspec.structs.replace(record, needs_login="it was revoked"), None
        )

    async def close(self) -> None:
        await self.accounts.close()
        await self._store.close()

    async def _opened(self) -> MemoryStore:
        return self._store

    async def _keys(self) -> KeyRing:
        return KeyRing([SealingKey("k1", planted_key("k1"))])
