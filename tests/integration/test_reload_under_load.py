"""The configuration is rewritten 200 times, well and badly, in every way that files are replaced, under streaming load.

No request may fail and no stream be cut; each invalid edit must be told and change nothing; each valid one must come
into force.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import aiohttp
import pytest

from core.tasks import Tasks
from tests.gateway_process import Gateway, document, gateway, total

EDITS = 200
STREAMS = 6
WORDS = [f"word-{number}" for number in range(40)]
"""At 20 ms each a stream lasts through several reloads."""

VALID = """
providers:
  - {{name: echo, type: echo, models: ["echo-*"], options: {{interval_seconds: 0.02}}}}
model_aliases:
  # The streams ask for `steady`; `probe` shows which edit is in force.
  - {{from: steady, to: echo/echo-steady}}
  - {{from: probe, to: echo/edit-{number}}}
routes:
  - {{name: r{number}, match: {{model: "echo/edit-*"}}, targets: ["echo/*"]}}
route_tests:
  - {{request: {{model: probe}}, expect: {{provider: echo, route: r{number}}}}}
"""


def valid(number: int) -> str:
    """An edit that differs from every other one."""
    return document(VALID.format(number=number))


INVALID: dict[str, Callable[[int], str]] = {
    "unknown key": lambda number: valid(number).replace("model_aliases:", "model_alises:"),
    "wrong type": lambda number: valid(number) + "server: {drain_seconds: soon}\n",
    "syntax": lambda number: valid(number) + "routes: [\n",
    "cut in the middle": lambda number: valid(number)[:-60],
    "duplicate key": lambda number: valid(number) + "routes: []\n",
    "unknown provider": lambda number: valid(number).replace('["echo/*"]', '["ehco/*"]'),
    "no such option": lambda number: valid(number).replace("interval_seconds", "interval"),
    "missing reference": lambda number: valid(number) + 'server: {public_url: "${env:SLUICE_TEST_UNSET}"}\n',
    "failing route test": lambda number: valid(number).replace("provider: echo,", "provider: other,"),
    "empty": lambda _number: "- not a mapping\n",
}


class Document:
    """The file that the gateway was started with, and the ways to replace what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0

    def rename(self, text: str) -> None:
        """As editors do: a new file, renamed over the old one."""
        new = self.path.with_name(".config.yaml.new")
        new.write_text(text)
        new.replace(self.path)

    def truncate(self, text: str) -> None:
        """As `cat > config.yaml` does, and in two parts: half a document is there for a moment."""
        with self.path.open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            file.write(text[len(text) // 2 :])

    def swap(self, text: str) -> None:
        """As Kubernetes updates a ConfigMap: config.yaml → ..data/config.yaml, and ..data → another directory."""
        self._count += 1
        place = self.path.parent
        version = place / f"..version-{self._count}"
        version.mkdir()
        (version / self.path.name).write_text(text)
        link = place / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(place / "..data")
        if not self.path.is_symlink():
            first = self.path.with_name("..first")
            first.symlink_to(f"..data/{self.path.name}")
            first.replace(self.path)

    def unswap(self, text: str) -> None:
        """Back to a plain file, by renaming over the link."""
        self.rename(text)


@dataclass
class Load:
    """Streams without a pause, and what came of them."""

    running: Gateway
    session: aiohttp.ClientSession
    failures: list[str] = field(default_factory=list)
    revisions: Counter[str] = field(default_factory=Counter)
    spanned: int = 0
    """Streams during which the configuration was replaced."""
    stopping: bool = False

    async def streams(self, current: Callable[[], int]) -> None:
        """Ask for one stream after the other."""
        body = {"model": "steady", "stream": True, "messages": [{"role": "user", "content": " ".join(WORDS)}]}
        while not self.stopping:
            before = current()
            try:
                await self._stream(body)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(repr(error))
            self.spanned += current() != before

    async def _stream(self, body: dict[str, object]) -> None:
        async with self.session.post(f"{self.running.base_url}/chat/completions", json=body) as answer:
            content = await answer.read()
        said = "".join(re.findall(rb'"content":"(.*?)"', content)[number].decode() for number in range(len(WORDS) + 1))
        if answer.status != 200 or not content.endswith(b"data: [DONE]\n\n") or said != " ".join(WORDS):
            self.failures.append(f"{answer.status} {content[-300:]!r}")
        self.revisions[answer.headers["x-sluice-revision"]] += 1


@dataclass
class Shown:
    """What the gateway says of its configuration, from outside."""

    target: str
    revision: str


async def shown(running: Gateway, session: aiohttp.ClientSession) -> Shown:
    body = {"model": "probe", "messages": [{"role": "user", "content": "?"}]}
    async with session.post(f"{running.base_url}/chat/completions", json=body) as answer:
        assert 200 == answer.status, await answer.text()
        return Shown(answer.headers["x-sluice-target"], answer.headers["x-sluice-revision"])


async def reloads(running: Gateway, session: aiohttp.ClientSession, result: str) -> float:
    """``sluice_config_reloads_total`` of ``result``."""
    async with session.get(f"{running.url}/metrics") as answer:
        return total(await answer.text(), "sluice_config_reloads_total", result=result)


def plan() -> list[tuple[str, str | None]]:
    """Every edit as a way to write and, for an invalid one, a kind of fault. The same at every run."""
    chance = random.Random(2)
    ways = ["rename"] * 60 + ["truncate"] * 60 + ["swap"] * 70 + ["unswap"] * 10
    kinds = list(INVALID)
    faults = [kinds[number % len(kinds)] if number % 5 < 2 else None for number in range(EDITS)]
    chance.shuffle(faults)
    return list(zip(ways, faults, strict=True))


@pytest.mark.timeout(150)
async def test_200_edits_under_load_fail_no_request_and_cut_no_stream(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    place = tmp_path / "etc"
    place.mkdir()
    edited = Document(place / "config.yaml")
    edited.rename(valid(0) + "telemetry: {metrics: {public: true}}\n")
    tasks = Tasks()
    began = perf_counter()
    with gateway("", tmp_path / "run", config=edited.path) as running:
        running.expect_log("configuration refused|configuration in force stays")
        number, in_force = 0, await shown(running, http)
        assert "echo/edit-0" == in_force.target
        applied = {in_force.revision}
        rejected = 0
        load = Load(running, http)
        loads = [tasks.spawn(load.streams(lambda: number), f"load {each}") for each in range(STREAMS)]
        waits = []
        for number, (way, kind) in enumerate(plan(), 1):
            write = getattr(edited, way)
            tail = "telemetry: {metrics: {public: true}}\n"
            written = perf_counter()
            if kind is None:
                write(valid(number) + tail)
                while (now := await shown(running, http)).target != f"echo/edit-{number}":
                    assert now == in_force, "something else is in force"
                    assert perf_counter() - written < 5, f"edit {number} ({way}) did not come into force"
                    await asyncio.sleep(0.01)
                assert now.revision not in applied
                in_force = now
                applied.add(now.revision)
            else:
                write(tail + INVALID[kind](number))
                rejected += 1
                while await reloads(running, http, "rejected") < rejected:
                    assert perf_counter() - written < 5, f"edit {number} ({way}, {kind}) was not reported"
                    await asyncio.sleep(0.01)
                assert in_force == await shown(running, http)
                told = [record for record in running.log() if "configuration refused" in record["event"]]
                assert f"{edited.path}:" in told[-1]["event"]
            waits.append(perf_counter() - written)
        load.stopping = True
        await asyncio.gather(*loads)
        # Each edit was told once, also after the fact.
        assert (rejected, len(applied)) == (
            await reloads(running, http, "rejected"),
            await reloads(running, http, "applied"),
        )
        faults = [record["event"] for record in running.log() if "configuration refused" in record["event"]]
    assert [] == load.failures
    assert rejected + len(applied) == EDITS + 1
    # Each refusal says where: file, line and column.
    assert all(re.search(r"config\.yaml:\d+:\d+: ", fault) for fault in faults), faults
    assert load.revisions.keys() <= applied, "a stream was served by a configuration that was refused"
    assert load.spanned > STREAMS * 5
    waits.sort()
    print(
        f"\n{EDITS} edits ({rejected} invalid) in {perf_counter() - began:.1f} s, in force or refused after "
        f"{waits[len(waits) // 2] * 1000:.0f} ms (median), {waits[-1] * 1000:.0f} ms (most); "
        f"{load.revisions.total()} streams, {load.spanned} of them across a reload, {len(load.revisions)} revisions"
    )
