"""Clients that ask what is planned, many at once, and write down what came of it."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from core.tasks import Tasks
from tests.agreement.plan import LEAVING, Asked, Kind
from tests.agreement.provider import LEFT_AFTER, NUMBER, Tally
from tests.gateway_process import Gateway
from tests.wire import Answer, Client

AT_ONCE = 48
_CHAT, _RESPONSES, _EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
_PATHS = {Kind.RESPONSE: _RESPONSES, Kind.RESPONSE_STREAM: _RESPONSES, Kind.EMBEDDING: _EMBEDDINGS}
_LAST_ERROR = re.compile(rb'data: \{"error":.*"code":"([a-z_]+)"\}\}\n\n\Z')
_SHOWN_USAGE = re.compile(rb'"usage": ?\{')


@dataclass(frozen=True)
class Heard:
    """What a client knows of its request. Times are by `time.monotonic`."""

    ended: float
    """When it had the answer, or left."""
    began: float = 0.0
    run: int = 0
    """Which of the gateways was asked, from 0, where one was started after the other."""
    status: int | None = None
    """None: it left before there was any, or was cut off."""
    request_id: str | None = None
    code: str | None = None
    """Of the error that it was told, in a stream too."""
    attempts: int | None = None
    """By the field of the answer that tells them."""
    target: str | None = None
    shows_usage: bool = False
    cut_off: bool = False
    """The gateway was gone before the end."""


def messages_of(asked: Asked) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked.prompt}]


def _body(asked: Asked) -> bytes:
    if asked.kind is Kind.MALFORMED:
        return b'{"model": '
    body: dict[str, object] = {"model": asked.model}
    if asked.kind in _PATHS:
        body["input"] = asked.prompt
    else:
        body["messages"] = messages_of(asked)
    if asked.stream:
        body["stream"] = True
    if asked.kind is Kind.STREAM:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


class Clients:
    """They share the requests of one plan; what they have heard is by the number of the request."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        """Tells when a request has reached the provider."""
        self.heard: dict[int, Heard] = {}
        self.run = 0
        """See :class:`Heard`."""
        self.killed = asyncio.Event()
        """The gateway was: connections may break from then on."""

    async def ask(self, running: Gateway, wanted: Iterator[Asked], at_once: int = AT_ONCE) -> None:
        """Until nothing more is wanted, or the gateway is gone."""
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(self._ask(running, wanted))

    async def _ask(self, running: Gateway, wanted: Iterator[Asked]) -> None:
        """One client with one connection, as long as that is good."""
        client: Client | None = None
        try:
            while not self.killed.is_set() and (asked := next(wanted, None)) is not None:
                began = time.monotonic()
                try:
                    if client is None:
                        client = Client(*await asyncio.open_connection(running.host, running.port, limit=1 << 20))
                    heard = await self._exchange(client, asked)
                    closed = asked.kind in LEAVING or asked.kind is Kind.CLOSED
                except (OSError, EOFError):
                    if not self.killed.is_set():
                        raise
                    heard, closed = Heard(time.monotonic(), cut_off=True), True
                self.heard[asked.number] = replace(heard, began=began, run=self.run)
                if closed and client is not None:
                    client.writer.close()
                    client = None
        finally:
            if client is not None:
                client.writer.close()

    async def _exchange(self, client: Client, asked: Asked) -> Heard:
        client.send(_request(asked))
        if asked.kind is Kind.LEFT:
            await _first(self._tally.arrived[asked.number], client.reader)
        elif asked.kind is Kind.LEFT_STREAM:
            return await _first_events(client)
        if asked.kind in LEAVING:
            return Heard(time.monotonic())
        return _heard(await client.answer(), asked)


def _request(asked: Asked) -> bytes:
    body = b"" if asked.kind is Kind.LISTED else _body(asked)
    path = "/v1/models" if asked.kind is Kind.LISTED else _PATHS.get(asked.kind, _CHAT)
    head = (
        f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {asked.token.text}\r\n"
        f"content-type: application/json\r\nx-request-id: client-{asked.number}\r\n{NUMBER}: {asked.number}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    if asked.kind is Kind.LEFT_BODY:
        body = body[: len(body) // 2]
    return head.encode() + body


def _heard(answer: Answer, asked: Asked) -> Heard:
    now = time.monotonic()
    code = None
    if answer.status >= 400:
        code = str(json.loads(answer.body)["error"]["code"])
    elif asked.stream and (found := _LAST_ERROR.search(answer.body)):
        code = found[1].decode()
    attempts = answer.headers.get("x-sluice-attempts")
    return Heard(
        now,
        status=answer.status,
        request_id=answer.headers["x-request-id"],
        code=code,
        attempts=None if attempts is None else int(attempts),
        target=answer.headers.get("x-sluice-target"),
        shows_usage=_SHOWN_USAGE.search(answer.body) is not None,
    )


async def _first_events(client: Client) -> Heard:
    """A stream as far as it comes before the client has enough of it."""
    async with asyncio.timeout(60):
        answer = await client.answer(head_only=True)
        data = b""
        while data.count(b"data: ") < LEFT_AFTER or not data.endswith(b"\r\n"):
            piece = await client.reader.read(65536)
            if not piece:
                raise EOFError("the stream ended before its client left")
            data += piece
    return Heard(time.monotonic(), status=answer.status, request_id=answer.headers["x-request-id"])


async def _first(event: asyncio.Event, reader: asyncio.StreamReader) -> None:
    """Until ``event`` is there.

    Raises:
        EOFError: the connection has ended before.
    """

    async def end() -> None:
        with contextlib.suppress(OSError):
            await reader.read(1)

    tasks = Tasks()
    happening = tasks.spawn(event.wait(), "event")
    try:
        await asyncio.wait({happening, tasks.spawn(end(), "end")}, return_when=asyncio.FIRST_COMPLETED)
        if not happening.done():
            raise EOFError("the gateway has gone")
    finally:
        await tasks.cancel()


async def while_asking(
    clients: Clients, running: Gateway, wanted: Iterator[Asked], act: Callable[[], Awaitable[None]]
) -> None:
    """``act`` while the clients ask; returns when they have no more to ask."""
    tasks = Tasks()
    asking = tasks.spawn(clients.ask(running, wanted), "clients")
    try:
        await act()
        await asking
    finally:
        await tasks.cancel()
