"""Sign-ins for the unit tests: the real ones, at a stand-in for the server that says what it is told to."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from config.schema import Config, Credential, OAuth, OAuthProvider, Provider
from config.sealing import KeyRing, SealingKey
from core.clock import ManualClock
from core.secret import Secret
from core.tasks import Tasks
from credentials.errors import LoginDenied, LoginFailed, LoginMismatch
from credentials.logins.logins import Logins
from credentials.oauth.server import DeviceCode, Flow, Pending
from credentials.records import AccountRecord, AccountSettings, SignIn
from credentials.sealer import RecordSealer
from credentials.stores.memory import MemoryStore
from credentials.tokens import TokenSet
from tests.planted import planted

ISSUER = "https://accounts.example.com"
REDIRECT_URL = "https://gateway.example.com/oauth/callback"
CODE = planted("login-code")
ACCESS = planted("login-access")
DEVICE_CODE = planted("login-device-code")
PROVIDERS = (
    Provider(
        name="openai",
        type="openai",
        oauth="accounts",
        credentials=(Credential(name="of-file", api_key=Secret.literal("key")),),
    ),
    Provider(name="other", type="openai", oauth="accounts"),
    Provider(name="plain", type="openai"),
)
CONFIG = Config(providers=PROVIDERS, oauth=OAuth(providers=(OAuthProvider(name="accounts", client_id="ours"),)))


class ServerStandIn:
    """Stands for :class:`credentials.oauth.server.OAuthServer`."""

    def __init__(self) -> None:
        self.issuer: str | None = ISSUER
        self.flows: tuple[Flow, ...] = ("code", "device")
        self.pkce = True
        self.redirect_url = REDIRECT_URL
        self.exchanged: list[tuple[str, str | None, str]] = []
        """Code, verifier and redirect URL."""
        self.revoked: list[TokenSet] = []
        self.polls: list[TokenSet | Pending | Exception] = []
        """What the next questions of a device are answered."""
        self.failure: Exception | None = None
        """What an exchange ends with, and every beginning."""
        self.exchange_may_go_on: asyncio.Event | None = None

    async def authorization_url(
        self, state: str, verifier: str | None, redirect_url: str, scopes: tuple[str, ...] | None = None
    ) -> str:
        if self.failure is not None:
            raise self.failure
        query = {"state": state, "redirect_uri": redirect_url, "scope": " ".join(scopes or ())}
        return f"{ISSUER}/authorize?{urlencode(query)}" + ("" if verifier is None else "&code_challenge=x")

    async def read_answer(self, query: Mapping[str, str], state: str) -> str:
        assert state == query["state"]
        if self.issuer is not None and query.get("iss", ISSUER) != ISSUER:
            raise LoginMismatch("The answer is of another server.")
        if "error" in query:
            raise LoginDenied(f"The server says `{query['error'][:32]}`.")
        if "code" not in query:
            raise LoginFailed("The answer has no code.")
        return query["code"]

    async def exchange_code(self, code: str, verifier: str | None, redirect_url: str) -> TokenSet:
        self.exchanged.append((code, verifier, redirect_url))
        if self.exchange_may_go_on is not None:
            await self.exchange_may_go_on.wait()
        if self.failure is not None:
            raise self.failure
        return tokens()

    async def begin_device(self, scopes: tuple[str, ...] | None = None) -> DeviceCode:
        if self.failure is not None:
            raise self.failure
        return DeviceCode(
            device_code=Secret.literal(DEVICE_CODE),
            user_code="ABCD-EFGH",
            verification_uri=f"{ISSUER}/device",
            verification_uri_complete=None,
            expires_in_seconds=300.0,
            interval_seconds=5.0,
        )

    async def poll_device(self, device_code: Secret) -> TokenSet | Pending:
        assert DEVICE_CODE == device_code.reveal()
        answer = self.polls.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def revoke(self, tokens: TokenSet) -> bool:
        self.revoked.append(tokens)
        return True


class AccountsInMemory:
    """Stands for :class:`credentials.accounts.Accounts`: remembers what has signed in."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, AccountSettings | None, str | None]] = []
        self.failure: Exception | None = None

    async def signed_in(self, given: SignIn) -> AccountRecord:
        if self.failure is not None:
            raise self.failure
        assert ACCESS == given.tokens.access_token.reveal()
        self.kept.append((given.provider, given.name, given.settings, given.proxy_url))
        return AccountRecord(
            provider=given.provider, name=given.name, version=1, oauth=given.oauth, created_at=0, updated_at=0
        )


class LoginWorld:
    """Sign-ins with all that they need; tests change its members."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = ServerStandIn()
        self.servers = {"accounts": self.server}
        self.accounts = AccountsInMemory()
        self.store: Any = MemoryStore(self.clock)
        self.tasks = Tasks()
        self.keys = KeyRing([SealingKey("k1", b"k" * 32)])
        self.providers = {each.name: each for each in PROVIDERS}
        self.waits: list[float] = []
        """How long a device was waited for, each time."""
        self.wake = asyncio.Event()
        """Set: a device is asked for without waiting."""
        self.wake.set()
        self.logins = self.process()

    def process(self) -> Logins:
        """Another process that shares the store."""

        async def keys() -> KeyRing:
            return self.keys

        async def store() -> Any:
            return self.store

        return Logins(
            accounts=self.accounts,
            store=store,
            sealer=RecordSealer(keys),
            servers=lambda: self.servers,
            providers=lambda: self.providers,
            clock=self.clock,
            background=self.tasks,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.wake.wait()
        self.clock.advance(seconds)


def tokens() -> TokenSet:
    """What the server gives."""
    return TokenSet(access_token=Secret.literal(ACCESS), issued_at=0.0, expires_at=None, account="ada@example.com")


def state_in(url: str) -> str:
    """The state of an authorization URL."""
    (state,) = parse_qs(urlsplit(url).query)["state"]
    return state
