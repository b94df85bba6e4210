"""Hours in minutes: mixed traffic, faults and a reload every second, and afterwards nothing is left of it (`make soak`)."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.tasks import Tasks
from tests.gateway_probe import Probe
from tests.gateway_process import Gateway, document, gateway, until
from tests.provider import Provider, provider
from tests.soak.provider import behave
from tests.soak.traffic import Traffic

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))
WARM_SECONDS = SECONDS / 5
"""Of them. What is lazily made, filled or compiled is there then."""
CLIENTS_PER_KIND = 2
CALM_SECONDS = 2.0
"""Every idle connection to a provider is closed by then."""
BAD_EVERY = 7
"""Every seventh edit of the configuration is refused."""

# More than there was after the first fifth. Of memory: what the allocator keeps between buffers of changing sizes.
MORE_FILES = 2
MORE_TASKS = 0
MORE_THREADS = 2
MORE_BYTES = 16 * 1024 * 1024

CONFIG = """
transport: {{keep_alive_seconds: 1}}
providers:
  - {{name: echo, type: echo, options: {{interval_seconds: 0.002}}}}
  - {real}
routes:
  - {{name: echo-{number}, match: {{model: "echo/*"}}, targets: ["echo/*"]}}
  - name: real-{number}
    match: {{model: "real/*"}}
    targets: ["real/*"]
    retry: {{attempts: 2, backoff_seconds: 0.001}}
    # Its failures are the matter here, and not to be spared it.
    cooldown: {{max_seconds: 0}}
    timeouts: {{first_byte_seconds: 0.3}}
"""


@dataclass(frozen=True)
class Footprint:
    """What a gateway takes when nothing is in flight."""

    files: int
    tasks: int
    threads: int
    memory_bytes: int


class Soak:
    """A gateway under load, and its configuration on the move."""

    def __init__(self, running: Gateway, real: Provider, probe: Probe) -> None:
        self.running = running
        self.real = real
        self._probe = probe
        self._number = 0
        self.valid = 0
        """How many valid documents there were, the first included."""

    async def load(self, seconds: float) -> Traffic:
        """What came of ``seconds`` of traffic, with an edit a second."""
        traffic = Traffic(self.running)
        tasks = Tasks()
        editing = tasks.spawn(self._edit(), "edits")
        try:
            await traffic.run(CLIENTS_PER_KIND, seconds)
            assert not editing.done()
        finally:
            await tasks.cancel()
            # A refused document may be the last one.
            self._write()
        return traffic

    async def _edit(self) -> None:
        while True:
            self._write("" if self._number % BAD_EVERY else "bogus: 1\n")
            # It remembers each request.
            self.real.calls.clear()
            await asyncio.sleep(1)

    def _write(self, more: str = "") -> None:
        self._number += 1
        self.valid += not more
        new = self.running.config.with_name("new.yaml")
        new.write_text(config(self.real, self._number) + more)
        new.replace(self.running.config)

    async def settled(self) -> Footprint:
        """The footprint once nothing is in flight, and nothing spare is left."""
        await until(lambda: self.running.metric("sluice_requests_in_flight") == 0, 20, "the end of all requests")
        await asyncio.sleep(CALM_SECONDS)
        place = Path(f"/proc/{self.running.process.pid}")
        return Footprint(
            files=len(list((place / "fd").iterdir())),
            tasks=(await self._probe.look(self.running)).tasks,
            threads=len(list((place / "task").iterdir())),
            memory_bytes=self.running.memory_bytes(),
        )


def config(real: Provider, number: int) -> str:
    return document(CONFIG.format(real=real.entry(), number=number))


@pytest.fixture
async def soak(tmp_path: Path) -> AsyncIterator[Soak]:
    probe = Probe(tmp_path)
    async with provider(behave) as real:
        with gateway(config(real, 0), tmp_path, measured=True, extra=probe.extra) as running:
            running.expect_log("configuration refused|configuration in force stays")
            yield Soak(running, real, probe)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
async def test_after_long_mixed_traffic_with_faults_and_reloads_nothing_is_left(soak: Soak) -> None:
    began = time.monotonic()
    first = await soak.load(WARM_SECONDS)
    before = await soak.settled()
    second = await soak.load(SECONDS - WARM_SECONDS)
    after = await soak.settled()
    applied = soak.running.metric("sluice_config_reloads_total", result="applied")
    asked = first.asked + second.asked
    print(
        f"\n{asked.total()} requests in {time.monotonic() - began:.0f} s: {dict(asked)}\n{applied:g} reloads of {soak.valid}\n"
        f"{before}\n{after}"
    )
    assert [] == (first.failures + second.failures)[:10]
    assert applied >= 0.9 * soak.valid
    assert after.files <= before.files + MORE_FILES
    assert after.tasks <= before.tasks + MORE_TASKS
    assert after.threads <= before.threads + MORE_THREADS
    assert after.memory_bytes < before.memory_bytes + MORE_BYTES
