"""The management application on a real socket: the gateway's own listener, and pytest-tornado's client."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop
from tornado.web import Application

from access.address import TrustedProxies
from core.clock import SystemClock
from core.errors import AdminKeyBusy, TooManyFailures, Unauthenticated
from core.headers import Headers
from core.identity import AdminKey, ApiToken, AuthContext, Author, Role, Scope, Session
from gateway.listeners import Listener
from management.dependencies import (
    CooldownStatus,
    CredentialsStatus,
    Dependencies,
    Health,
    IssuedTokensStatus,
    LedgerStatus,
    ProviderStatus,
    QuotasStatus,
    ReloadStatus,
    StaleSecret,
    StorageStatus,
    View,
    WebhooksStatus,
)
from management.editing.editor import Refused, Reloaded
from management.routes import build_application
from management.setting_values import SettingShown
from storage.errors import AuditFull, BadCursor
from storage.records import AuditEntry, AuditFilter, NewAuditEntry, Page
from tests.openapi_answers import check_answer
from tests.planted import search
from tests.unit.management.credential_stand_in import Credentials
from tests.unit.management.editor_stand_in import DocumentInMemory, SealingStandIn
from tests.unit.management.event_stand_in import EventsStandIn
from tests.unit.management.limit_stand_in import Limits
from tests.unit.management.login_stand_in import LoginsInMemory
from tests.unit.management.price_stand_in import Prices
from tests.unit.management.provider_stand_in import Providers
from tests.unit.management.routing_stand_in import Routing
from tests.unit.management.token_stand_in import Tokens
from tests.unit.management.usage_stand_in import UsageInMemory
from tests.unit.management.webhook_stand_in import WebhooksStandIn
from transport.server import ServerLimits

CALLERS: dict[str, AuthContext] = {
    "admin": AdminKey(),
    **{scope.value: ApiToken(f"token-{scope.name.lower()}", scope) for scope in Scope},
    **{f"session-{role.name.lower()}": Session("ann", role) for role in Role},
}
"""What the test gateway knows: the key is the name."""


@dataclass
class Gateway:
    """Stands for everything under the management API; tests change its members."""

    view: View = field(init=False)
    ready: bool = True
    outcome: Reloaded | Refused | Exception = field(default_factory=lambda: Reloaded("def", True, 0.25))
    triggers: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    entries: list[NewAuditEntry] = field(default_factory=list)
    """What the audit was told."""
    audit_is_full: bool = False
    audit_waits: int = 0
    settled: int = 0
    """How often events were waited for."""
    """So many entries are not in the list yet."""
    wanted: list[AuditFilter | None] = field(default_factory=list)
    """What the audit was asked for."""
    providers: Providers = field(default_factory=Providers)
    prices: Prices = field(default_factory=Prices)
    credentials: Credentials = field(default_factory=Credentials)
    tokens: Tokens = field(default_factory=Tokens)
    usage: UsageInMemory = field(default_factory=UsageInMemory)
    events: EventsStandIn = field(default_factory=EventsStandIn)
    limits: Limits = field(default_factory=Limits)
    logins: LoginsInMemory = field(default_factory=LoginsInMemory)
    webhooks: WebhooksStandIn = field(default_factory=WebhooksStandIn)
    settings: dict[str, SettingShown] = field(default_factory=dict)

    editor: DocumentInMemory = field(init=False)
    sealer: SealingStandIn = field(default_factory=SealingStandIn)
    routing: Routing = field(default_factory=Routing)

    def __post_init__(self) -> None:
        self.editor = DocumentInMemory(self.reload)
        self.view = View("abc", self, TrustedProxies(), metrics_public=False)

    def change_view(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)

    async def manager(self, headers: Headers, address: str) -> AuthContext:
        self.addresses.append(address)
        key = (headers.get("authorization") or "").removeprefix("Bearer ")
        if key == "locked-out":
            raise TooManyFailures("Too many failed tries.", retry_after_seconds=299.2)
        if key == "busy":
            raise AdminKeyBusy("Too many keys are being checked.", retry_after_seconds=1.0)
        if key not in CALLERS:
            raise Unauthenticated("The API key is not known.")
        return CALLERS[key]

    def still(self, headers: Headers, address: str) -> AuthContext | None:
        return CALLERS.get((headers.get("authorization") or "").removeprefix("Bearer "))

    async def reload(self, trigger: str, _author: Author) -> Reloaded | Refused:
        self.triggers.append(trigger)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def require_room(self) -> None:
        if self.audit_is_full:
            raise AuditFull("The audit takes no more.")

    async def append(self, entry: NewAuditEntry) -> None:
        self.entries.append(entry)

    async def waiting(self) -> int:
        return self.audit_waits

    async def settle_events(self) -> bool:
        self.settled += 1
        return True

    async def list(
        self, wanted: AuditFilter | None = None, *, cursor: str | None = None, limit: int = 100
    ) -> Page[AuditEntry]:
        if cursor is not None and not cursor.isdecimal():
            raise BadCursor("not a cursor")
        self.wanted.append(wanted)
        begin = int(cursor or 0)
        chain = [
            AuditEntry(**msgspec.structs.asdict(entry), seq=seq, previous_hash=bytes([seq - 1]), hash=bytes([seq]))
            for seq, entry in enumerate(self.entries, 1)
        ]
        found = chain[::-1][begin:]
        return Page(tuple(found[:limit]), str(begin + limit) if len(found) > limit else None)

    def health(self) -> Health:
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        cooldown = CooldownStatus(model="gpt-4o", credential=None, reason="upstream_timeout", seconds=9.5)
        return Health(
            revision="abc",
            started_at=at,
            uptime_seconds=12.5,
            draining=False,
            providers=(
                ProviderStatus(name="openai", type="openai", cooldowns=(cooldown,)),
                ProviderStatus(name="local", type="echo"),
            ),
            last_reload=ReloadStatus(at=at, trigger="watch", result="rejected", faults=2),
            stale_secrets=(StaleSecret(reference="${vault:a/b#c}", reason="sealed", since=at),),
            issued_tokens=IssuedTokensStatus(count=7, loaded=True, stale_since=None),
            storage=StorageStatus(state="unavailable", reason="unreachable", since=at, waiting=1, spooled=2),
            ledger=LedgerStatus(state="unavailable", reason="full", since=at, waiting=1, spooled=2, lost=3),
            webhooks=WebhooksStatus(
                failing=("ops",), disabled=("gone",), waiting=1, spooled=2, waits_for_database=True
            ),
            quotas=QuotasStatus(store="redis", up=False, reason="slow", since=at, waiting=3),
            credentials=CredentialsStatus(
                ready=3,
                pending=1,
                disabled=2,
                failing=("openai/team",),
                needs_login=("openai/alice",),
                damaged=("openai/bob",),
                shadowed=(),
            ),
        )

    def dependencies(self) -> Dependencies:
        return Dependencies(
            view=lambda: self.view,
            ready=lambda: self.ready,
            health=self.health,
            editor=self.editor,
            revisions=self.editor,
            sealer=self.sealer,
            routing=self.routing,
            audit=self,
            clock=SystemClock(),
            providers=self.providers,
            prices=self.prices,
            credentials=self.credentials,
            tokens=self.tokens,
            webhooks=self.webhooks,
            limits=self.limits,
            logins=self.logins,
            usage=self.usage,
            events=self.events,
            settings=lambda: self.settings,
            settle_events=self.settle_events,
            render_metrics=lambda: ("text/plain; version=1.0.0; charset=utf-8", b"sluice_requests_total 1.0\n"),
        )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


Call = Callable[..., Answer]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def app(gateway: Gateway) -> Application:
    return build_application(gateway.dependencies())


@pytest.fixture
def current_loop() -> Iterator[None]:
    # pytest-tornado's loop remembers asyncio's current one; without one asyncio makes it, and nobody would close it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def io_loop(current_loop: None, io_loop: IOLoop) -> IOLoop:
    return io_loop


@pytest.fixture
def http_server(io_loop: IOLoop, app: Application, _unused_port: tuple[socket.socket, int]) -> Iterator[Listener]:
    """In the place of pytest-tornado's, which would serve with Tornado's own server."""

    async def start() -> Listener:
        listener = Listener([_unused_port[0]], app, ServerLimits, max_connections=lambda: 100)
        listener.start()
        return listener

    listener = io_loop.run_sync(start)
    yield listener
    listener.stop_accepting()
    io_loop.run_sync(listener.close)


@pytest.fixture
def base_url(http_port: int) -> str:
    return f"http://127.0.0.1:{http_port}"


@pytest.fixture
def call(io_loop: IOLoop, http_client: AsyncHTTPClient, base_url: str) -> Call:
    """``call("GET", "/healthz", key="admin", body=b"…", headers={…})``."""

    def send(
        method: str, path: str, key: str | None = None, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        fields = dict(headers or {})
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        if body is not None:
            # Tornado's client would call it a form.
            fields.setdefault("Content-Type", "application/json")

        async def fetch() -> HTTPResponse:
            return await http_client.fetch(
                base_url + path,
                method=method,
                headers=fields,
                body=body,
                raise_error=False,
                allow_nonstandard_methods=True,
                follow_redirects=False,
                connect_timeout=60,
                request_timeout=60,
            )

        response = io_loop.run_sync(fetch, timeout=90)
        answer = Answer(
            response.code, {name.lower(): value for name, value in response.headers.get_all()}, response.body
        )
        search(answer.body, f"the answer to {method} {path}")
        check_answer(method, path, answer.status, answer.headers, answer.body)
        return answer

    return send
