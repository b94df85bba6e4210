"""Clients that leave, read slowly or do not read at all; and how much later a first token is for the gateway's part."""

import asyncio
import json
import time

import pytest

from tests.gateway_process import TOKEN, Gateway, connection, until
from tests.integration.conftest import StartGateway
from tests.provider import Call, provider

NOTICED_SECONDS = 0.1
TRIES = 5
"""Of one of them at least the time is the gateway's alone, and not that of a machine which does something else."""
TTFT_SECONDS = 0.002
SIMPLEST = 10
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PAD = b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 65000}}]}).encode() + b"\n\n"
MEBIBYTE = 1 << 20


def request(body: object, path: str = "/v1/chat/completions") -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n"
    )
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


STREAM = request({"model": "real/model", "stream": True, "messages": [{"role": "user", "content": "?"}]})
WHOLE = request({"model": "real/model", "messages": [{"role": "user", "content": "?"}]})


class Watched:
    """A behaviour that notices when the gateway hangs up."""

    def __init__(self, *, begins: bool) -> None:
        self.begins = begins
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone_at = 0.0

    async def __call__(self, call: Call) -> None:
        await call.body()
        if self.begins:
            await call.stream()
            await call.event("begun")
        self.asked.set()
        await call.gone()
        self.gone_at = time.monotonic()
        self.gone.set()


@pytest.mark.parametrize("goodbye", ["close", "reset"])
@pytest.mark.parametrize(
    ("begins", "sent"),
    [(True, STREAM), (False, STREAM), (False, WHOLE)],
    ids=["mid-stream", "before the head", "whole"],
)
async def test_a_client_that_leaves_cancels_the_upstream_within_100_ms(
    start_gateway: StartGateway, begins: bool, sent: bytes, goodbye: str
) -> None:
    watched = Watched(begins=begins)
    async with provider(watched) as real:
        gateway = await asyncio.to_thread(start_gateway, f"providers: [{real.entry()}]\n")
        taken: list[float] = []
        while len(taken) < TRIES and not (taken and min(taken) < NOTICED_SECONDS):
            taken.append(await _seconds_until_noticed(gateway, watched, sent, goodbye))
        assert min(taken) < NOTICED_SECONDS, taken
        await until(lambda: len(gateway.access_log()) == len(taken))
        line = gateway.access_log()[-1]
        assert (200 if begins else 499, "client_closed") == (line["status"], line["error_code"])
        await until(lambda: gateway.metric("sluice_requests_in_flight") == 0)
        print(f"\nthe provider was told {1000 * min(taken):.1f} ms after the client left")


async def _seconds_until_noticed(gateway: Gateway, watched: Watched, sent: bytes, goodbye: str) -> float:
    """From a client's leaving until the provider of its request knows."""
    watched.asked.clear()
    watched.gone.clear()
    async with gateway.connect() as (reader, writer):
        writer.write(sent)
        await watched.asked.wait()
        if watched.begins:
            await reader.readuntil(b"begun")
        left_at = time.monotonic()
        if goodbye == "reset":
            writer.transport.abort()
        else:
            writer.close()
        async with asyncio.timeout(60):
            await watched.gone.wait()
    return watched.gone_at - left_at


async def test_a_client_that_does_not_read_stops_the_provider_and_costs_no_memory(start_gateway: StartGateway) -> None:
    written = [0, 0]  # for each of two streams

    async def pours(call: Call) -> None:
        await call.body()
        await call.stream()
        for _ in range(64 * MEBIBYTE // len(PAD)):
            await call.event(PAD)
            written[call.number - 1] += len(PAD)
        await call.end()

    async with provider(pours) as real:
        # Without the ledger, whose first row brings in what a database needs, at some time.
        config = f"usage: {{ledger: false}}\nproviders: [{real.entry()}]\n"
        gateway = await asyncio.to_thread(start_gateway, config)
        # Warm: what one stream needs at all is there before memory is looked at.
        async with gateway.connect() as (reader, writer):
            writer.write(STREAM)
            while await reader.read(MEBIBYTE):
                if written[0] > 8 * MEBIBYTE:
                    break
        await until(lambda: gateway.metric("sluice_requests_in_flight") == 0)
        before = gateway.memory_bytes()
        async with gateway.connect() as (reader, writer):
            writer.write(STREAM)
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: written[1] > 0)
            # Nothing more is read: the provider's writes come to a stop when the buffers on the way are full.
            stopped = -1
            while stopped != written[1]:
                stopped = written[1]
                await asyncio.sleep(0.3)
            grown = gateway.memory_bytes() - before
            assert stopped < 32 * MEBIBYTE, "the gateway took everything"
            assert grown < 16 * MEBIBYTE
            # It goes on where it stopped, and the end is there.
            seen = bytearray()
            while b"[DONE]" not in seen:
                piece = await reader.read(MEBIBYTE)
                assert piece, "the stream ended without its end"
                seen = seen[-16:] + piece
        print(f"\nstopped after {stopped / MEBIBYTE:.1f} MiB, memory grew by {grown / MEBIBYTE:.1f} MiB")


async def test_a_client_that_takes_nothing_for_long_is_given_up(start_gateway: StartGateway) -> None:
    watched = Watched(begins=False)

    async def pours(call: Call) -> None:
        await call.body()
        await call.stream()
        try:
            while True:
                await call.event(PAD)
        finally:
            await watched(call)

    async with provider(pours) as real:
        gateway = await asyncio.to_thread(
            start_gateway, f"server: {{send_idle_seconds: 0.5}}\nproviders: [{real.entry()}]\n"
        )
        async with gateway.connect() as (reader, writer):
            writer.write(STREAM)
            await reader.readuntil(b"\r\n\r\n")
            await until(gateway.access_log, what="the end of the exchange")
        assert "client_closed" == gateway.access_log()[-1]["error_code"]


async def test_a_client_that_stops_sending_its_body_is_told(start_gateway: StartGateway) -> None:
    gateway = await asyncio.to_thread(
        start_gateway, "server: {body_idle_seconds: 0.3}\nproviders: [{name: echo, type: echo}]\n"
    )
    async with gateway.connect() as (reader, writer):
        writer.write(STREAM[:-10])
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")


async def test_the_gateway_adds_less_than_2_ms_to_the_first_token(start_gateway: StartGateway) -> None:
    """Or, where everything takes longer, than so many of the simplest requests do: a pause of any kind is longer still."""

    async def streams(call: Call) -> None:
        await call.body()
        await call.stream()
        await call.event("token")
        await call.end()

    async def seconds(on: Connection, sent: bytes, awaited: bytes, end: bytes) -> float:
        reader, writer = on
        began = time.perf_counter()
        writer.write(sent)
        await reader.readuntil(awaited)
        taken = time.perf_counter() - began
        await reader.readuntil(end)
        return taken

    alive = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n"
    token = (STREAM, b"token", b"0\r\n\r\n")
    async with provider(streams) as real:
        gateway = await asyncio.to_thread(start_gateway, f"providers: [{real.entry()}]\n", measured=True)
        async with connection("127.0.0.1", real.port) as there, gateway.connect() as here, gateway.connect() as asked:
            # By turns, and the best of each: whatever else the machine does, it does not do all the time.
            rounds = [
                (await seconds(there, *token), await seconds(here, *token), await seconds(asked, alive, b"{", b"}"))
                for _ in range(60)
            ]
    direct, through, simplest = map(min, zip(*rounds, strict=True))
    print(
        f"\nfirst token: {1000 * direct:.2f} ms direct, {1000 * through:.2f} ms through the gateway, "
        f"{1000 * simplest:.2f} ms for the simplest request (best of 60)"
    )
    assert through - direct < max(TTFT_SECONDS, SIMPLEST * simplest)
