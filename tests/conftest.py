"""Strict silence, for every test: an unexpected log record, a leaked task or a planted secret in any output fails it.

Warnings are errors too (pyproject.toml), also those of objects that nobody closed.
"""

import asyncio
import contextlib
import copy
import inspect
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import uvloop

from tests import servers

# A `./sluice` that a test starts runs in the environment of the tests, as it is.
os.environ["SLUICE_VENV"] = sys.prefix

_PLANTED_SECRET = "planted-secret-5f1d9c3a7e"
_FORM = logging.Formatter("%(name)s: %(message)s")


class ExpectLog(Protocol):
    """``with expect_log("regex", level=logging.ERROR):`` — at least one matching record of that level or above comes."""

    def __call__(self, pattern: str, level: int = logging.WARNING) -> contextlib.AbstractContextManager[None]:
        """``pattern`` is searched in the formatted message (and traceback). All records that match are expected ones."""
        ...


class _Records:
    """Every log record that is made, of any logger: also of those that do not propagate or have no handler."""

    def __init__(self) -> None:
        self._all: list[tuple[logging.LogRecord, str]] = []
        self._expected: set[int] = set()
        self._make = logging.getLogRecordFactory()

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """The record factory (logging.setLogRecordFactory)."""
        record = self._make(*args, **kwargs)
        if args[1] is None:
            # No level: logging.makeLogRecord's blank for a copy of a record, which was kept when it was made.
            return record
        # Formatted at once, as the arguments may change later; a copy, as formatting leaves its traces in a record.
        self._all.append((record, _FORM.format(copy.copy(record))))
        return record

    def expect(self, since: int, pattern: str, level: int) -> None:
        found = [
            number
            for number, (record, text) in enumerate(self._all)
            if number >= since and record.levelno >= level and re.search(pattern, text)
        ]
        if not found:
            got = "\n".join(f"    {record.levelname} {text}" for record, text in self._all[since:])
            pytest.fail(f"no log record of level {logging.getLevelName(level)} matches {pattern!r}; there were:\n{got}")
        self._expected.update(found)

    def __len__(self) -> int:
        return len(self._all)

    def unexpected(self) -> list[str]:
        return [
            f"{record.levelname} {text}"
            for number, (record, text) in enumerate(self._all)
            if record.levelno >= logging.WARNING and number not in self._expected
        ]

    def leaks(self) -> list[str]:
        # vars: what came as `extra`, too.
        return [record.name for record, text in self._all if _PLANTED_SECRET in text + repr(vars(record))]


@pytest.fixture(autouse=True)
def log_records() -> Iterator[_Records]:
    """What was logged so far. First of a test's fixtures to begin and last to end, so that it hears the others end."""
    records = _Records()
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(records)
    try:
        yield records
    finally:
        logging.setLogRecordFactory(before)
    if leaks := records.leaks():
        pytest.fail(f"a planted secret was logged by {', '.join(leaks)}")
    if loud := records.unexpected():
        pytest.fail("unexpected log records (expect_log says which are wanted):\n" + "\n".join(loud))


@pytest.fixture
def expect_log(log_records: _Records) -> ExpectLog:
    """Declares log records of WARNING and above that a test provokes; they fail it otherwise."""

    @contextlib.contextmanager
    def expect(pattern: str, level: int = logging.WARNING) -> Iterator[None]:
        since = len(log_records)
        yield
        log_records.expect(since, pattern, level)

    return expect


@pytest.fixture
def planted_secret() -> str:
    """A value to plant as a key or password: no log record and no output of any test may hold it."""
    return _PLANTED_SECRET


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose captured output holds the planted secret."""
    report = yield
    written = "".join(text for title, text in report.sections if title.endswith(call.when))
    if _PLANTED_SECRET in written and report.passed:
        report.outcome = "failed"
        report.longrepr = "a planted secret was written to the standard output or error"
    return report


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on the event loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
        # First to begin, last to end: what the other fixtures start, they may still end themselves.
        item.fixturenames.insert(0, "no_leaked_tasks")


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fails an async test that leaves tasks running. Every async test has it."""
    before = asyncio.all_tasks()
    yield
    # A task that was cancelled, or whose socket was closed, needs a turn or two to end.
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        pytest.fail("tasks are still running:\n" + "\n".join(f"    {task!r}" for task in left))


StartAimock = Callable[..., servers.Aimock]


@pytest.fixture(scope="session")
def start_aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartAimock]:
    """``start_aimock(fixtures, chunk_chars=20, chunk_pause_ms=0)`` starts one; all end with the session."""
    scratch = tmp_path_factory.mktemp("aimock")
    with contextlib.ExitStack() as running:

        def start(fixtures: Path, **pace: int) -> servers.Aimock:
            return running.enter_context(servers.aimock(fixtures, scratch, **pace))

        yield start
