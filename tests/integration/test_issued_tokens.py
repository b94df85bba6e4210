"""Bringing the tokens of a database into memory: real SQLite files, and what may befall them."""

import asyncio
import hashlib
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from access.issued import IssuedTokens
from config.schema import Config
from core.clock import ManualClock
from core.events import Event, TokenCreated, TokenRevoked
from core.identity import Author
from core.tasks import Tasks
from gateway.control import Answered, RefreshTokens
from gateway.issued_tokens import IssuedTokenKeeper, IssuedTokenService
from gateway.others import Alone
from gateway.stores import Stores
from management.token_service import Successor
from storage.errors import NotFound, Stale, StorageUnavailable
from storage.records import NewToken
from tests.conftest import ExpectLog
from tests.gateway_process import until

AUTHOR = Author("admin_key", "admin-key")


class Others(Alone):
    """Answers as a test says, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.answer = Answered(1)

    async def ask(self, task: Any, _timeout_seconds: float = 0.0) -> Answered:
        self.asked.append(task)
        return self.answer


class Worker:
    """What a process has of it."""

    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self.clock = clock
        self.stores = Stores(clock)
        self.stores.begin(Config(), directory)
        self.issued = IssuedTokens()
        self.keeper = IssuedTokenKeeper(self.issued, self.stores, clock)
        self.others = Others()
        self.told: list[Event] = []
        self.service = IssuedTokenService(
            self.keeper, self.issued, self.stores, lambda: self.others, clock, self.told.append, lambda: ()
        )

    def names(self, *texts: str) -> list[str | None]:
        found = (self.issued.find(sha256(text)) for text in texts)
        return [token.name if token is not None else None for token in found]


def exists(file: Path) -> bool:
    return file.exists()


def write_rubbish(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"no database at all, but a file that is long enough to be one" * 100)


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def new(text: str) -> NewToken:
    return NewToken(
        id=f"tok_{text}", name=text, sha256=sha256(text), prefix="sk-", scope="scope_token_user", created_by="admin-key"
    )


@pytest.fixture
async def start(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def started() -> Worker:
        workers.append(Worker(tmp_path, clock))
        return workers[-1]

    yield started
    for worker in workers:
        await worker.stores.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sluice.db"


async def test_without_a_database_a_start_waits_for_nothing_and_makes_none(
    start: Callable[[], Worker], database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.issued_tokens.START_SECONDS", 120.0)
    worker, background = start(), Tasks()
    async with asyncio.timeout(60):
        await worker.keeper.start(background)
    await background.cancel()
    assert not exists(database)
    assert (0, True, None) == _status(worker)
    assert None is await worker.service.get("tok_a")
    assert () == (await worker.service.list(cursor=None, limit=10, owner=None, include_revoked=True)).entries
    for change in (
        worker.service.update("tok_a", 1, AUTHOR, owner="ann"),
        worker.service.revoke("tok_a", None, AUTHOR),
        worker.service.rotate("tok_a", None, Successor("tok_b", b"", "", 0), AUTHOR),
    ):
        with pytest.raises(NotFound):
            await change
    assert not exists(database)


def _status(worker: Worker) -> tuple[int, bool, object]:
    status = worker.keeper.status()
    return status.count, status.loaded, status.stale_since


async def test_each_change_is_known_here_is_told_to_the_others_and_is_an_event(start: Callable[[], Worker]) -> None:
    worker = start()
    for text in ("a", "b"):
        assert (await worker.service.create(new(text), AUTHOR)).everywhere
    assert ["a", "b"] == worker.names("a", "b")
    await worker.service.update("tok_a", 1, AUTHOR, name="renamed")
    assert ["renamed", "b"] == worker.names("a", "b")
    grace_until = round(worker.clock.time() * 1_000_000) + 5_000_000
    kept = await worker.service.rotate("tok_a", 3, Successor("tok_c", sha256("c"), "sk-", grace_until), AUTHOR)
    assert ("tok_c", "tok_a") == (kept.token.id, kept.token.rotated_from)
    assert ["renamed", "renamed"] == worker.names("a", "c")
    await worker.service.rotate("tok_b", None, Successor("tok_d", sha256("d"), "sk-", 0), AUTHOR)
    assert [None, "b"] == worker.names("b", "d")
    worker.others.answer = Answered(2, silent=1)
    assert not (await worker.service.revoke("tok_d", None, AUTHOR)).everywhere
    assert [None] == worker.names("d")
    assert [RefreshTokens(version) for version in range(1, 7)] == worker.others.asked
    assert [
        TokenCreated(token_id="tok_a", token="a", by="admin-key"),
        TokenCreated(token_id="tok_b", token="b", by="admin-key"),
        TokenCreated(token_id="tok_c", token="renamed", by="admin-key", rotated_from="tok_a"),
        TokenCreated(token_id="tok_d", token="b", by="admin-key", rotated_from="tok_b"),
        TokenRevoked(token_id="tok_b", token="b", by="admin-key"),
        TokenRevoked(token_id="tok_d", token="b", by="admin-key"),
    ] == worker.told


async def test_a_change_that_expects_another_version_is_refused(start: Callable[[], Worker]) -> None:
    worker = start()
    await worker.service.create(new("a"), AUTHOR)
    successor = Successor("tok_b", sha256("b"), "sk-", 0)
    for change in (
        worker.service.update("tok_a", 7, AUTHOR, owner="ann"),
        worker.service.revoke("tok_a", 7, AUTHOR),
        worker.service.rotate("tok_a", 7, successor, AUTHOR),
    ):
        with pytest.raises(Stale):
            await change
    assert (["a", None], 1) == (worker.names("a", "b"), len(worker.others.asked))


async def test_another_worker_knows_when_it_was_asked_to(start: Callable[[], Worker]) -> None:
    one, other = start(), start()
    kept = await one.service.create(new("a"), AUTHOR)
    await other.keeper.refresh(kept.token.changed)
    assert ["a"] == other.names("a")
    revoked = await one.service.revoke("tok_a", None, AUTHOR)
    await other.keeper.refresh(revoked.token.changed)
    assert [None] == other.names("a")


async def test_more_than_one_part_is_read(start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = start(), start()
    for number in range(5):
        await one.service.create(new(f"t{number}"), AUTHOR)
    store = other.stores.tokens
    parts = store.living
    monkeypatch.setattr(store, "living", lambda: parts(at_a_time=2))
    await other.keeper.refresh(1)
    assert [f"t{number}" for number in range(5)] == other.names(*(f"t{number}" for number in range(5)))
    assert (5, 5) == (other.issued.version, len(other.issued))


async def test_a_backup_that_is_put_back_is_read_again_whole(
    start: Callable[[], Worker], database: Path, expect_log: ExpectLog
) -> None:
    one = start()
    await one.service.create(new("a"), AUTHOR)
    await one.stores.close()
    shutil.copy(database, database.with_suffix(".backup"))
    two = start()
    await two.service.revoke("tok_a", None, AUTHOR)
    await two.service.create(new("b"), AUTHOR)
    reader = start()
    await reader.keeper.refresh(3)
    assert [None, "b"] == reader.names("a", "b")
    for worker in (two, reader):
        await worker.stores.close()
    for leftover in database.parent.glob("sluice.db-*"):
        leftover.unlink()
    shutil.copy(database.with_suffix(".backup"), database)
    with expect_log("the database has older tokens than were known, from a backup probably", logging.WARNING):
        await reader.keeper.refresh(9)
    assert ["a", None] == reader.names("a", "b")


async def test_what_cannot_be_read_leaves_what_was_known_and_is_told_once(
    start: Callable[[], Worker], database: Path, expect_log: ExpectLog
) -> None:
    worker, background = start(), Tasks()
    await worker.service.create(new("a"), AUTHOR)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE tokens SET models = '{', changed = 2")
        connection.execute("UPDATE changes SET version = 2 WHERE topic = 'tokens'")
    with expect_log("the tokens that the API has made cannot be read, and stay(.|\n)*DecodeError", logging.ERROR):
        await worker.keeper.look()
        await worker.keeper.look()
    assert ["a"] == worker.names("a")
    count, loaded, stale_since = _status(worker)
    assert (1, True, True) == (count, loaded, stale_since is not None)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE tokens SET models = '[]', name = 'mended'")
    await worker.keeper.look()
    assert (["mended"], (1, True, None)) == (worker.names("a"), _status(worker))
    await background.cancel()


async def test_a_start_without_an_answer_serves_after_a_while_and_says_what_is_awaited(
    start: Callable[[], Worker], database: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.issued_tokens.START_SECONDS", 0.2)
    write_rubbish(database)
    worker, background = start(), Tasks()
    with expect_log("cannot be read yet"), expect_log("damaged"):
        await worker.keeper.start(background)
        await until(lambda: _status(worker)[2] is not None)
    await background.cancel()
    assert worker.issued.incomplete
    assert (0, False) == _status(worker)[:2]
    with pytest.raises(StorageUnavailable):
        await worker.keeper.refresh(1)
    with pytest.raises(StorageUnavailable):
        await worker.service.create(new("a"), AUTHOR)
    assert ([], [None]) == (worker.told, worker.names("a"))
