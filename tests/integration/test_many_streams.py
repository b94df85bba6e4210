"""A thousand streams held open in one process: none is lost, and each costs little. `make bench` holds 8,000."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import HeldStreams
from bench.processes import raise_open_files, started
from bench.workload import ALIAS, PROVIDER_MODEL, SLOW_EVENT_GAP_SECONDS, SLOW_STREAM_ASK, TOKEN
from tests.gateway_process import ADMIN_KEY_HASH, ROOT, environment, sha256
from tests.integration.conftest import StartGateway

FEW, MANY = 200, 1000
OPEN_WITHIN_SECONDS = 90.0
SETTLE_SECONDS = 1.2 * SLOW_EVENT_GAP_SECONDS
"""Each stream has had another event by then."""
STREAM_BYTES = 24 * 1024
"""What a further stream may cost, at most."""

ACCESS = f"""\
tokens: [{{name: bench, sha256: {sha256(TOKEN)}, models: ["*"]}}]
management: {{admin_key_hash: "{ADMIN_KEY_HASH}"}}
"""
CONFIG = """
providers: [{{name: mock, type: openai-compatible, base_url: "http://{address}/v1"}}]
model_aliases: [{{from: {alias}, to: mock/{model}}}]
"""


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    """The address of the bench's mock provider, which sends an event a second to each of its streams."""
    argv = [sys.executable, "-m", "bench.upstream"]
    place = tmp_path / "upstream"
    place.mkdir()
    with started("upstream", argv, os.sched_getaffinity(0), ROOT, place, environment(measured=True), piped=True) as run:
        yield f"127.0.0.1:{run.first_line()}"


def test_a_thousand_streams_are_held_and_cost_less_than_24_kib_each(start_gateway: StartGateway, upstream: str) -> None:
    raise_open_files()
    text = CONFIG.format(address=upstream, alias=ALIAS, model=PROVIDER_MODEL)
    gateway = start_gateway(text, access=ACCESS, measured=True)
    streams = HeldStreams(f"{gateway.host}:{gateway.port}", SLOW_STREAM_ASK)
    sizes = []
    deadline = time.monotonic() + OPEN_WITHIN_SECONDS
    try:
        for count in (FEW, MANY):
            streams.open(count, deadline)
            streams.trickle(SETTLE_SECONDS)
            assert (count, 0) == (streams.flowing, streams.lost)
            sizes.append(gateway.memory_bytes())
        assert MANY == gateway.metric("sluice_requests_in_flight")
    finally:
        streams.close()
    slope = (sizes[1] - sizes[0]) / (MANY - FEW)
    print(f"\n{MANY} streams held, {slope / 1024:.1f} KiB each")
    assert slope < STREAM_BYTES
    # What is left by its client ends.
    deadline = time.monotonic() + 60
    while gateway.metric("sluice_requests_in_flight"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
