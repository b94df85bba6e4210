"""The supervisor with workers that misbehave: late, mute, deaf, unable to start, and still there in the end."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway import workers
from gateway.runs import PrivateFolder
from gateway.workers import Supervisor, Worker
from tests.conftest import ExpectLog
from tests.gateway_process import until

# What each script begins with: its place, its end of the channel, and what it says and hears there.
_PRELUDE = """
import json, os, socket, sys, time
place = json.loads(sys.argv[-1])
control = socket.socket(fileno=place["control"])
lines = control.makefile("r")
def say(**message): control.sendall(json.dumps(message).encode() + b"\\n")
"""

GOOD = """
say(type="ready", revision="r1")
for line in lines:
    message = json.loads(line)
    if message["type"] == "reload":
        say(type="reloaded", revision=message["trigger"])
    if message["type"] == "drain":
        os._exit(5 if message["handed_over"] else 0)
"""

Start = Callable[..., Supervisor]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        yield bound


@pytest.fixture
async def supervise(listening: socket.socket) -> AsyncIterator[Start]:
    """Runs a supervisor of workers that are a Python script each; it ends with the test."""
    running: list[tuple[Supervisor, asyncio.Task[int]]] = []

    def start(script: str, count: int = 1, on_ready: Callable[[], None] = lambda: None) -> Supervisor:
        folder = PrivateFolder()
        supervisor = Supervisor(["-c", _PRELUDE + script], dict(os.environ), count, folder, on_ready)
        supervisor.take_signals()
        running.append((supervisor, asyncio.ensure_future(supervisor.run([listening], []))))
        return supervisor

    yield start
    for supervisor, task in running:
        supervisor.stop()
        for worker in supervisor.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        await task


def only(supervisor: Supervisor) -> Worker | None:
    return supervisor.workers[0] if supervisor.workers else None


async def test_it_knows_what_each_worker_has_in_force(supervise: Start) -> None:
    ready: list[bool] = []
    supervisor = supervise(GOOD, 2, lambda: ready.append(True))
    await until(lambda: ready)
    assert [(0, 0, "r1"), (1, 0, "r1")] == [(each.slot, each.epoch, each.revision) for each in supervisor.workers]
    supervisor.reload("r2")
    await until(lambda: all(each.revision == "r2" for each in supervisor.workers))
    assert [True] == ready


# Of three workers the first asks, when all are told to reload, and shows what it is told as its revision.
ASKING = """
say(type="ready", revision="r1")
for line in lines:
    message = json.loads(line)
    if message["type"] == "reload" and place["slot"] == 0:
        say(type="asked", number=5, task={"type": "refresh_tokens", "version": 7}, timeout_seconds=600)
    if message["type"] == "answered":
        say(type="reloaded", revision="{count} {failed} {silent} {number}".format(**message))
    if message["type"] == "asked":
        assert message["task"] == {"type": "refresh_tokens", "version": 7}, message
        ANSWER
    if message["type"] == "drain":
        os._exit(0)
"""


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('say(type="done", number=message["number"])', "2 0 0 5"),
        ('say(type="done", number=message["number"], failed=place["slot"] == 2)', "2 1 0 5"),
        ('say(type="done", number=message["number"] + (place["slot"] == 2))', "2 0 1 5"),
        ('place["slot"] == 2 and os._exit(0); say(type="done", number=message["number"])', "2 0 0 5"),
    ],
    ids=["all-do-it", "one-cannot", "one-is-silent", "one-dies"],
)
async def test_what_a_worker_asks_for_is_done_by_all_others(
    supervise: Start, expect_log: ExpectLog, answer: str, told: str
) -> None:
    with expect_log("ended with status 0") if "_exit" in answer else contextlib.nullcontext():
        supervisor = supervise(ASKING.replace("ANSWER", answer), 3)
        await until(lambda: sum(each.ready for each in supervisor.workers) == 3)
        supervisor.reload("ask")
        if told == "2 0 1 5":
            # When one has answered, and the other is silent, the ten minutes pass.
            relays = supervisor._relays
            await until(lambda: [1] == [len(relay.waiting) for relay in relays._relays.values()])
            relays.close()
        await until(lambda: len(supervisor.workers) == 3 and supervisor.workers[0].revision == told)


async def test_a_refused_configuration_is_known_until_the_next_is_taken(supervise: Start) -> None:
    script = GOOD.replace('"reloaded"', '"refused", faults=3 if message["trigger"] == "bad" else 0')
    supervisor = supervise(script.replace("revision=message", "reason=message"))
    await until(lambda: (worker := only(supervisor)) and worker.ready)
    supervisor.reload("bad")
    await until(lambda: supervisor.workers[0].faults == 3)
    assert "r1" == supervisor.workers[0].revision


async def test_a_worker_that_is_not_ready_in_time_is_replaced(
    supervise: Start, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_READY_SECONDS", 0.5)
    with expect_log("it is not ready after 0.5 s|ended with status -9"):
        supervisor = supervise('if place["epoch"] == 0: time.sleep(600)\n' + GOOD)
        await until(lambda: supervisor.workers)
        # The next one has all the time that it needs.
        monkeypatch.setattr(workers, "_READY_SECONDS", 600.0)
        await until(lambda: (worker := only(supervisor)) and worker.epoch == 1 and worker.ready)


async def test_a_worker_that_closes_its_channel_is_replaced(
    supervise: Start, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LAST_SECONDS", 0.2)
    script = (
        'say(type="ready", revision="r1")\nif place["epoch"] == 0: lines.close(); control.close(); time.sleep(600)\n'
    )
    with expect_log("it has closed its channel|ended with status -9"):
        supervisor = supervise(script + GOOD)
        await until(lambda: (worker := only(supervisor)) and worker.epoch == 1 and worker.ready)


async def test_a_worker_that_does_not_end_is_killed_when_asked_twice(
    supervise: Start, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LAST_SECONDS", 0.2)
    supervisor = supervise('say(type="ready", revision="r1")\ntime.sleep(600)\n')
    await until(lambda: (worker := only(supervisor)) and worker.ready)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(supervisor.is_stopping)
    await asyncio.sleep(0.3)
    assert 1 == len(supervisor.workers)
    with expect_log("it does not end"):
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: not supervisor.workers)


async def test_a_worker_that_is_handed_over_is_told_so(listening: socket.socket) -> None:
    folder = PrivateFolder()
    supervisor = Supervisor(["-c", _PRELUDE + GOOD], dict(os.environ), 2, folder)
    supervisor.take_signals()
    running = asyncio.ensure_future(supervisor.run([listening], []))
    await until(lambda: sum(each.ready for each in supervisor.workers) == 2)
    assert folder.path.is_dir()
    supervisor.hand_over()
    supervisor.hand_over()
    assert 5 == await running
    assert not folder.path.exists()
    assert -1 == listening.fileno()


async def test_a_worker_that_starts_while_all_end_ends_too(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Supervisor._start

    async def slowly(self: Supervisor, *arguments: object) -> asyncio.subprocess.Process:
        process = await start(self, *arguments)  # type: ignore[arg-type]  # passed on as it came
        self.stop()
        return process

    monkeypatch.setattr(Supervisor, "_start", slowly)
    supervisor = Supervisor(["-c", _PRELUDE + GOOD], dict(os.environ), 1, PrivateFolder())
    assert 0 == await supervisor.run([listening], [])


async def test_a_program_that_cannot_be_started_is_tried_again(
    supervise: Start,
    expect_log: ExpectLog,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(program))
    with expect_log("cannot be started: No such file|slot 0 is started in 1 s"):
        supervisor = supervise(GOOD)
        await until(lambda: "cannot be started" in caplog.text)
        program.symlink_to(Path(sys._base_executable))  # type: ignore[attr-defined]  # not in the stubs
        await until(lambda: (worker := only(supervisor)) and worker.ready)


async def test_what_is_not_a_workers_to_say_is_not_done(supervise: Start, expect_log: ExpectLog) -> None:
    with expect_log("says what is its supervisor's to say"):
        supervisor = supervise('say(type="drain")\n' + GOOD)
        await until(lambda: (worker := only(supervisor)) and worker.ready)
    assert not supervisor.is_stopping()


async def test_each_worker_knows_its_place(supervise: Start, listening: socket.socket, tmp_path: Path) -> None:
    script = f"""
open("{tmp_path}/" + os.environ["SLUICE_WORKER"], "w").write(sys.argv[-1])
"""
    supervisor = supervise(script + GOOD, 2)
    await until(lambda: sum(each.ready for each in supervisor.workers) == 2)
    for slot in (0, 1):
        place = json.loads((tmp_path / f"{slot}.0").read_text())
        assert (slot, 0, 2) == (place["slot"], place["epoch"], place["slots"])
        assert [listening.fileno()] == place["sockets"]
