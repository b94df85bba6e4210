"""A client without a socket, and a data plane whose providers are scripts: for tests of the proxy."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from access.address import TrustedProxies
from access.price_list import listed_types
from access.prices import PriceBook
from access.quotas.memory import MemoryStore
from access.quotas.store import QuotaStore
from access.quotas.waiting import WaitingStore
from access.tokens import TokenIndex
from config.schema import Config
from core.clock import Clock, SystemClock
from core.errors import BodyTimeout
from core.events import AttemptFailed, Event, Events, RequestCompleted, RequestFailed
from core.headers import Headers
from core.secret import Secret
from credentials.pool import LiveMembers, Pools
from gateway.limits import rules_of
from gateway.own_proxies import OwnProxies
from proxy.admission import Counted, Quotas
from proxy.dataplane import BoundProvider, DataPlane
from proxy.exchange import ClientGone, RequestHead
from proxy.intake import Limits
from proxy.pipeline import Pipeline
from proxy.providers import build_adapter
from routing.cooldown import Cooldowns
from routing.router import Router
from tests.planted import planted, search
from transport.messages import STRAIGHT, ConnectionOptions, UpstreamClient, UpstreamRequest
from transport.script import Head, Receive, Script, Send, Step
from transport.scripted import ScriptedClient

TOKEN = planted("token", "sk-sluice-")
LIMITED = planted("limited", "sk-sluice-")
SHARED = planted("shared", "sk-sluice-")

JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream"),)
DONE = b"data: [DONE]\n\n"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


TOKENS = [
    {"name": "all", "sha256": sha256(TOKEN), "models": ["*"]},
    {"name": "limited", "sha256": sha256(LIMITED), "models": ["gpt-*"]},
    {
        "name": "shared",
        "sha256": sha256(SHARED),
        "models": ["*"],
        "endpoints": ["inference", "files", "batches", "responses"],
    },
]


def key_of(provider: str) -> str:
    """The API key that a :class:`Plane` has for one of its providers."""
    return planted(f"key-of-{provider}")


class MemoryExchange:
    """A :class:`proxy.exchange.Exchange` whose client is the test. Holds the pipeline to the protocol's rules."""

    def __init__(
        self,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Sequence[bytes] = b"",
        *,
        query: str = "",
        received_at: float = 0.0,
        stall_seconds: float = 0,
    ) -> None:
        """``body`` comes in the given pieces. With ``stall_seconds`` it is not over then, but nothing more comes until
        the gateway loses its patience.
        """
        self.request_id = "req_1"
        self.head = RequestHead(method, path, query, Headers.parse(headers), "192.0.2.1", received_at)
        self.closed = False
        self.started = False
        self.bytes_in = 0
        self.transcript: list[str] = []
        """What was done to the client, call by call."""
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        """What each call sent."""
        self.sent = asyncio.Event()
        """Set whenever something has been sent."""
        self.takes = asyncio.Event()
        """Cleared while the client takes nothing."""
        self.takes.set()
        self.gives_up = False
        """Whether a client that takes nothing is given up at once, as by `send_idle_seconds`."""
        self._stall_seconds = stall_seconds
        self._body = [body] if isinstance(body, bytes) else list(body)
        self._on_close: Callable[[], object] = lambda: None

    @property
    def bytes_out(self) -> int:
        return len(self.body)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def ended(self) -> str:
        """`finish`, `abort`, or empty."""
        return self.transcript[-1] if self.transcript[-1:] in (["finish"], ["abort"]) else ""

    def field(self, name: str) -> str | None:
        """The only value of a field of the answer."""
        values = [value for each, value in self.headers if each == name]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def on_close(self, callback: Callable[[], object]) -> None:
        self._on_close = callback

    def leave(self) -> None:
        """The client goes."""
        assert not self.ended
        self.closed = True
        self.takes.set()
        self._on_close()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        while self._body:
            piece = self._body.pop(0)
            self.bytes_in += len(piece)
            if piece:
                return piece
        if self._stall_seconds:
            await asyncio.sleep(self._stall_seconds)
            raise BodyTimeout(f"nothing more of the body came for {self._stall_seconds:g} s")
        return b""

    def start(self, status: int, headers: Sequence[tuple[str, str]], data: bytes = b"", *, complete: bool) -> None:
        assert not self.started, "the head was sent twice"
        assert not self.ended
        self.started = True
        self.status = status
        self.headers = list(headers)
        search(repr(self.headers), "the fields of an answer")
        self._send(f"start {status}", data)
        if complete:
            self.headers.append(("content-length", str(len(data))))
            self._end("finish")

    def write(self, data: bytes) -> bool:
        assert self.started, "body bytes came before the head"
        assert not self.ended, f"body bytes came after {self.ended}"
        assert data, "an empty write would end a chunked body"
        if self.closed:
            raise ClientGone
        self._send("write", data)
        return self.takes.is_set() and not self.gives_up

    async def drained(self) -> None:
        if self.gives_up:
            raise ClientGone
        await self.takes.wait()
        if self.closed:
            raise ClientGone

    def finish(self) -> None:
        assert self.started
        assert not self.ended, f"the answer was ended again after {self.ended}"
        if not self.closed:
            self._end("finish")

    def abort(self) -> None:
        if not self.ended and not self.closed:
            self._end("abort")

    def _end(self, how: str) -> None:
        self.transcript.append(how)
        search(self.body, "the body of an answer")

    def _send(self, what: str, data: bytes) -> None:
        self.transcript.append(what)
        if data:
            self.pieces.append(data)
        self.sent.set()


Steps = Script | Receive | Sequence[Step] | Callable[[UpstreamRequest], "Script | Receive | Sequence[Step]"]


@dataclass
class Provider:
    """A provider that plays one script after the other, the last one for ever, and keeps what it was asked."""

    name: str
    scripts: list[Steps]
    include_usage: bool = False
    requests: list[UpstreamRequest] = field(default_factory=list)

    def respond(self, request: UpstreamRequest) -> Script | Receive:
        self.requests.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        steps = script(request) if callable(script) else script
        return steps if isinstance(steps, Script | Receive) else Script(tuple(steps))

    @property
    def last(self) -> UpstreamRequest:
        return self.requests[-1]

    @property
    def body(self) -> bytes:
        """The body of the last request."""
        assert isinstance(self.last.body, bytes)
        return self.last.body


def answer(body: bytes, headers: Iterable[tuple[str, str]] = JSON, status: int = 200) -> tuple[Step, ...]:
    """A whole answer in one piece."""
    head = Head(status, Headers(headers))
    return (head, Send(body)) if body else (head,)


def stream(*steps: bytes | Step, headers: Iterable[tuple[str, str]] = SSE) -> tuple[Step, ...]:
    """A stream: bytes are pieces of its body."""
    return (Head(200, Headers(headers)), *(Send(step) if isinstance(step, bytes) else step for step in steps))


class Plane:
    """A pipeline with its providers and what it told."""

    def __init__(
        self,
        *providers: Provider,
        clock: Clock | None = None,
        body_limits: Limits | None = None,
        store: QuotaStore | None = None,
        live: LiveMembers | None = None,
        client: UpstreamClient | None = None,
        **document: Any,
    ) -> None:
        """``document`` is merged over one that has each provider as `openai-compatible`, serving every model. ``client`` is
        the way to those that the document alone has; ``live`` has the credentials whose tokens end."""
        entries = [
            {
                "name": provider.name,
                "type": "openai-compatible",
                "base_url": f"http://{provider.name}.test/v1",
                "models": ["*"],
                "credentials": [{"name": "main", "api_key": key_of(provider.name)}],
                "include_usage": provider.include_usage,
            }
            for provider in providers
        ]
        config = msgspec.convert(
            {"providers": entries, "tokens": TOKENS, **document},
            Config,
            dec_hook=lambda _type, value: Secret.literal(value),
        )
        self.clock = clock if clock is not None else SystemClock()
        self.events = Events()
        self.told: list[Event] = []
        self.events.subscribe(self.told.append)
        self.cooldowns = Cooldowns(lambda _cooled: None)
        pools = Pools(config.providers, self.cooldowns, live)
        ways = {provider.name: ScriptedClient(provider.respond) for provider in providers}
        bound = {
            entry.name: BoundProvider(
                build_adapter(entry),
                ways[entry.name] if client is None else client,
                include_usage=entry.include_usage,
                through=OwnProxies(STRAIGHT, self),
            )
            for entry in config.providers
        }
        self.plane = DataPlane(
            revision="rev-1",
            built_at=1_700_000_000.0,
            limits=body_limits if body_limits is not None else Limits(1 << 20, 1 << 22, 1 << 20),
            tokens=TokenIndex(config.tokens),
            router=Router(config, self.cooldowns, pools, lambda: 0.0),
            pools=pools,
            providers=bound,
            trusted_proxies=TrustedProxies(),
            rules=rules_of(config),
            assumed_output_tokens=config.quotas.assumed_output_tokens,
            prices=PriceBook(config.prices, listed_types(config.providers)),
        )
        self.quotas = WaitingStore(store if store is not None else MemoryStore(self.clock))
        self.counted = Counted()
        self.pipeline = Pipeline(self.events, self.clock, Quotas(self.quotas, self.events, self.clock, self.counted))

    def shared_options(self, options: ConnectionOptions) -> ConnectionOptions:
        """As they are: no generation was before."""
        return options

    async def run(self, exchange: MemoryExchange) -> MemoryExchange:
        """Answer ``exchange`` to its end."""
        exchange.head = msgspec.structs.replace(exchange.head, received_at=self.clock.monotonic())
        await self.pipeline.run(exchange, self.plane)
        return exchange

    async def post(
        self,
        body: object,
        path: str = "/v1/chat/completions",
        headers: Iterable[tuple[str, str]] = (),
        *,
        token: str | None = TOKEN,
        **more: Any,
    ) -> MemoryExchange:
        """The answer to a JSON request; ``body`` is encoded unless it is bytes (or pieces of them)."""
        content = body if isinstance(body, bytes | list | tuple) else msgspec.json.encode(body)
        return await self.run(request(path, content, headers, token=token, **more))

    async def get(self, path: str, *, token: str | None = TOKEN, **more: Any) -> MemoryExchange:
        return await self.run(MemoryExchange("GET", path, authorized((), token), **more))

    def begin(self, exchange: MemoryExchange) -> "asyncio.Task[None]":
        """Answer ``exchange`` in a task that ends when its client goes, as the handlers do it."""
        exchange.head = msgspec.structs.replace(exchange.head, received_at=self.clock.monotonic())
        task = asyncio.get_running_loop().create_task(self.pipeline.run(exchange, self.plane))
        exchange.on_close(task.cancel)
        return task

    @property
    def record(self) -> RequestCompleted | RequestFailed:
        """What was told of the last exchange."""
        last = self.told[-1]
        assert isinstance(last, RequestCompleted | RequestFailed)
        return last

    @property
    def attempts(self) -> list[str]:
        """The failed attempts so far, one line each."""
        return [
            f"{told.number} {told.provider}/{told.model_label}: {told.error_code}, delivered {told.delivered}: {told.next}"
            for told in self.told
            if isinstance(told, AttemptFailed)
        ]


def authorized(headers: Iterable[tuple[str, str]], token: str | None = TOKEN) -> list[tuple[str, str]]:
    return [*headers, *([] if token is None else [("authorization", f"Bearer {token}")])]


def request(
    path: str = "/v1/chat/completions",
    body: bytes | Sequence[bytes] = b'{"model":"m"}',
    headers: Iterable[tuple[str, str]] = (),
    *,
    token: str | None = TOKEN,
    **more: Any,
) -> MemoryExchange:
    """A POST with the content type of JSON, unless ``headers`` name another."""
    fields = list(headers)
    if not any(name == "content-type" for name, _ in fields):
        fields += JSON
    return MemoryExchange("POST", path, authorized(fields, token), body, **more)


async def until(ready: Callable[[], object]) -> None:
    """Give way to others until ``ready()``; fails after 60 s."""
    async with asyncio.timeout(60):
        while not ready():
            await asyncio.sleep(0.001)
