"""Clients that leave, read slowly or do not read at all; and how much later a first token is for the gateway's part."""

import asyncio
import json
import time
from statistics import median

import pytest

from tests.gateway_process import TOKEN, connection, until
from tests.integration.conftest import StartGateway
from tests.provider import Call, provider

NOTICED_SECONDS = 0.1
TTFT_SECONDS = 0.002
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
        self.gone_at: float | None = None

    async def __call__(self, call: Call) -> None:
        await call.body()
        if self.begins:
            await call.stream()
            await call.event("begun")
        self.asked.set()
        await call.gone()
        self.gone_at = time.monotonic()


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
        async with gateway.connect() as (reader, writer):
            writer.write(sent)
            await watched.asked.wait()
            if begins:
                await reader.readuntil(b"begun")
            left_at = time.monotonic()
            if goodbye == "reset":
                writer.transport.abort()
            else:
                writer.close()
            await until(lambda: watched.gone_at is not None, 2)
        assert watched.gone_at is not None
        assert watched.gone_at - left_at < NOTICED_SECONDS
        await until(gateway.access_log)
        line = gateway.access_log()[-1]
        assert (200 if begins else 499, "client_closed") == (line["status"], line["error_code"])
        assert 0 == gateway.metric("sluice_requests_in_flight")
        print(f"\nthe provider was told {1000 * (watched.gone_at - left_at):.1f} ms after the client left")


async def test_a_client_that_does_not_read_stops_the_provider_and_costs_no_memory(start_gateway: StartGateway) -> None:
    written = 0

    async def pours(call: Call) -> None:
        nonlocal written
        await call.body()
        await call.stream()
        for _ in range(64 * MEBIBYTE // len(PAD)):
            await call.event(PAD)
            written += len(PAD)
        await call.end()

    async with provider(pours) as real:
        # Without the ledger, whose first row brings in what a database needs, at some time.
        config = f"usage: {{ledger: false}}\nproviders: [{real.entry()}]\n"
        gateway = await asyncio.to_thread(start_gateway, config)
        # Warm: what one stream needs at all is there before memory is looked at.
        async with gateway.connect() as (reader, writer):
            writer.write(STREAM)
            while await reader.read(MEBIBYTE):
                if written > 8 * MEBIBYTE:
                    break
        await until(lambda: gateway.metric("sluice_requests_in_flight") == 0)
        written, before = 0, gateway.memory_bytes()
        async with gateway.connect() as (reader, writer):
            writer.write(STREAM)
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: written > 0)
            # Nothing more is read: the provider's writes come to a stop when the buffers on the way are full.
            stopped = -1
            while stopped != written:
                stopped = written
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
            await until(gateway.access_log, 5, "the end of the exchange")
        assert "client_closed" == gateway.access_log()[-1]["error_code"]


async def test_a_client_that_stops_sending_its_body_is_told(start_gateway: StartGateway) -> None:
    gateway = await asyncio.to_thread(
        start_gateway, "server: {body_idle_seconds: 0.3}\nproviders: [{name: echo, type: echo}]\n"
    )
    async with gateway.connect() as (reader, writer):
        writer.write(STREAM[:-10])
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")


async def test_the_gateway_adds_less_than_2_ms_to_the_first_token(start_gateway: StartGateway) -> None:
    async def streams(call: Call) -> None:
        await call.body()
        await call.stream()
        await call.event("token")
        await call.end()

    async def first_token_seconds(host: str, port: int) -> list[float]:
        taken = []
        async with connection(host, port) as (reader, writer):
            for _ in range(60):
                began = time.perf_counter()
                writer.write(STREAM)
                await reader.readuntil(b"token")
                taken.append(time.perf_counter() - began)
                await reader.readuntil(b"0\r\n\r\n")
        return taken[10:]

    async with provider(streams) as real:
        gateway = await asyncio.to_thread(start_gateway, f"providers: [{real.entry()}]\n", measured=True)
        direct = median(await first_token_seconds("127.0.0.1", real.port))
        through = median(await first_token_seconds(gateway.host, gateway.port))
    print(f"\nfirst token: {1000 * direct:.2f} ms direct, {1000 * through:.2f} ms through the gateway (medians of 50)")
    assert through - direct < TTFT_SECONDS
