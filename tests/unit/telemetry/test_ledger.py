"""The ledger over a database that the test takes away and brings back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from config.schema import Usage as UsageSettings
from core.clock import ManualClock, SystemClock
from core.events import Event, Events, LedgerDown, LedgerRecovered
from core.usage import Usage
from storage.errors import Reason, StorageUnavailable
from storage.ledger_records import MAX_TEXT_CHARACTERS, LedgerRow
from telemetry import ledger_writer
from telemetry.ledger import Ledger, LedgerState, row
from telemetry.ledger_writer import MOST_WAITING, Observer
from tests.conftest import ExpectLog
from tests.unit.telemetry.conftest import Ended

AWAY = StorageUnavailable("the database is away", Reason.UNREACHABLE)
TOLD = "rows of the ledger wait on the disk: the database is away"
NO_DISK = "rows of the ledger are in memory alone"
NO_SPOOL = "what waits on the disk of the ledger cannot be read"


class Database:
    """Where rows go. It passes over what it has."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRow] = {}
        self.batches: list[int] = []
        self.takes_seconds = 0.0
        self.fails: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def add(self, rows: Sequence[LedgerRow]) -> int:
        await self.open.wait()
        await asyncio.sleep(self.takes_seconds)
        if self.fails is not None:
            raise self.fails
        before = len(self.rows)
        self.rows |= {each.request_id: each for each in rows}
        self.batches.append(len(rows))
        return len(self.rows) - before

    async def itself(self) -> "Database":
        return self


class Counting(Observer):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def waiting(self, count: int) -> None:
        self.counts["waiting"] = count

    def on_disk(self, count: int) -> None:
        self.counts["on_disk"] = count

    def written(self, count: int, seconds: float) -> None:
        assert seconds >= 0
        self.counts["written"] += count

    def lost(self, count: int) -> None:
        self.counts["lost"] += count


class Book:
    """A ledger, what happens to it, and what it tells."""

    def __init__(self, database: Database, place: Path, ended: Ended, max_spool_bytes: int) -> None:
        self.counting = Counting()
        self.told: list[Event] = []
        self._events = Events()
        self._ended = ended
        self.ledger = Ledger(database.itself, SystemClock(), self.told.append, self.counting)
        self.ledger.follow(UsageSettings(flush_seconds=0.01, max_spool_bytes=max_spool_bytes))
        self.ledger.start(self._events, place)

    def end(self, *numbers: int, **changes: object) -> None:
        """Requests with these ids."""
        for number in numbers:
            self._events.emit(self._ended(request_id=f"req_{number}", **changes))

    @property
    def state(self) -> LedgerState:
        return self.ledger.state()


Make = Callable[..., Book]


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def make(
    database: Database, tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """``make(max_spool_bytes=…)``: a ledger over the database, whose spool is in the test's directory."""
    # Longer than any test waits: where a test is about their end, it sets them itself.
    monkeypatch.setattr(ledger_writer, "PATIENCE_SECONDS", 60)
    monkeypatch.setattr(ledger_writer, "CLOSE_SECONDS", 60)
    monkeypatch.setattr(ledger_writer, "_FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(ledger_writer, "_LAST_RETRY_SECONDS", 0.05)
    async with AsyncExitStack() as closing:

        def make(max_spool_bytes: int = 1 << 24) -> Book:
            made = Book(database, tmp_path / "spool", ended, max_spool_bytes)
            closing.push_async_callback(made.ledger.close)
            return made

        yield make


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def ids(*numbers: int) -> list[str]:
    return sorted(f"req_{number}" for number in numbers)


def test_a_row_tells_what_the_event_does(ended: Ended) -> None:
    event = ended(
        token_id="tok_1",
        owner="ann",
        usage=Usage(11, 7, 3, 2, estimated=True),
        cost_nano_usd=4200,
        error_code="upstream_timeout",
        attempts=2,
    )
    expected = LedgerRow(
        request_id="req_1",
        at=1_700_000_000_250_000,
        token="team",
        token_id="tok_1",
        owner="ann",
        endpoint="chat",
        dialect="openai-chat",
        stream=True,
        requested_model="fast",
        route="gold",
        provider="openai",
        model="gpt-4o-mini",
        credential="main",
        input_tokens=11,
        output_tokens=7,
        cached_tokens=3,
        reasoning_tokens=2,
        estimated=True,
        cost_nano_usd=4200,
        status=200,
        error_code="upstream_timeout",
        attempts=2,
        duration_us=1_500_000,
        ttft_us=250_000,
        upstream_us=1_490_000,
        overhead_us=150,
        revision="abc",
    )
    assert expected == row(event, 1_700_000_000.25)


def test_what_is_not_known_is_null(ended: Ended) -> None:
    nothing = dict.fromkeys(("requested_model", "provider", "model", "ttft_seconds", "upstream_seconds", "usage"))
    found = msgspec.structs.asdict(row(ended(**nothing), 1.0))
    tokens = {"input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"}
    unknown = {"token_id", "owner", "requested_model", "provider", "model", "cost_nano_usd", "error_code"}
    assert tokens | unknown | {"ttft_us", "upstream_us"} == {name for name, value in found.items() if value is None}
    assert found["estimated"] is False


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("größer", "größer"),
        ("a\0b", "a\ufffdb"),
        ("half a pair: \ud83d", "half a pair: ?"),
        ("é" * 1000, "é" * (MAX_TEXT_CHARACTERS - 1) + "…"),
        ("", ""),
    ],
)
def test_texts_of_a_client_are_such_as_any_database_takes(ended: Ended, sent: str, kept: str) -> None:
    made = row(ended(requested_model=sent, model=sent), 1.0)
    assert (kept, kept) == (made.requested_model, made.model)


def test_a_cost_that_no_column_holds_is_the_largest_that_one_does(ended: Ended) -> None:
    assert (1 << 63) - 1 == row(ended(cost_nano_usd=1 << 70), 1.0).cost_nano_usd


async def test_requests_go_to_the_database_many_at_a_time(make: Make, database: Database, tmp_path: Path) -> None:
    book = make()
    book.end(*range(1000))
    assert 1000 == book.state.waiting
    await until(lambda: len(database.rows) == 1000)
    assert [1000] == database.batches
    await until(lambda: LedgerState(status="ok") == book.state)
    book.end(1000, error_code="cancelled")
    # What waits is counted a moment after the database has it.
    await until(lambda: (1001, 0) == (book.counting.counts["written"], book.counting.counts["waiting"]))
    assert 1001 == len(database.rows)
    # Neither a spool nor an event where all is well.
    assert ([], False) == (book.told, (tmp_path / "spool").exists())


async def test_a_request_of_nobody_who_is_known_has_no_row(make: Make, database: Database) -> None:
    book = make()
    book.end(*range(100), token=None, error_code="invalid_api_key")
    assert 0 == book.state.waiting
    book.end(100)
    await until(lambda: database.rows)
    assert ids(100) == sorted(database.rows)


async def test_nothing_is_kept_while_the_ledger_is_off(make: Make, database: Database) -> None:
    book = make()
    book.end(1)
    book.ledger.follow(UsageSettings(ledger=False))
    book.end(2)
    assert "off" == book.state.status
    book.ledger.follow(UsageSettings())
    book.end(3)
    await until(lambda: ids(1, 3) == sorted(database.rows))


async def test_a_ledger_that_was_never_started_is_off_and_ends(tmp_path: Path) -> None:
    never = Ledger(Database().itself, ManualClock(), lambda _: None)
    assert LedgerState(status="off") == never.state()
    await never.close()


async def test_while_the_database_is_away_rows_wait_on_the_disk(
    make: Make, database: Database, tmp_path: Path, expect_log: ExpectLog
) -> None:
    book = make()
    book.end(0)
    await until(lambda: database.rows)
    database.fails = AWAY
    with expect_log(TOLD):
        for number in range(1, 1200):
            book.end(number)
            if not number % 100:
                await asyncio.sleep(0.02)
        await until(lambda: (1199, 0) == (book.state.spooled, book.state.waiting))
    assert ("unavailable", "unreachable", 0) == (book.state.status, book.state.reason, book.state.lost)
    assert 1199 == book.counting.counts["on_disk"]
    database.fails = None
    await until(lambda: not book.state.spooled and LedgerState(status="ok") == book.state)
    book.end(1200)
    await until(lambda: len(database.rows) == 1201)
    assert 1201 == book.counting.counts["written"]
    # Told once, whatever was tried meanwhile.
    down, up = book.told
    assert LedgerDown(reason="unreachable") == down
    assert isinstance(up, LedgerRecovered)
    assert (0, True) == (up.lost, up.down_seconds > 0)
    # From the disk in its order, none of it twice.
    assert [f"req_{number}" for number in range(1200)] == [one for one in database.rows if one != "req_1200"]
    await until(lambda: [] == list((tmp_path / "spool").iterdir()))


async def test_new_rows_do_not_wait_for_those_on_the_disk(
    make: Make, database: Database, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    monkeypatch.setattr(ledger_writer, "_AT_ONCE_ON_DISK", 1)
    book = make()
    database.fails = AWAY
    with expect_log(TOLD):
        book.end(*range(200))
        await until(lambda: book.state.spooled == 200)
    database.fails, database.takes_seconds = None, 0.002
    await until(lambda: database.rows)
    book.end(1000)
    await until(lambda: ids(*range(200), 1000) == sorted(database.rows))
    assert "req_1000" != list(database.rows)[-1]


async def test_what_is_on_the_disk_is_written_though_there_are_always_new_rows(
    make: Make, database: Database, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    monkeypatch.setattr(ledger_writer, "PATIENCE_SECONDS", 5)
    book = make()
    database.fails = AWAY
    with expect_log(TOLD):
        book.end(*range(200))
        await until(lambda: book.state.spooled == 200)
    # While some are written the next ones gather.
    database.fails, database.takes_seconds = None, 0.03
    last = 200
    async with asyncio.timeout(60):
        while book.state.spooled:
            book.end(last)
            last += 1
            await asyncio.sleep(0.005)
    await until(lambda: ids(*range(last)) == sorted(database.rows))


async def test_a_slow_database_holds_no_row_in_memory_for_long(
    make: Make, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_writer, "PATIENCE_SECONDS", 0.05)
    book = make()
    database.open.clear()
    for number in range(300):
        book.end(number)
        if not number % 100:
            await asyncio.sleep(0.02)
    await until(lambda: (300, 0) == (book.state.spooled, book.state.waiting))
    assert {} == database.rows
    database.open.set()
    # The write that was late has what the disk has too: it counts once.
    await until(lambda: not book.state.spooled)
    assert (ids(*range(300)), 300) == (sorted(database.rows), book.counting.counts["written"])
    assert [] == book.told


async def test_a_database_that_is_slower_than_rows_come_leaves_them_to_the_disk(
    make: Make, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_writer, "_BATCH", 10)
    monkeypatch.setattr(ledger_writer, "PATIENCE_SECONDS", 0.05)
    # Each batch by itself is in time.
    database.takes_seconds = 0.04
    book = make()
    book.end(*range(1000))
    await until(lambda: len(database.rows) == 1000)
    # They did not wait for a hundred batches one after the other.
    assert database.batches.count(10) < 50
    await until(lambda: LedgerState(status="ok") == book.state)
    assert (1000, []) == (book.counting.counts["written"], book.told)


async def test_what_neither_database_nor_disk_takes_is_lost_beyond_a_bound_and_counted(
    make: Make,
    database: Database,
    tmp_path: Path,
    expect_log: ExpectLog,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MOST_WAITING * 600 < 16 << 20
    monkeypatch.setattr(ledger_writer, "MOST_WAITING", 500)
    (tmp_path / "spool").write_text("no directory")
    book = make()
    database.fails = AWAY
    with expect_log(TOLD), expect_log(NO_DISK), expect_log(NO_SPOOL):
        book.end(*range(700))
        await until(lambda: book.state.lost and NO_DISK in caplog.text)
    assert (500, 0, 200) == (book.state.waiting, book.state.spooled, book.state.lost)
    database.fails = None
    await until(lambda: len(database.rows) == 500)
    assert ids(*range(500)) == sorted(database.rows)
    await until(lambda: len(book.told) == 2)
    recovered = book.told[1]
    assert isinstance(recovered, LedgerRecovered)
    assert (200, 200, 200) == (recovered.lost, book.state.lost, book.counting.counts["lost"])
    book.end(1000)
    await until(lambda: "req_1000" in database.rows)


async def test_the_disk_holds_no_more_than_it_may(
    make: Make,
    database: Database,
    tmp_path: Path,
    expect_log: ExpectLog,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_writer, "MOST_WAITING", 1000)
    monkeypatch.setattr(ledger_writer, "_AT_ONCE_ON_DISK", 10)
    most = 1 << 20
    book = make(max_spool_bytes=most)
    database.fails = AWAY

    def size() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob("spool/*"))

    ended = 0
    with expect_log(TOLD), expect_log(NO_DISK):
        while not ended or size() < most - 10_000:
            book.end(*range(ended, ended + 100))
            ended += 100
            await until(lambda: not book.state.waiting or size() >= most - 10_000)
        book.end(*range(ended, ended + 3000))
        ended += 3000
        await until(lambda: book.state.lost and NO_DISK in caplog.text)
        assert most - 10_000 <= size() <= most
        state = book.state
        assert ended == state.waiting + state.spooled + state.lost
    database.fails = None
    await until(lambda: len(database.rows) == ended - state.lost)
    await until(lambda: len(book.told) == 2)
    assert state.lost == msgspec.structs.asdict(book.told[1])["lost"]


async def test_a_fault_of_ours_loses_no_row(make: Make, database: Database, expect_log: ExpectLog) -> None:
    book = make()
    database.fails = ValueError("out of place")
    with expect_log("the ledger cannot be written"), expect_log("the gateway fails to write them"):
        book.end(1, 2)
        await until(lambda: book.state.spooled == 2)
    assert ("unavailable", "failing") == (book.state.status, book.state.reason)
    database.fails = None
    await until(lambda: ids(1, 2) == sorted(database.rows))


async def test_at_the_end_all_rows_are_written(make: Make, database: Database) -> None:
    book = make()
    book.end(*range(20))
    await book.ledger.close()
    assert ids(*range(20)) == sorted(database.rows)


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_the_database_does_not_take_at_the_end_is_left_for_the_next_start(
    make: Make, database: Database, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    book = make()
    book.end(*range(700))
    if hangs:
        monkeypatch.setattr(ledger_writer, "CLOSE_SECONDS", 0.1)
        database.open.clear()
        await book.ledger.close()
    else:
        database.fails = AWAY
        with expect_log(TOLD):
            await book.ledger.close()
    assert ({}, 0) == (database.rows, book.state.lost)
    database.open.set()
    database.fails = None
    later = make()
    await until(lambda: ids(*range(700)) == sorted(database.rows))
    await until(lambda: LedgerState(status="ok") == later.state)


async def test_rows_that_can_be_kept_nowhere_at_the_end_are_counted(
    make: Make, database: Database, tmp_path: Path, expect_log: ExpectLog
) -> None:
    (tmp_path / "spool").write_text("no directory")
    book = make()
    database.fails = AWAY
    book.end(*range(20))
    with expect_log(TOLD), expect_log(NO_DISK), expect_log(NO_SPOOL):
        await book.ledger.close()
    assert (20, 20) == (book.state.lost, book.counting.counts["lost"])


async def test_what_a_process_leaves_is_taken_over_by_one_that_runs(
    make: Make, database: Database, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_writer, "_TAKE_OVER_SECONDS", 0.05)
    make()
    ending = make()
    ending.end(1, 2, 3)
    database.fails = AWAY
    with expect_log(TOLD):
        await ending.ledger.close()
    database.fails = None
    await until(lambda: ids(1, 2, 3) == sorted(database.rows))
