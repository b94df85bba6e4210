"""What an exchange leaves behind goes when its last reference goes: nothing waits for the garbage collector.

The collector comes round seldom (gateway/pauses.py). An exchange in a circle of references would stay until then, with all
that its client sent: 32 MiB by default, a hundred times over.
"""

import asyncio
from pathlib import Path

from tests.gateway_probe import Probe
from tests.integration.conftest import StartGateway
from tests.provider import provider
from tests.soak.provider import behave
from tests.soak.traffic import Traffic

TIMES = 12
CONFIG = """
    providers:
      - {{name: echo, type: echo, options: {{interval_seconds: 0}}}}
      - {real}
    routes:
      - {{name: echo, match: {{model: "echo/*"}}, targets: ["echo/*"]}}
      # Apart: the others have all the time that they need on a machine that is slow.
      - name: silent
        match: {{model: real/silent}}
        targets: [real/silent]
        retry: {{attempts: 2, backoff_seconds: 0.001}}
        cooldown: {{max_seconds: 0}}
        timeouts: {{first_byte_seconds: 0.2}}
      - name: real
        match: {{model: "real/*"}}
        targets: ["real/*"]
        retry: {{attempts: 2, backoff_seconds: 0.001}}
        cooldown: {{max_seconds: 0}}
"""


async def test_no_exchange_however_it_ends_leaves_a_circle_of_references(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    probe = Probe(tmp_path, garbage=True)
    async with provider(behave) as real:
        text = CONFIG.format(real=real.entry())
        gateway = await asyncio.to_thread(start_gateway, text, measured=True, extra=probe.extra)
        traffic = Traffic(gateway)
        # What is made once, at the first of each kind, may have its circles.
        await traffic.run_times(TIMES)
        await asyncio.sleep(0.5)
        await probe.look(gateway)
        await traffic.run_times(TIMES)
        await asyncio.sleep(0.5)
        found = await probe.look(gateway)
    assert [] == traffic.failures
    # A kind of exchange that leaves a circle leaves one each time.
    assert {} == {kind: number for kind, number in found.garbage.items() if number >= TIMES // 2}
