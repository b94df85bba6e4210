"""The writer that loses nothing while its database is away, here one that the test takes away and brings back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from storage import writer as module
from storage.errors import Reason, StorageUnavailable
from storage.spool import Spool
from storage.writer import Observer, SpooledWriter, WriterFull
from tests.conftest import ExpectLog


class Note(msgspec.Struct, frozen=True):
    number: int


class Sink:
    """What a writer writes to. It passes over what it has."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.fails: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.batches = 0

    async def take(self, entries: Sequence[Note]) -> None:
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        self.batches += 1
        self.taken += [entry.number for entry in entries if entry.number not in self.taken]


class Counting(Observer):
    def __init__(self) -> None:
        self.most_waiting = 0
        self.spooled_less_replayed = 0
        self.shown = 0
        """What it was told of the disk last."""

    def waiting(self, count: int) -> None:
        self.most_waiting = max(self.most_waiting, count)

    def spooled(self, count: int) -> None:
        self.spooled_less_replayed += count

    def replayed(self, count: int) -> None:
        self.spooled_less_replayed -= count

    def on_disk(self, count: int) -> None:
        self.shown = count


AWAY = StorageUnavailable("the database is away", Reason.UNREACHABLE)
Make = Callable[..., SpooledWriter[Note]]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
async def make(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """``make(**options)``: a writer to the sink, whose spool is in the test's directory. It has patience enough."""
    monkeypatch.setattr(module, "_FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LAST_RETRY_SECONDS", 0.05)
    async with AsyncExitStack() as closing:

        def make(max_bytes: int = 1 << 20, **options: object) -> SpooledWriter[Note]:
            options = {"patience_seconds": 60.0} | options
            spool = Spool(tmp_path / "spool", "notes", Note, max_bytes)
            made = SpooledWriter("notes", sink.take, spool, **options)  # type: ignore[arg-type]  # any members
            closing.push_async_callback(made.close, 1.0)
            return made

        yield make


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def appended(writer: SpooledWriter[Note], *numbers: int) -> list[bool]:
    return await asyncio.gather(*(writer.append(Note(number)) for number in numbers))


async def test_what_the_database_takes_is_kept_and_goes_in_batches(make: Make, sink: Sink, tmp_path: Path) -> None:
    observer = Counting()
    assert [True] * 250 == await appended(make(observer=observer), *range(250))
    assert list(range(250)) == sink.taken
    assert 3 >= sink.batches
    assert (250, 0) == (observer.most_waiting, observer.spooled_less_replayed)
    assert not (tmp_path / "spool").exists()


async def test_what_comes_while_the_database_is_away_is_kept_and_written_in_its_order(
    make: Make, sink: Sink, tmp_path: Path, expect_log: ExpectLog
) -> None:
    observer = Counting()
    writer = make(observer=observer)
    await appended(writer, 1)
    sink.fails = AWAY
    with expect_log("the notes waits on the disk for the database: the database is away"):
        for number in range(2, 300):
            assert [True] == await appended(writer, number)
    assert [1] == sink.taken
    assert 298 == observer.spooled_less_replayed
    assert 298 == writer.pending_entries == observer.shown == await writer.count_all()
    sink.fails = None
    more = asyncio.gather(*(writer.append(Note(number)) for number in range(300, 500)))
    await until(lambda: len(sink.taken) == 499)
    assert {True} == set(await more)
    assert list(range(1, 500)) == sink.taken
    await until(lambda: not writer.pending_entries and not observer.shown)
    assert 0 == await writer.count_all()
    assert 0 == observer.spooled_less_replayed
    assert [] == list((tmp_path / "spool").iterdir())
    before = sink.batches
    assert [True] == await appended(writer, 500)
    assert before + 1 == sink.batches


async def test_a_database_that_does_not_answer_holds_nobody_up(make: Make, sink: Sink, expect_log: ExpectLog) -> None:
    writer = make(patience_seconds=0.05)
    sink.open.clear()
    with expect_log("waits on the disk for the database: it does not answer in time", logging.INFO):
        assert [True] == await appended(writer, 1)
    async with asyncio.timeout(20):
        assert [True] * 5 == await appended(writer, *range(2, 7))
    assert [] == sink.taken
    sink.open.set()
    await until(lambda: len(sink.taken) == 6)
    assert list(range(1, 7)) == sink.taken


async def test_a_fault_of_ours_loses_nothing(make: Make, sink: Sink, expect_log: ExpectLog) -> None:
    writer = make()
    sink.fails = ValueError("a fault")
    with expect_log("the notes cannot be written", logging.ERROR):
        assert [True, True] == await appended(writer, 1, 2)
        await asyncio.sleep(0.1)
    sink.fails = None
    await until(lambda: sink.taken == [1, 2])


async def test_what_neither_takes_is_told_and_tried_on(
    make: Make, sink: Sink, tmp_path: Path, expect_log: ExpectLog
) -> None:
    writer = make()
    (tmp_path / "spool").write_text("no directory")
    sink.fails = AWAY
    with expect_log("waits on the disk"), expect_log("1 entries of the notes are in memory alone", logging.ERROR):
        assert [False] == await appended(writer, 1)
    assert "the disk takes no more: " in (writer.why_full() or "")
    sink.fails = None
    with expect_log("the notes is kept again", logging.INFO):
        await until(lambda: writer.why_full() is None)
    assert [True] == await appended(writer, 2)
    assert [1, 2] == sink.taken


async def test_a_disk_that_takes_again_is_used_while_the_database_is_away(
    make: Make, sink: Sink, tmp_path: Path, expect_log: ExpectLog
) -> None:
    writer = make()
    (tmp_path / "spool").write_text("no directory")
    sink.fails = AWAY
    with expect_log("waits on the disk"), expect_log("in memory alone"), expect_log("is kept again", logging.INFO):
        assert [False] == await appended(writer, 1)
        (tmp_path / "spool").unlink()
        await until(lambda: writer.why_full() is None)
    assert writer.pending_entries
    sink.fails = None
    await until(lambda: sink.taken == [1])


async def test_no_more_than_the_bounds_is_taken(make: Make, sink: Sink, expect_log: ExpectLog) -> None:
    writer = make(max_bytes=100, most_waiting=4)
    assert None is writer.why_full()
    sink.fails = AWAY
    with expect_log("waits on the disk"), expect_log("notes has its 100 bytes|spool has its 100 bytes"):
        kept = [(await appended(writer, number))[0] for number in range(10, 15)]
    assert [True, True, True, True, False] == kept
    assert "the disk takes no more" in (writer.why_full() or "")
    waiting = asyncio.gather(*(writer.append(Note(number)) for number in range(15, 18)))
    await asyncio.sleep(0)
    with pytest.raises(WriterFull):
        await writer.append(Note(18))
    sink.fails = None
    with expect_log("is kept again", logging.INFO):
        assert [True] * 3 == await waiting
    await until(lambda: len(sink.taken) == 8)
    assert list(range(10, 18)) == sink.taken


async def test_another_takes_over_what_one_that_ended_has_left(make: Make, sink: Sink, expect_log: ExpectLog) -> None:
    first = make()
    sink.fails = AWAY
    with expect_log("waits on the disk"):
        await appended(first, 1, 2)
    assert [] == await first.close(1.0)
    sink.fails = None
    second = make()
    second.start()
    assert [True] == await appended(second, 3)
    await until(lambda: len(sink.taken) == 3)
    assert [1, 2, 3] == sink.taken


async def test_one_that_lives_takes_over_too(
    make: Make, sink: Sink, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TAKE_OVER_SECONDS", 0.05)
    ending, living = make(), make()
    await appended(living, 1)
    sink.fails = AWAY
    with expect_log("waits on the disk"):
        await appended(ending, 2)
        # The other may have taken it over, and have failed too, before it is known here that this one has ended.
        await ending.close(1.0)
    sink.fails = None
    await until(lambda: sink.taken == [1, 2])


async def test_what_has_come_before_the_end_is_kept(make: Make, sink: Sink, expect_log: ExpectLog) -> None:
    writer = make()
    sink.open.clear()
    waiting = asyncio.gather(*(writer.append(Note(number)) for number in range(3)))
    await asyncio.sleep(0)
    assert [] == await writer.close(0.05)
    assert [True] * 3 == await waiting
    sink.open.set()
    second = make()
    second.start()
    await until(lambda: sink.taken == [0, 1, 2])


async def test_what_is_lost_at_the_end_is_told(make: Make, sink: Sink, tmp_path: Path, expect_log: ExpectLog) -> None:
    writer = make()
    (tmp_path / "spool").write_text("no directory")
    sink.fails = AWAY
    with expect_log("waits on the disk"), expect_log("in memory alone"), expect_log("the disk does not take 1 entries"):
        assert [False] == await appended(writer, 1)
        assert [Note(1)] == await writer.close(0.1)
