"""Strict silence, for every test: an unexpected log record, a leaked task or a planted secret in any output fails it.

Warnings are errors too (pyproject.toml), also those of objects that nobody closed. Where the planted secrets
(tests/planted.py) are looked for: log records, what is printed, what processes give back, events, the files of each test,
and, as the session ends, every other file that it has written.
"""

import asyncio
import contextlib
import copy
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
import uvloop

from core.events import Event, Events
from tests import planted, servers

# A `./sluice` that a test starts runs in the environment of the tests, as it is.
os.environ["SLUICE_VENV"] = sys.prefix

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair, which may be slow, or at other work for seconds. In CI the examples are
# always the same, so that a change is judged by itself; elsewhere there are others each time.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

_ROOT = Path(__file__).resolve().parent.parent
_BEGAN = time.time()
_written: list[Path] = []
"""Where the session has put its files."""
_FORM = logging.Formatter("%(name)s: %(message)s")


class ExpectLog(Protocol):
    """``with expect_log("regex", level=logging.ERROR):`` — at least one matching record of that level or above comes in it,
    or later in the test."""

    def __call__(self, pattern: str, level: int = logging.WARNING) -> contextlib.AbstractContextManager[None]:
        """``pattern`` is searched in the formatted message (and traceback). All records that match are expected ones."""
        ...


class _Records:
    """Every log record that is made, of any logger: also of those that do not propagate or have no handler."""

    def __init__(self) -> None:
        self._all: list[tuple[logging.LogRecord, str]] = []
        self._expected: set[int] = set()
        self._awaited: list[tuple[int, str, int]] = []
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
        """One that has not come yet has time until the test's end: what is told in a later turn of the event loop, or by
        a thread, comes late on a machine that is slow."""
        if not self._find(since, pattern, level):
            self._awaited.append((since, pattern, level))

    def _find(self, since: int, pattern: str, level: int) -> bool:
        found = [
            number
            for number, (record, text) in enumerate(self._all)
            if number >= since and record.levelno >= level and re.search(pattern, text)
        ]
        self._expected.update(found)
        return bool(found)

    def missing(self) -> list[str]:
        return [
            f"no log record of level {logging.getLevelName(level)} matches {pattern!r}; there were:\n"
            + "\n".join(f"    {record.levelname} {text}" for record, text in self._all[since:])
            for since, pattern, level in self._awaited
            if not self._find(since, pattern, level)
        ]

    def __len__(self) -> int:
        return len(self._all)

    def unexpected(self) -> list[str]:
        return [
            f"{record.levelname} {text}"
            for number, (record, text) in enumerate(self._all)
            if record.levelno >= logging.WARNING and number not in self._expected
        ]

    def search(self) -> None:
        for record, text in self._all:
            # vars: what came as `extra`, too.
            planted.search(f"{text}{vars(record)!r}", f"a log record of {record.name}")


@pytest.fixture(autouse=True)
def log_records(request: pytest.FixtureRequest) -> Iterator[_Records]:
    """What was logged so far. First of a test's fixtures to begin and last to end, so that it hears the others end."""
    records = _Records()
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(records)
    try:
        yield records
    finally:
        logging.setLogRecordFactory(before)
    records.search()
    if "tmp_path" in request.node.funcargs:
        planted.search_files(request.node.funcargs["tmp_path"])
    if finds := planted.take_finds():
        pytest.fail("\n".join(finds), pytrace=False)
    if missing := records.missing():
        pytest.fail("\n".join(missing), pytrace=False)
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
    return planted.planted("secret")


@pytest.fixture(autouse=True, scope="session")
def searched_outputs() -> Iterator[None]:
    """Searches what processes give back through pipes, what a test takes from the captured output, and each event."""
    communicate, readouterr, emit = subprocess.Popen.communicate, pytest.CaptureFixture.readouterr, Events.emit
    mktemp = pytest.TempPathFactory.mktemp

    def searched_communicate(process: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = communicate(process, *args, **kwargs)
        for output in outputs:
            planted.search(output, f"the output of process {process.pid}")
        return outputs

    def searched_readouterr(capture: Any) -> Any:
        captured = readouterr(capture)
        for output in captured:
            planted.search(output, "what was written to the standard output or error")
        return captured

    def searched_emit(events: Events, event: Event) -> None:
        planted.search(repr(event), f"the event {type(event).__name__}")
        emit(events, event)

    def remembered_mktemp(*args: Any, **kwargs: Any) -> Path:
        place = mktemp(*args, **kwargs)
        _written.append(place)
        return place

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest.TempPathFactory, "mktemp", remembered_mktemp)
        patch.setattr(subprocess.Popen, "communicate", searched_communicate)
        patch.setattr(pytest.CaptureFixture, "readouterr", searched_readouterr)
        patch.setattr(Events, "emit", searched_emit)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose captured output holds a planted secret."""
    report = yield
    written = "".join(text for title, text in report.sections if title.endswith(call.when))
    if report.passed and (labels := planted.labels(written)):
        report.outcome = "failed"
        report.longrepr = f"planted secrets in the standard output or error: {', '.join(sorted(labels))}"
    return report


def pytest_make_parametrize_id(val: object) -> str | None:
    """A parameter that is a planted secret stands in the name of its test by its label."""
    return " ".join(sorted(planted.labels(val))) or None if isinstance(val, str | bytes) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    # It is in all output of pytest and in what that keeps.
    planted.search(item.nodeid, f"the name of a test of {item.parent and item.parent.name}")
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
        # First to begin, last to end: what the other fixtures start, they may still end themselves.
        item.fixturenames.insert(0, "no_leaked_tasks")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Search what was written but by no one test; after all other hooks, as some write reports."""
    yield
    for place in _written:
        planted.search_files(place)
    reports = [Path(session.config.option.xmlpath)] if session.config.option.xmlpath else []
    kept = [_ROOT / name for name in (".hypothesis/examples", ".pytest_cache", "data")]
    for place in (*reports, *kept, *(each for each in _ROOT.iterdir() if each.is_file())):
        planted.search_files(place, since=_BEGAN)
    if finds := planted.take_finds():
        # No test's failure: nothing that is run again takes it back (tools/run_tests.py).
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        terminal = session.config.get_terminal_writer()
        terminal.sep("=", "planted secrets in what the session left", red=True)
        terminal.write("".join(f"{find}\n" for find in finds))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Async tests run on the event loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fails an async test that leaves tasks running. Every async test has it."""
    before = asyncio.all_tasks()
    yield
    # A task that was cancelled, or whose socket was closed, needs a turn or two to end, or a thread's answer.
    for pause in (*[0.0] * 5, *[0.01] * 1000):
        await asyncio.sleep(pause)
        if pause and not asyncio.all_tasks() - before - {asyncio.current_task()}:
            break
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
