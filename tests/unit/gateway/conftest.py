"""An editor of the configuration in one process, with real files and a real database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from config.edit.edits import Edit, PutEntry
from core.clock import Clock, SystemClock
from core.events import Event
from core.identity import Author
from gateway import revisions
from gateway.control import Answered, Task
from gateway.editing import ConfigEditor
from gateway.others import Alone
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.revisions import RevisionKeeper
from management.editing.editor import Committed
from storage.records import StoredRevision

GOOD = """\
include: [conf.d/*.yaml]
providers: [{name: echo, type: echo}]  # ours
tokens: []
"""
MORE = "providers: [{name: more, type: echo}]\n"
T = TypeVar("T")
_Event = TypeVar("_Event", bound=Event)
AUTHOR = Author("admin_key", "admin-key", "192.0.2.1")
TWO = PutEntry("providers", "two", {"type": "echo"})


class Others(Alone):
    """Other workers that answer as a test says."""

    def __init__(self) -> None:
        self.asked: list[Task] = []
        self.answer = Answered(1)
        self.handlers: dict[object, Callable[..., object]] = {}

    async def ask(self, task: Task, timeout_seconds: float = 10.0) -> Answered:
        self.asked.append(task)
        return self.answer

    def on(self, kind: object, handler: Callable[..., object]) -> None:
        self.handlers[kind] = handler


class MovableClock:
    """The time of day is another when a test says so."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def monotonic(self) -> float:
        return SystemClock.monotonic()

    def time(self) -> float:
        return SystemClock.time() + self.ahead_seconds


class LaterClock(SystemClock):
    """The time of day is another by an hour."""

    @staticmethod
    def time() -> float:
        return SystemClock.time() + 3600


async def until_told(expected: T, ask: Callable[[], Awaitable[T]]) -> None:
    """What is written in the background is there at some time."""
    async with asyncio.timeout(60):
        while expected != await ask():
            await asyncio.sleep(0.02)


class Gateway:
    """An editor with all that it edits."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = path
        self.resources = Resources({}, clock=clock)
        self.others = Others()
        self.resources.others = self.others
        self.reloader = Reloader(path, self.resources)
        self.revisions = RevisionKeeper(
            self.resources.stores, self.resources.clock, self.resources.background, keeps_files=True
        )
        self.editor = ConfigEditor(self.resources, self.reloader, self.revisions)
        self.events: list[Event] = []
        self.resources.events.subscribe(self.events.append)

    def start(self) -> "Gateway":
        self.reloader.start()
        self.editor.start()
        return self

    async def commit(self, edit: Edit, **more: object) -> Committed:
        found = await self.editor.read()
        assert found.revision is not None
        return await self.editor.commit(found.revision, edit, AUTHOR, **more)  # type: ignore[arg-type]  # any members

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def included(self) -> str:
        return (self.path.parent / "conf.d/more.yaml").read_text()

    def write(self, text: str) -> None:
        """As by hand."""
        self.path.write_text(text)

    def beside(self, name: str) -> Path:
        return self.path.parent / name

    @property
    def waits(self) -> bool:
        """Whether there is a file that tells of an edit to be confirmed."""
        return self.beside(".config.yaml.confirm").exists()

    @property
    def stores(self) -> bool:
        """Whether there is a database."""
        return self.beside("data/sluice.db").exists()

    @property
    def providers(self) -> list[str]:
        return [each.name for each in self.reloader.current().config.providers]

    @property
    def revision(self) -> str:
        return self.reloader.current().revision

    def told(self, kind: type[_Event]) -> list[_Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def kept(self) -> list[StoredRevision]:
        """Oldest first."""
        return list(reversed((await self.resources.stores.revisions.list()).entries))

    async def triggers(self) -> list[str]:
        """Of what is kept, oldest first."""
        return [each.trigger for each in await self.kept()]

    async def newest(self) -> str:
        """The revision that was kept last; empty: none was yet."""
        return kept[-1].revision if (kept := await self.kept()) else ""

    async def audited(self) -> list[tuple[str, str]]:
        return [(each.actor_kind, each.action) for each in (await self.resources.stores.audit.list()).entries]

    async def close(self) -> None:
        await self.revisions.close()
        await self.resources.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/more.yaml").write_text(MORE)
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


Start = Callable[..., Gateway]


@pytest.fixture
async def start(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Another process on the same document each time."""
    # What was put in force is kept when an edit has been made, however slow the machine is.
    monkeypatch.setattr(revisions, "SECONDS_FOR_STORING", 60.0)
    running: list[Gateway] = []

    def begin(clock: Clock | None = None) -> Gateway:
        running.append(Gateway(path, clock).start())
        return running[-1]

    yield begin
    for each in running:
        await each.close()


@pytest.fixture
async def gateway(start: Start) -> Gateway:
    return start()
