"""The configuration is rewritten 200 times, well and badly, in every way that files are replaced, under streaming load.

No request may fail and no stream be cut; each invalid edit must be told and change nothing; each valid one must come
into force.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import aiohttp
import pytest

from config.watch import STABLE_SECONDS
from core.tasks import Tasks
from tests.gateway_process import Gateway, document, gateway, total

EDITS = 200
GATEWAYS = 2
PATIENCE_SECONDS = 60.0
STREAMS = 4
"""Of each gateway."""
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

PUBLIC_METRICS = "telemetry: {metrics: {public: true}}\n"


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
        self.was_half = False
        """Whether half of a document was there for so long that it may have been taken for a whole one."""
        self._count = 0

    def rename(self, text: str) -> None:
        """As editors do: a new file, renamed over the old one."""
        new = self.path.with_name(".config.yaml.new")
        new.write_text(text)
        new.replace(self.path)

    def truncate(self, text: str) -> None:
        """As `cat > config.yaml` does, and in two parts: half a document, which is none, is there for a moment."""
        half = text.rindex("{", 0, len(text) // 2) + 1
        began = perf_counter()
        with self.path.open("w") as file:
            file.write(text[:half])
            file.flush()
            file.write(text[half:])
        self.was_half = perf_counter() - began > STABLE_SECONDS / 2

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
                await asyncio.sleep(0.1)
            self.spanned += current() != before

    async def _stream(self, body: dict[str, object]) -> None:
        async with self.session.post(f"{self.running.base_url}/chat/completions", json=body) as answer:
            content = await answer.read()
        said = b"".join(re.findall(rb'"content":"(.*?)"', content)).decode()
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


@dataclass
class Editor:
    """Makes one edit after the other, and sees what each of them does."""

    running: Gateway
    session: aiohttp.ClientSession
    file: Document
    in_force: Shown
    applied: set[str]
    """Revisions that have been in force."""
    number: int = 0
    rejected: int = 0
    besides: int = 0
    """What came into force or was refused besides the edits, on a machine that stood still in the middle of one."""
    waits: list[tuple[float, str]] = field(default_factory=list)
    """How long each edit took to be in force or refused, and which it was."""

    async def edit(self, way: str, kind: str | None) -> None:
        self.number += 1
        self.file.was_half = False
        written = perf_counter()
        name = f"edit {self.number}, {way}, {kind or 'valid'}"
        if kind is None:
            getattr(self.file, way)(valid(self.number) + PUBLIC_METRICS)
            await self._comes_into_force(name)
            if self.file.was_half:
                await self._count_besides()
        else:
            getattr(self.file, way)(PUBLIC_METRICS + INVALID[kind](self.number))
            if self.file.was_half:
                # Which of the two was refused cannot be told apart: once more, from a document that is in force.
                await self.edit("rename", None)
                self.besides += 1
                await self._count_besides()
                await self.edit(way, kind)
                return
            await self._is_refused(name)
        self.waits.append((perf_counter() - written, name))

    async def _count_besides(self) -> None:
        rejected = int(await reloads(self.running, self.session, "rejected"))
        self.besides += rejected - self.rejected
        self.rejected = rejected

    async def _comes_into_force(self, name: str) -> None:
        began = perf_counter()
        while (now := await shown(self.running, self.session)).target != f"echo/edit-{self.number}":
            assert now == self.in_force, f"{name}: something else is in force"
            assert perf_counter() - began < PATIENCE_SECONDS, f"{name} did not come into force"
            await asyncio.sleep(0.01)
        assert now.revision not in self.applied
        self.in_force = now
        self.applied.add(now.revision)

    async def _is_refused(self, name: str) -> None:
        began = perf_counter()
        self.rejected += 1
        while await reloads(self.running, self.session, "rejected") < self.rejected:
            assert perf_counter() - began < PATIENCE_SECONDS, f"{name} was not reported"
            await asyncio.sleep(0.01)
        assert self.in_force == await shown(self.running, self.session), f"{name} has changed something"
        # Each of its faults says where: file, line and column.
        told = [record["event"] for record in self.running.log() if "configuration refused" in record["event"]]
        assert told, f"{name} is not in the log"
        assert re.search(rf"{re.escape(str(self.file.path))}:\d+:\d+: ", told[-1]), told[-1]


@pytest.mark.timeout(600)  # each edit has to come to rest, which takes its time however fast a machine is
async def test_200_edits_under_load_fail_no_request_and_cut_no_stream(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Of two gateways beside each other, as most of the time is spent on waiting."""
    began = perf_counter()
    edits = plan()
    with ExitStack() as running:
        editors = []
        for number in range(GATEWAYS):
            place = tmp_path / f"etc-{number}"
            place.mkdir()
            file = Document(place / "config.yaml")
            file.rename(valid(0) + PUBLIC_METRICS)
            started = running.enter_context(gateway("", tmp_path / f"run-{number}", config=file.path))
            started.expect_log("configuration refused|configuration in force stays")
            first = await shown(started, http)
            assert "echo/edit-0" == first.target
            editors.append(Editor(started, http, file, first, {first.revision}))
        loads = await asyncio.gather(
            *(edited(editor, edits[number::GATEWAYS]) for number, editor in enumerate(editors))
        )
    for editor, load in zip(editors, loads, strict=True):
        assert [] == load.failures
        assert EDITS // GATEWAYS + 1 + editor.besides == editor.rejected + len(editor.applied)
        assert load.revisions.keys() <= editor.applied, "a stream was served by a configuration that was refused"
        assert load.spanned > STREAMS * 5
    waits = sorted(wait for editor in editors for wait in editor.waits)
    print(
        f"\n{EDITS} edits ({sum(editor.rejected for editor in editors)} invalid) in {perf_counter() - began:.1f} s, "
        f"in force or refused after {waits[EDITS // 2][0] * 1000:.0f} ms (median), {waits[-1][0] * 1000:.0f} ms (most: "
        f"{waits[-1][1]}); {sum(load.revisions.total() for load in loads)} streams, "
        f"{sum(load.spanned for load in loads)} of them across a reload"
    )


async def edited(editor: Editor, edits: Sequence[tuple[str, str | None]]) -> Load:
    """Make them under load; what came of that."""
    load, tasks = Load(editor.running, editor.session), Tasks()
    streams = [tasks.spawn(load.streams(lambda: editor.number), f"streams {each}") for each in range(STREAMS)]
    try:
        for way, kind in edits:
            await editor.edit(way, kind)
    finally:
        load.stopping = True
        await asyncio.gather(*streams)
    # Each was told once, also after the fact.
    assert editor.rejected == await reloads(editor.running, editor.session, "rejected")
    assert len(editor.applied) == await reloads(editor.running, editor.session, "applied")
    return load
