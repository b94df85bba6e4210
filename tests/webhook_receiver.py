"""Endpoints of webhooks on real sockets, which verify what comes by the package that receivers use."""

import asyncio
import base64
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from standardwebhooks import Webhook

from core.secret import Secret
from core.tasks import Tasks
from tests.planted import planted_key
from tests.provider import Call, Provider
from transport.messages import ConnectionOptions
from webhooks.endpoint import Endpoint
from webhooks.subscriptions import Subscription

SECRET = "whsec_" + base64.b64encode(planted_key("webhook")).decode()

Answer = Callable[["Receiver", Call], Awaitable[None]]


class Receiver:
    """What came, and how it is answered: ``answer`` may be replaced at any time."""

    def __init__(self, answer: Answer, scheme: str = "http") -> None:
        self.answer = answer
        self.secret = SECRET
        """What it verifies by."""
        self._scheme = scheme
        self.port = 0
        self.got: list[tuple[str, Any]] = []
        """Ids and payloads, all verified, in the order in which they came; those too that were not answered with 2xx."""
        self.calls: list[Call] = []
        self.taken: Counter[str] = Counter()
        """The ids of those that were answered with 2xx."""
        self.under_way = 0
        self.most_under_way = 0
        self.connections: set[object] = set()

    async def behave(self, call: Call) -> None:
        body = await call.body()
        payload = Webhook(self.secret).verify(body, call.headers)
        self.calls.append(call)
        self.connections.add(call.transport)
        self.got.append((call.headers["webhook-id"], payload))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.answer(self, call)
        finally:
            self.under_way -= 1

    @property
    def ids(self) -> list[str]:
        return [event_id for event_id, _ in self.got]

    def endpoint(self, name: str = "ops", *, port: int | None = None, **fields: Any) -> Endpoint:
        wishes = {key: fields.pop(key) for key in ("events", "match", "sample") if key in fields}
        usual: dict[str, Any] = {"options": ConnectionOptions(), "secrets": (Secret.literal(SECRET),)}
        return Endpoint(
            name=name,
            url=f"{self._scheme}://127.0.0.1:{port or self.port}/hook",
            subscription=Subscription(webhook=name, **wishes),
            **(usual | fields),
        )


def status(code: int, headers: dict[str, str] | None = None) -> Answer:
    """Answers all with ``code``."""

    async def answer(receiver: Receiver, call: Call) -> None:
        if 200 <= code < 300:
            receiver.taken[call.headers["webhook-id"]] += 1
        await call.answer(b"", code, headers)

    return answer


def slow(seconds: float) -> Answer:
    """Takes each after a while."""

    async def answer(receiver: Receiver, call: Call) -> None:
        await asyncio.sleep(seconds)
        await status(204)(receiver, call)

    return answer


async def silent(receiver: Receiver, call: Call) -> None:
    """Never answers."""
    await call.gone()


async def cut(receiver: Receiver, call: Call) -> None:
    """Ends the connection instead of answering."""
    call.reset()


def first(answers: list[Answer], then: Answer) -> Answer:
    """The first deliveries are answered by ``answers``, each by one."""
    left = list(answers)

    async def answer(receiver: Receiver, call: Call) -> None:
        await (left.pop(0) if left else then)(receiver, call)

    return answer


@asynccontextmanager
async def receiver(answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A running one, which takes all unless it is said otherwise."""
    made = Receiver(answer or status(204), "http" if tls is None else "https")
    running = Provider(made.behave)
    tasks = Tasks()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.spawn(running.serve(reader, writer), "connection")

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()
