"""A provider on a real socket that does, byte by byte, what a test says, and remembers what it was sent."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from core.tasks import Tasks
from tests.ports import free_port as free_port  # noqa: PLC0414  for a provider that comes and goes

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


class Call:
    """One request as the provider sees it, and the means to answer it."""

    def __init__(self, number: int, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.number = number
        """From 1, over all connections."""
        self.method, self.path, _ = lines[0].split(" ", 2)
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        """Names in lower case."""
        self.content = b""
        """The body, as far as :meth:`body` has read it."""
        self._reader = reader
        self._writer = writer

    @property
    def transport(self) -> asyncio.WriteTransport:
        return self._writer.transport

    def json(self) -> Any:
        return json.loads(self.content)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, without its framing."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readline(), 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readline()
            return
        left = int(self.headers.get("content-length", "0"))
        while left:
            piece = await self._reader.read(min(left, 65536))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece

    async def body(self) -> bytes:
        """The body whole; it is in ``content`` from then on."""
        self.content = b"".join([piece async for piece in self.pieces()])
        return self.content

    async def send(self, data: bytes) -> None:
        """Write ``data`` as it is, and wait while the other side does not take it."""
        if self._writer.transport.is_closing():
            # uvloop would say it with a RuntimeError.
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    async def answer(
        self, body: object = b"", status: int = 200, headers: dict[str, str] | None = None, *, cut_to: int | None = None
    ) -> None:
        """A whole answer; ``body`` other than bytes is JSON. ``cut_to`` bytes of it are sent, and then the end."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        await self.send(_head(status, fields) + content[:cut_to])
        if cut_to is not None:
            self._writer.close()

    async def stream(self) -> None:
        """The head of a stream of events; :meth:`event` sends them."""
        await self.send(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))

    async def event(self, data: object) -> None:
        """One event; ``data`` other than bytes is a chunk of a chat completion that says it."""
        content = data if isinstance(data, bytes) else b"data: " + json.dumps(said(str(data))).encode() + b"\n\n"
        await self.send(b"%x\r\n%s\r\n" % (len(content), content))

    async def end(self) -> None:
        """The end of a stream that is complete."""
        await self.event(b"data: " + json.dumps(said("", "stop")).encode() + b"\n\n")
        await self.event(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Return when the other side has closed the connection."""
        with contextlib.suppress(OSError):
            while await self._reader.read(65536):
                pass

    def close(self) -> None:
        """End the connection after what was written."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection with a reset."""
        self._writer.transport.abort()


def _head(status: int, fields: dict[str, str]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Some')}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def said(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    """A chunk of a chat completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "real", "choices": [choice]}


def completion(text: str) -> dict[str, Any]:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "real",
        "choices": [choice],
        "usage": usage,
    }


def error(code: str) -> dict[str, Any]:
    """An error in OpenAI's envelope."""
    return {"error": {"message": "Said by the provider.", "type": "invalid_request_error", "param": None, "code": code}}


def entry(port: int, name: str = "real", extra: str = "") -> str:
    """The entry of ``providers:`` for a provider on ``port``, with further keys as ``extra``."""
    return f"{{name: {name}, type: openai-compatible, base_url: http://127.0.0.1:{port}/v1{extra and ', '}{extra}}}"


Behaviour = Callable[[Call], Awaitable[None]]


class Provider:
    """A running provider; ``behave`` may be replaced between requests."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.calls: list[Call] = []
        self.port = 0

    def entry(self, name: str = "real", extra: str = "") -> str:
        """See :func:`entry`."""
        return entry(self.port, name, extra)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests from one connection until it ends."""
        try:
            while not writer.transport.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                call = Call(len(self.calls) + 1, head[:-4], reader, writer)
                self.calls.append(call)
                await self.behave(call)
        except (OSError, asyncio.IncompleteReadError):
            pass  # The other side has gone: its right.
        finally:
            writer.close()


@asynccontextmanager
async def provider(behave: Behaviour, port: int = 0) -> AsyncIterator[Provider]:
    """Run a provider that answers each request by ``behave`` until the block is left."""
    running = Provider(behave)
    tasks = Tasks()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.spawn(running.serve(reader, writer), "connection")

    listener = await asyncio.start_server(connected, "127.0.0.1", port)
    running.port = listener.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()
