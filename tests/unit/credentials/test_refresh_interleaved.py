"""Whatever happens in whichever order: no edit is lost, no older token wins, no refresh token is used twice."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as some
import pytest
from hypothesis import HealthCheck, given, settings

from credentials.errors import CredentialFault, StoreFault
from tests import virtual_time
from tests.unit.credentials.refresh_world import LIFE_SECONDS, NAME, PROVIDER, World, parsed

PROCESSES = 3
LATENCIES = (0.0, 0.01, 0.01, 0.2, 2.0)
_SHORT_OF_A_LOCK = 10.0
"""One process alone may be cut off for so long; then its lock has not run out."""

_process = some.integers(0, PROCESSES - 1)
_gap = some.sampled_from([0.0, 0.0, 0.005, 0.1, 1.0, 10.0, 40.0, 65.0])
_steps = some.lists(
    some.tuples(
        _gap,
        _process,
        some.one_of(
            some.sampled_from(["request", "rejected", "refresh", "edit", "sign in", "remove"]),
            some.tuples(some.just("store down"), some.sampled_from([0.3, 8.0, 30.0, 90.0, 200.0])),
            some.tuples(some.just("cut off"), some.sampled_from([0.3, 3.0, _SHORT_OF_A_LOCK])),
            some.tuples(some.just("server failing"), some.sampled_from([0.3, 8.0, 90.0])),
        ),
    ),
    min_size=3,
    max_size=25,
)


# Hours of a cluster, thirty times: the longest test of all, on a slow machine of minutes.
@pytest.mark.timeout(600)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps=_steps, seed=some.integers(0, 1 << 16))
def test_no_edit_is_lost_no_older_token_wins_and_no_refresh_token_is_used_twice(steps: list[Any], seed: int) -> None:
    # Faults of ours are heard; that a store is down, many times over, is not.
    with _quietly():
        virtual_time.run(_play(steps, random.Random(seed)))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    log = logging.getLogger("sluice.credentials")
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(logging.NOTSET)


class _Play:
    """What is asked of the world, and what came of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answered: set[str] = set()
        """Words of edits of which somebody was told that they are kept."""
        self._edits = 0
        self._writes = asyncio.Lock()

    async def step(self, process: int, step: Any) -> None:
        world, accounts = self.world, self.world.processes[process].accounts
        try:
            match step:
                case "request" | "rejected":
                    await world.processes[process].freshen(reject=step == "rejected")
                case "refresh":
                    await accounts.refresh(PROVIDER.name, NAME)
                case "edit":
                    await self._edit(process)
                case "sign in":
                    async with self._writes:
                        await world.sign_in(process)
                case "remove":
                    await self._remove(process)
                case "store down", seconds:
                    world.shared.down = True
                    await asyncio.sleep(seconds)
                    world.shared.down = False
                case "cut off", seconds:
                    world.processes[process].line.cut = True
                    await asyncio.sleep(seconds)
                    world.processes[process].line.cut = False
                case "server failing", seconds:
                    world.server.failing = True
                    await asyncio.sleep(seconds)
                    world.server.failing = False
        except (CredentialFault, StoreFault):
            pass  # whoever asked is told

    async def _edit(self, process: int) -> None:
        self._edits += 1
        word = f"edit-{self._edits}"
        await self.world.edit(process, word)
        self.answered.add(word)

    async def _remove(self, process: int) -> None:
        async with self._writes:
            try:
                await self.world.processes[process].accounts.remove(PROVIDER.name, NAME, None)
            finally:
                await self.world.sign_in(process)


async def _agreed(world: World) -> None:
    """All serve by the newest tokens, and these are written."""
    async with asyncio.timeout(LIFE_SECONDS):
        while True:
            newest = await world.opened(await world.kept())
            if all(process.token and newest == parsed(process.token) for process in world.processes):
                return
            await asyncio.sleep(0.1)


async def _play(steps: list[Any], chance: random.Random) -> None:
    world = World(PROCESSES, lambda: chance.choice(LATENCIES))
    await world.start()
    await world.sign_in()
    play = _Play(world)
    under_way: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        for gap, process, step in steps:
            await asyncio.sleep(gap)
            under_way.append(group.create_task(play.step(process, step)))
    # Everything is up again: a full life later all is in order.
    world.shared.down = world.server.failing = False
    await asyncio.sleep(400.0)
    try:
        await world.sign_in()
    finally:
        await asyncio.sleep(2 * LIFE_SECONDS)
        await _agreed(world)
        await world.stop()
    assert {} == {token: uses for token, uses in world.server.used.items() if uses > 1}
    written = [await world.opened(record) for record in world.shared.history if record is not None]
    assert sorted(written) == written
    assert world.server.sign_ins == written[-1][0]
    words = [set() if record is None else set(record.settings.models) for record in world.shared.history]
    assert play.answered <= set().union(*words)
    for before, record, after in zip(words, world.shared.history[1:], words[1:], strict=False):
        assert record is None or before <= after
    for process in world.processes:
        assert sorted(process.served) == process.served
