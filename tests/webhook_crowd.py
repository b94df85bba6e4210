"""Many deliveries to endpoints of webhooks that behave well and badly, each verified by the package that receivers use.

As quick as can be, and without keeping what came: for one delivery and what it holds there is tests/webhook_receiver.py.
"""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

from standardwebhooks import Webhook, WebhookVerificationError

from tests.planted import planted_key

SECRET, FORMER_SECRET = ("whsec_" + base64.b64encode(planted_key(label)).decode() for label in ("crowd", "former"))


class Reply(NamedTuple):
    """How one try is answered."""

    status: int
    after_seconds: float = 0.0
    location: str | None = None


Behaviour = Callable[["Hook", str], Reply]
"""Called with the endpoint and the id of the delivery, which is counted in ``tries`` already."""


class Hook:
    """One endpoint; ``behave`` may be replaced at any time."""

    def __init__(self, behave: Behaviour, secrets: Sequence[str]) -> None:
        self.behave = behave
        self._verifiers = [Webhook(secret) for secret in secrets]
        self.port = 0
        self.tries: Counter[str] = Counter()
        """By id, whatever was answered."""
        self.taken: set[str] = set()
        """Ids of those that were answered with 2xx."""
        self.faults: list[str] = []
        """Of what should not have come."""
        self._bodies: dict[str, int] = {}
        self.transports: set[asyncio.Transport] = set()
        """Of connections that are open."""
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def received(self, transport: asyncio.Transport, headers: dict[str, str], body: bytes) -> None:
        """One try has come."""
        event_id = headers.get("webhook-id", "")
        for verifier in self._verifiers:
            try:
                verifier.verify(body, headers, json_parse=False)
            except WebhookVerificationError as error:
                self.faults.append(f"{event_id}: {error}")
        if self._bodies.setdefault(event_id, hash(body)) != hash(body):
            self.faults.append(f"{event_id}: another body than the try before")
        self.tries[event_id] += 1
        reply = self.behave(self, event_id)
        if not reply.after_seconds:
            self._answer(transport, event_id, reply)
            return
        timer = asyncio.get_running_loop().call_later(reply.after_seconds, self._answer, transport, event_id, reply)
        self._timers.append(timer)

    async def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for transport in tuple(self.transports):
            transport.abort()
        while self.transports:
            await asyncio.sleep(0)

    def _answer(self, transport: asyncio.Transport, event_id: str, reply: Reply) -> None:
        if transport.is_closing():
            return
        location = f"location: {reply.location}\r\n" if reply.location else ""
        transport.write(f"HTTP/1.1 {reply.status} Said\r\n{location}content-length: 0\r\n\r\n".encode())
        if 200 <= reply.status < 300:
            self.taken.add(event_id)


class _Connection(asyncio.Protocol):
    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._hook.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hook.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            lines = head.decode("latin-1").split("\r\n")[1:]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers["content-length"])
            if len(rest) < length:
                return
            self._data = rest[length:]
            self._hook.received(self._transport, headers, rest[:length])


@asynccontextmanager
async def hook(behave: Behaviour, secrets: Sequence[str] = (SECRET,)) -> AsyncIterator[Hook]:
    """A running endpoint. What comes must be signed by each of ``secrets``."""
    made = Hook(behave, secrets)
    listener = await asyncio.get_running_loop().create_server(lambda: _Connection(made), "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
        await made.close()
        await listener.wait_closed()


def takes(_hook: Hook, _event_id: str) -> Reply:
    """Answers all at once, and well."""
    return Reply(204)


class Slow:
    """Takes each after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, _hook: Hook, _event_id: str) -> Reply:
        return Reply(204, self.seconds)


class Flaky:
    """Refuses the first tries of all, and of each tenth delivery the first as long as it ``refuses``; takes the rest."""

    def __init__(self, first: int) -> None:
        self.refuses = True
        self._first = first
        self._tries = 0

    def __call__(self, hook: Hook, event_id: str) -> Reply:
        self._tries += 1
        refused = self._tries <= self._first or (len(hook.tries) % 10 == 0 and hook.tries[event_id] == 1)
        return Reply(503 if refused and self.refuses else 200)


def always(status: int, location: str | None = None) -> Behaviour:
    """Answers all alike."""
    reply = Reply(status, 0.0, location)
    return lambda _hook, _event_id: reply
