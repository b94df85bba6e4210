"""Whoever does not read holds up the one who sends, not the gateway: its memory stays flat, in both directions."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator

from core.tasks import Tasks
from proxy import handlers
from tests.gateway_process import TOKEN, Gateway, until
from tests.integration.conftest import StartGateway
from tests.provider import Call, provider
from transport.outflow import HIGH_MARK_BYTES

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE

PEERS = 100
READ_BYTES = 256 * KIBIBYTE
"""What uvloop takes from a socket at once."""
HELD_BYTES = HIGH_MARK_BYTES + READ_BYTES
"""What waits for a reader that has stopped: what is below the mark, and the read that exceeds it."""
STREAM_BYTES = HELD_BYTES + 24 * KIBIBYTE
"""A stream that is held up: what waits, and what an open stream costs."""
UPLOAD_HELD_BYTES = handlers._BUFFER_BYTES + READ_BYTES + READ_BYTES + HELD_BYTES
"""An upload that is held up: what is below the exchange's mark and the read that exceeds it, the piece that is on its way
from there, and what waits for the provider."""
ALLOCATED = 2
"""The allocator keeps gaps between buffers of changing sizes: measured, a fifth to a half of what is in use."""
FLAT_BYTES = 4 * MEBIBYTE
"""What memory may drift by while nothing moves."""
STUCK = 0.05
"""The share of what would be sent in a second that still is when all buffers are full."""
STILL_SECONDS = 3.0
"""They are when nothing is sent for so long: a machine that only stands still for a while goes on before."""
FILL_SECONDS = 100.0
"""The longest that a slow machine may take to fill them."""
MOST_BYTES = 4096 * MEBIBYTE
"""More than they hold all together: whoever gets rid of so much is not held up."""
PER_SECOND_BYTES = 10_000_000

EVENT = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 8000}}]}).encode() + b"\n\n"
EVENTS = 8
BLOCK = EVENTS * (b"%x\r\n%s\r\n" % (len(EVENT), EVENT))


class Flood:
    """A provider that streams 10 MB/s at each client until it is told to stop, and counts what it got rid of."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.open = 0
        self.stopping = False

    async def behave(self, call: Call) -> None:
        await call.body()
        await call.stream()
        self.open += 1
        while not self.stopping:
            await call.send(BLOCK)
            self.sent_bytes += EVENTS * len(EVENT)
            await asyncio.sleep(len(BLOCK) / PER_SECOND_BYTES)
        await call.end()


def config(entry: str) -> str:
    # Without the ledger, whose first row brings in what a database needs, at some time.
    # Whoever is held up stays so for as long as the machine takes.
    patient = "server: {send_idle_seconds: 600, body_idle_seconds: 600}"
    return f"{patient}\nusage: {{ledger: false}}\nproviders: [{entry}]"


def request(path: str, content_type: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: {content_type}\r\n"
        f"x-sluice-provider: real\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


CHAT = json.dumps({"model": "real/m", "stream": True, "messages": [{"role": "user", "content": "go on"}]}).encode()


@contextlib.contextmanager
def silent_clients(gateway: Gateway) -> Iterator[list[socket.socket]]:
    """Clients that have asked for a stream, and read nothing of it yet."""
    with contextlib.ExitStack() as opened:
        clients = []
        for _ in range(PEERS):
            client = opened.enter_context(socket.socket())
            # The system's own buffers are not the gateway's: small ones are full the sooner.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIBIBYTE)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect((gateway.host, gateway.port))
            clients.append(client)
        yield clients


async def settled(sent_bytes: Callable[[], int]) -> int:
    """What had been sent when it did not go on, which is when all buffers are full."""
    deadline = asyncio.get_running_loop().time() + FILL_SECONDS
    sent, still = sent_bytes(), 0
    while still < STILL_SECONDS / 0.25:
        assert sent < MOST_BYTES, "the sender is not held up"
        assert asyncio.get_running_loop().time() < deadline, f"it still goes on after {FILL_SECONDS:g} s: {sent}"
        await asyncio.sleep(0.25)
        sent, before = sent_bytes(), sent
        still = still + 1 if sent == before else 0
    return sent


async def whole(client: socket.socket) -> int:
    """How many bytes are answered, to the end of the stream."""
    loop = asyncio.get_running_loop()
    count, tail = 0, b""
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        data = await loop.sock_recv(client, READ_BYTES)
        assert data, (count, tail)
        count += len(data)
        tail = (tail + data)[-16:]
    return count


async def test_a_hundred_clients_that_stop_reading_cost_their_marks_and_no_more(start_gateway: StartGateway) -> None:
    flood = Flood()
    loop = asyncio.get_running_loop()
    async with provider(flood.behave) as real:
        gateway = await asyncio.to_thread(start_gateway, config(real.entry()), measured=True)
        before = gateway.memory_bytes()
        with silent_clients(gateway) as clients:
            for client in clients:
                await loop.sock_sendall(client, request("/v1/chat/completions", "application/json", len(CHAT)) + CHAT)
            await until(lambda: flood.open == PEERS, what="every stream")
            sent = await settled(lambda: flood.sent_bytes)
            when_full = gateway.memory_bytes()
            most = when_full
            for _ in range(10):
                await asyncio.sleep(0.1)
                most = max(most, gateway.memory_bytes())
            # What went on was the system's to buffer; held up, the provider gets rid of nothing more.
            stuck = flood.sent_bytes - sent
            # Nobody else waits for them.
            answer = await asyncio.to_thread(gateway.request, "GET", "/v1/models")
            flood.stopping = True
            received = await asyncio.gather(*map(whole, clients))
        await until(lambda: gateway.metric("sluice_requests_in_flight") == 0, what="the end of all streams")
        print(
            f"\n{PEERS} streams: {sent / MEBIBYTE:.0f} MiB sent until all was full, {stuck / MEBIBYTE:.1f} MiB in the "
            f"next second; memory grew by {(when_full - before) / MEBIBYTE:.1f} MiB, and then by "
            f"{(most - when_full) / MEBIBYTE:.1f} MiB"
        )
    assert 200 == answer.status
    assert stuck < STUCK * PEERS * PER_SECOND_BYTES
    assert most - before < ALLOCATED * PEERS * STREAM_BYTES
    assert most - when_full < FLAT_BYTES
    # Held up is not lost: all events came, and their framing.
    assert sum(received) >= flood.sent_bytes


class Pit:
    """A provider that reads the head of an upload, and its body when it is told to."""

    def __init__(self) -> None:
        self.open = 0
        self.reads = asyncio.Event()
        self.lengths: list[int] = []

    async def behave(self, call: Call) -> None:
        self.open += 1
        await self.reads.wait()
        self.lengths.append(sum([len(piece) async for piece in call.pieces()]))
        await call.answer({"id": "file-1"})


UPLOADS = 20
UPLOAD_BYTES = 32 * MEBIBYTE
"""More than the system buffers on both sides of the gateway."""


class Uploader:
    """Clients that send as fast as they can, and count what they got rid of."""

    def __init__(self) -> None:
        self.sent_bytes = 0

    async def send(self, gateway: Gateway) -> bytes:
        """The status line of the answer."""
        loop = asyncio.get_running_loop()
        piece = bytes(READ_BYTES)
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, (gateway.host, gateway.port))
            await loop.sock_sendall(client, request("/v1/files", "multipart/form-data; boundary=b", UPLOAD_BYTES))
            for _ in range(UPLOAD_BYTES // len(piece)):
                await loop.sock_sendall(client, piece)
                self.sent_bytes += len(piece)
            return (await loop.sock_recv(client, 4096)).partition(b"\r\n")[0]


async def test_uploads_to_a_provider_that_stops_reading_cost_their_marks_and_no_more(
    start_gateway: StartGateway,
) -> None:
    pit, uploader, tasks = Pit(), Uploader(), Tasks()
    async with provider(pit.behave) as real:
        gateway = await asyncio.to_thread(start_gateway, config(real.entry()), measured=True)
        before = most = gateway.memory_bytes()
        try:
            uploads = [tasks.spawn(uploader.send(gateway), "upload") for _ in range(UPLOADS)]
            await until(lambda: pit.open == UPLOADS, what="every upload")
            sent = await settled(lambda: uploader.sent_bytes)
            when_full = gateway.memory_bytes()
            for _ in range(10):
                await asyncio.sleep(0.1)
                most = max(most, gateway.memory_bytes())
            stuck = uploader.sent_bytes - sent
            answer = await asyncio.to_thread(gateway.request, "GET", "/v1/models")
            pit.reads.set()
            statuses = await asyncio.gather(*uploads)
        finally:
            await tasks.cancel()
        print(
            f"\n{UPLOADS} uploads: {sent / MEBIBYTE:.0f} MiB sent until all was full, {stuck / MEBIBYTE:.1f} MiB in the "
            f"next second; memory grew by {(when_full - before) / MEBIBYTE:.1f} MiB, and then by "
            f"{(most - when_full) / MEBIBYTE:.1f} MiB"
        )
    assert 200 == answer.status
    # Held up: by far not all was sent, and in the end nothing more.
    assert sent < 0.8 * UPLOADS * UPLOAD_BYTES
    assert stuck < STUCK * UPLOADS * UPLOAD_BYTES
    assert most - before < ALLOCATED * UPLOADS * UPLOAD_HELD_BYTES
    assert most - when_full < FLAT_BYTES
    assert [b"HTTP/1.1 200 OK"] * UPLOADS == statuses
    assert [UPLOAD_BYTES] * UPLOADS == pit.lengths
