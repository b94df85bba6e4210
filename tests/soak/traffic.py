"""Clients of every kind, each asking again and again, and what should have been otherwise."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from tests.gateway_process import ADMIN_KEY, TOKEN, Gateway
from tests.soak import provider
from tests.wire import Client

PAUSE_SECONDS = 0.005
UPLOAD_BYTES = 256 * 1024
PIPELINED = 5
MALFORMED = {
    # request: status of the refusal, after which the connection is closed
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab": 400,
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n": 501,
    b"GET / HTTP/1.1\nHost: a\n\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n": 400,
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n": 505,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": 400,
    b"GET /" + bytes([0x61]) * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 414,
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n": 431,
}

JSON = {"content-type": "application/json"}

Kind = Callable[[], Awaitable[None]]


class Traffic:
    """Of one phase: its clients, and the connections that they keep, end with :meth:`run`."""

    def __init__(self, running: Gateway) -> None:
        self.running = running
        self.asked: Counter[str] = Counter()
        self.failures: list[str] = []
        self._session: aiohttp.ClientSession
        self._well = itertools.cycle(provider.WELL)
        self._fails = itertools.cycle(provider.FAILING)
        self._refusals = itertools.cycle(MALFORMED)

    async def run(self, clients_a_kind: int, seconds: float) -> None:
        """Ask for ``seconds``."""
        end = asyncio.get_running_loop().time() + seconds
        async with self._connected(), asyncio.TaskGroup() as group:
            for kind in self._kinds():
                for _ in range(clients_a_kind):
                    group.create_task(self._repeat(kind, lambda _: asyncio.get_running_loop().time() < end))

    async def run_times(self, times: int) -> None:
        """Ask for each kind as often."""
        async with self._connected(), asyncio.TaskGroup() as group:
            for kind in self._kinds():
                group.create_task(self._repeat(kind, lambda asked: asked < times))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        fields = {"authorization": f"Bearer {TOKEN}"}
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(headers=fields, timeout=timeout) as self._session:
            yield

    def _kinds(self) -> tuple[Kind, ...]:
        return (
            self._rehearsed,
            self._rehearsed_stream,
            self._rehearsed_refusal,
            self._rehearsed_cut,
            self._json,
            self._stream,
            self._half_a_stream,
            self._failing,
            self._upload,
            self._left_stream,
            self._left_upload,
            self._left_head,
            self._pipelined,
            self._malformed,
            self._management,
        )

    async def _repeat(self, kind: Kind, goes_on: Callable[[int], bool]) -> None:
        """``goes_on`` is asked with the number of times so far."""
        name = kind.__name__.strip("_")
        times = 0
        while goes_on(times):
            try:
                await kind()
            except (aiohttp.ClientError, OSError, EOFError, TimeoutError, AssertionError) as error:
                self.failures.append(f"{name}: {error!r}"[:400])
            times += 1
            self.asked[name] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    def _chat(self, model: str, *, stream: bool = False) -> "aiohttp.client._RequestContextManager":
        return self._session.post(
            f"{self.running.base_url}/chat/completions", data=_chat(model, stream=stream), headers=JSON
        )

    @asynccontextmanager
    async def _bare(self) -> AsyncIterator[Client]:
        async with self.running.connect() as (reader, writer):
            yield Client(reader, writer)

    # By the echo provider, which is a part of the gateway.

    async def _rehearsed(self) -> None:
        async with self._chat("echo/steady") as answer:
            assert 200 == answer.status, await answer.read()

    async def _rehearsed_stream(self) -> None:
        async with self._chat("echo/steady", stream=True) as answer:
            content = await answer.read()
            assert content.endswith(b"data: [DONE]\n\n"), (answer.status, content[-200:])

    async def _rehearsed_refusal(self) -> None:
        async with self._chat("echo/status-400") as answer:
            assert 400 == answer.status, await answer.read()

    async def _rehearsed_cut(self) -> None:
        """A stream that the provider cuts is an error for its reader, in whichever form."""
        await self._broken("echo/cut")

    # By a provider on a socket.

    async def _json(self) -> None:
        async with self._chat(f"real/{next(self._well)}") as answer:
            content = await answer.read()
            assert (200, "chat.completion") == (answer.status, json.loads(content)["object"]), content[:200]

    async def _stream(self) -> None:
        async with self._chat(f"real/{provider.STREAM}", stream=True) as answer:
            content = await answer.read()
            assert content.count(b"data: ") == provider.EVENTS + 2, (answer.status, content[-200:])
            assert content.endswith(b"data: [DONE]\n\n"), content[-200:]

    async def _half_a_stream(self) -> None:
        await self._broken(f"real/{provider.HALF_STREAM}")

    async def _failing(self) -> None:
        model = next(self._fails)
        async with self._chat(f"real/{model}") as answer:
            content = await answer.read()
            assert (provider.FAILING[model][1], True) == (answer.status, "error" in json.loads(content)), (
                model,
                content,
            )

    async def _upload(self) -> None:
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", bytes(UPLOAD_BYTES), filename="zeros.bin")
        named = {"x-sluice-provider": "real"}
        async with self._session.post(f"{self.running.base_url}/files", data=form, headers=named) as answer:
            content = await answer.read()
            assert 200 == answer.status, content
            assert int(json.loads(content)["id"].removeprefix("file-")) > UPLOAD_BYTES, content

    async def _broken(self, model: str) -> None:
        try:
            async with self._chat(model, stream=True) as answer:
                content = await answer.read()
        except aiohttp.ClientPayloadError:
            return
        assert b"[DONE]" not in content, content[-200:]
        assert b"error" in content, content[-200:]

    # By clients that go, send much at once, or are none.

    async def _left_stream(self) -> None:
        async with self._chat(f"real/{provider.STREAM}", stream=True) as answer:
            await answer.content.readany()
            answer.close()

    async def _left_upload(self) -> None:
        async with self._bare() as client:
            fields = "content-type: multipart/form-data; boundary=b\r\nx-sluice-provider: real\r\n"
            client.send(_head("POST", "/v1/files", UPLOAD_BYTES, fields), bytes(UPLOAD_BYTES // 2))
            await asyncio.sleep(0.02)

    async def _left_head(self) -> None:
        async with self._bare() as client:
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: gate")
            await asyncio.sleep(0.2)

    async def _pipelined(self) -> None:
        async with self._bare() as client:
            body = _chat("echo/steady")
            chat = _head("POST", "/v1/chat/completions", len(body), "content-type: application/json\r\n") + body
            client.send((chat + _head("GET", "/v1/models") + _head("GET", "/healthz")) * PIPELINED)
            for _ in range(PIPELINED):
                answers = [await client.answer() for _ in range(3)]
                assert [200] * 3 == [answer.status for answer in answers]
                kinds = [json.loads(answer.body).get("object") for answer in answers]
                assert ["chat.completion", "list", None] == kinds, kinds

    async def _malformed(self) -> None:
        request = next(self._refusals)
        async with self._bare() as client:
            client.send(request)
            assert MALFORMED[request] == (await client.answer()).status, request[:80]
            assert b"" == await client.rest()

    async def _management(self) -> None:
        await asyncio.sleep(0.1)
        for path in ("/metrics", "/api/v1/health"):
            key = {"authorization": f"Bearer {ADMIN_KEY}"}
            async with self._session.get(f"{self.running.url}{path}", headers=key) as answer:
                assert 200 == answer.status, await answer.read()


def _chat(model: str, *, stream: bool = False) -> bytes:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three " * 20}]}
    return json.dumps(body).encode()


def _head(method: str, path: str, length: int = 0, fields: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {TOKEN}\r\n{fields}"
    return f"{head}content-length: {length}\r\n\r\n".encode()
