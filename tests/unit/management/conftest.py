"""The management application on a real socket: the gateway's own listener, and pytest-tornado's client."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop
from tornado.web import Application

from access.address import TrustedProxies
from core.errors import AdminKeyBusy, TooManyFailures, Unauthenticated
from core.headers import Headers
from core.identity import AdminKey, ApiToken, Scope
from gateway.listeners import Listener
from management.dependencies import (
    CooldownStatus,
    Dependencies,
    Health,
    ProviderStatus,
    Refused,
    Reloaded,
    ReloadStatus,
    StaleSecret,
    View,
)
from management.routes import build_application
from transport.server import ServerLimits

CALLERS: dict[str, AdminKey | ApiToken] = {
    "admin": AdminKey(),
    **{scope.value: ApiToken(f"token-{scope.name.lower()}", scope) for scope in Scope},
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

    def __post_init__(self) -> None:
        self.view = View("abc", self, TrustedProxies(), metrics_public=False)

    def change_view(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)

    async def manager(self, headers: Headers, address: str) -> AdminKey | ApiToken:
        self.addresses.append(address)
        key = (headers.get("authorization") or "").removeprefix("Bearer ")
        if key == "locked-out":
            raise TooManyFailures("Too many failed tries.", retry_after_seconds=299.2)
        if key == "busy":
            raise AdminKeyBusy("Too many keys are being checked.", retry_after_seconds=1.0)
        if key not in CALLERS:
            raise Unauthenticated("The API key is not known.")
        return CALLERS[key]

    async def reload(self, trigger: str) -> Reloaded | Refused:
        self.triggers.append(trigger)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

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
        )

    def dependencies(self) -> Dependencies:
        return Dependencies(
            view=lambda: self.view,
            ready=lambda: self.ready,
            health=self.health,
            reloader=self,
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

        async def fetch() -> HTTPResponse:
            return await http_client.fetch(
                base_url + path,
                method=method,
                headers=fields,
                body=body,
                raise_error=False,
                allow_nonstandard_methods=True,
                follow_redirects=False,
                request_timeout=5,
            )

        response = io_loop.run_sync(fetch, timeout=10)
        return Answer(response.code, {name.lower(): value for name, value in response.headers.get_all()}, response.body)

    return send
