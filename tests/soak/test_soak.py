"""Hours in minutes: mixed traffic and a reload every second, and afterwards nothing is left of it (`make soak`)."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from core.tasks import Tasks
from tests.gateway_process import TOKEN, Gateway, document, gateway, until

SECONDS = float(os.environ.get("SOAK_SECONDS", "180"))
WARM_SECONDS = max(SECONDS / 4, 5.0)
CLIENTS_PER_KIND = 2
MAX_GROWTH_BYTES = 24 * 1024 * 1024

CONFIG = """
providers:
  - {{name: echo, type: echo, options: {{interval_seconds: 0.002}}}}
routes:
  - {{name: r{number}, match: {{model: "*"}}, targets: ["echo/*"]}}
"""


def config(number: int) -> str:
    return document(CONFIG.format(number=number))


def footprint(running: Gateway) -> tuple[int, int]:
    """Open file descriptors and threads (proc(5))."""
    process = Path(f"/proc/{running.process.pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


class Traffic:
    """Clients of several kinds, each asking again and again, and what should have been otherwise."""

    def __init__(self, running: Gateway, session: aiohttp.ClientSession) -> None:
        self.running = running
        self.session = session
        self.asked: Counter[str] = Counter()
        self.failures: list[str] = []
        self.stopping = False
        self.kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._plain,
            self._stream,
            self._refused,
            self._cut,
            self._leave,
            self._upload,
        )

    async def run(self, kind: Callable[[], Awaitable[None]]) -> None:
        name = kind.__name__.strip("_")
        while not self.stopping:
            try:
                await kind()
            except (aiohttp.ClientError, TimeoutError, AssertionError) as error:
                self.failures.append(f"{name}: {error!r}"[:400])
            self.asked[name] += 1
            await asyncio.sleep(0.005)

    def _chat(self, model: str, *, stream: bool = False) -> "aiohttp.client._RequestContextManager":
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three " * 20}]}
        return self.session.post(f"{self.running.base_url}/chat/completions", json=body)

    async def _plain(self) -> None:
        async with self._chat("steady") as answer:
            content = await answer.read()
            assert 200 == answer.status, content

    async def _stream(self) -> None:
        async with self._chat("steady", stream=True) as answer:
            content = await answer.read()
            assert content.endswith(b"data: [DONE]\n\n"), (answer.status, content[-200:])

    async def _refused(self) -> None:
        async with self._chat("status-400") as answer:
            content = await answer.read()
            assert 400 == answer.status, content

    async def _cut(self) -> None:
        """A stream that the provider cuts is an error for its reader, in whichever form."""
        try:
            async with self._chat("cut", stream=True) as answer:
                content = await answer.read()
        except aiohttp.ClientPayloadError:
            return
        assert b"[DONE]" not in content, content[-200:]

    async def _leave(self) -> None:
        async with self._chat("steady", stream=True) as answer:
            await answer.content.readany()
            answer.close()

    async def _upload(self) -> None:
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", bytes(256 * 1024), filename="zeros.bin")
        named = {"x-sluice-provider": "echo"}
        async with self.session.post(f"{self.running.base_url}/files", data=form, headers=named) as answer:
            content = await answer.read()
            assert 200 == answer.status, content


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    fields = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=fields, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def settled(running: Gateway) -> tuple[int, int]:
    """The footprint once nothing is in flight."""
    await until(lambda: running.metric("sluice_requests_in_flight") == 0, 20, "the end of all requests")
    await asyncio.sleep(1)
    return footprint(running)


@pytest.mark.soak
@pytest.mark.timeout(WARM_SECONDS + SECONDS + 120)
async def test_after_long_mixed_traffic_and_many_reloads_nothing_is_left(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with gateway(config(0), tmp_path, measured=True) as running:
        # These go by the echo provider's faults: nothing else may be told.
        running.expect_log("Rehearsed|ended before the answer was complete")
        traffic = Traffic(running, session)
        tasks = Tasks()

        async def load(seconds: float, first: int) -> int:
            traffic.stopping = False
            clients = [
                tasks.spawn(traffic.run(kind), kind.__name__) for kind in traffic.kinds for _ in range(CLIENTS_PER_KIND)
            ]
            for number in range(first, first + max(int(seconds), 1)):
                new = running.config.with_name("new.yaml")
                new.write_text(config(number))
                new.replace(running.config)
                await asyncio.sleep(1)
            traffic.stopping = True
            await asyncio.gather(*clients)
            return first + max(int(seconds), 1)

        try:
            number = await load(WARM_SECONDS, 1)
            warm, memory = await settled(running), running.memory_bytes()
            number = await load(SECONDS, number)
            after = await settled(running)
        finally:
            traffic.stopping = True
            await tasks.cancel()
        grown = running.memory_bytes() - memory
        applied = running.metric("sluice_config_reloads_total", result="applied")
        print(
            f"\n{dict(traffic.asked)}, {applied:g} reloads; {warm} -> {after}; memory grew by {grown / 2**20:.1f} MiB"
        )
        assert [] == traffic.failures[:10]
        assert applied >= 0.9 * (number - 1)
        # Connections that the clients keep come and go; a leak would be one a request or a reload.
        assert after[0] <= warm[0] + len(traffic.kinds) * CLIENTS_PER_KIND, "file descriptors are left open"
        assert after[1] <= warm[1] + 2, "threads are left running"
        assert grown < MAX_GROWTH_BYTES
