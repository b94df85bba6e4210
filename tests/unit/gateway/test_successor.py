"""What a gateway does with a successor that serves, refuses, dies, is late, or is not wanted any more; who may ask."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from core.clock import ManualClock
from gateway import upgrade
from gateway.control import Channel
from gateway.runs import RUNTIME_DIR, RunFile, RunRecord, RuntimeFolder
from gateway.upgrade import Bound, Doors, Inheritance, Predecessor, UpgradeFailed, Upgrader, request_upgrade
from tests.conftest import ExpectLog
from tests.gateway_process import until

PRELUDE = """
import json, os, signal, socket, sys, time
told = json.loads(sys.argv[-1])
control = socket.socket(fileno=told["control"])
def say(**message): control.sendall(json.dumps(message).encode() + b"\\n")
"""
SERVES = 'say(type="ready", revision="r"); time.sleep(60)'


@pytest.fixture
def doors() -> Iterator[Doors]:
    with socket.socket() as server, socket.socket() as management:
        for each in (server, management):
            each.bind(("127.0.0.1", 0))
            each.listen()
        yield Doors("127.0.0.1:80", [server], "127.0.0.1:81", [management])


@pytest.fixture
def folder(tmp_path: Path) -> RuntimeFolder:
    return RuntimeFolder({RUNTIME_DIR: str(tmp_path / "run")})


class Old:
    """A gateway that can be asked to upgrade."""

    def __init__(self, doors: Doors, script: str, record: RunFile) -> None:
        self.handed_over = self.stopping = False
        script = PRELUDE + textwrap.dedent(script)
        self.upgrader = Upgrader(["-c", script], doors, self._hand_over, lambda: self.stopping)
        self.upgrader.record = record
        self.upgrader.take_signal()

    def _hand_over(self) -> None:
        self.handed_over = True


StartOld = Callable[[str], Old]


@pytest.fixture
async def old(doors: Doors, folder: RuntimeFolder) -> AsyncIterator[StartOld]:
    """Gives a gateway whose successors are a script each; they are killed in the end."""
    record = folder.record(RunRecord(pid=os.getpid(), config="/c", listen="l"))
    made: list[Old] = []
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    def make(script: str) -> Old:
        made.append(Old(doors, script, record))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", start)
        yield make
        for each in made:
            await each.upgrader.close()
    for process in started:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)  # noqa: ASYNC222  it is dead already
        process.returncode = 0


def mine(folder: RuntimeFolder) -> RunRecord:
    (record,) = folder.running()
    return record


async def test_who_serves_is_handed_over_to(old: StartOld, folder: RuntimeFolder) -> None:
    one = old(SERVES)
    os.kill(os.getpid(), signal.SIGUSR2)
    await until(lambda: one.handed_over)
    successor = mine(folder).successor
    assert successor is not None
    os.kill(successor, 0)


async def test_a_successor_inherits_the_sockets_and_what_they_are_for(
    old: StartOld, doors: Doors, tmp_path: Path
) -> None:
    one = old(f"""
        import stat
        for bound in (told["server"], told["management"]):
            for number in bound["descriptors"]: assert stat.S_ISSOCK(os.fstat(number).st_mode)
        open("{tmp_path}/told", "w").write(sys.argv[-1])
        {SERVES}
    """)
    one.upgrader.ask()
    await until(lambda: one.handed_over)
    told = Inheritance.parse((tmp_path / "told").read_text())
    assert os.getpid() == told.predecessor
    assert Bound("127.0.0.1:80", (doors.sockets[0].fileno(),)) == told.server
    assert Bound("127.0.0.1:81", (doors.management_sockets[0].fileno(),)) == told.management


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('say(type="refused", faults=2, reason="this and that"); time.sleep(60)', "this and that"),
        ('say(type="reloaded", revision="r"); os._exit(3)', r"process \d+ ended with status 3 before it was ready"),
        ("control.close(); time.sleep(60)", r"process \d+ closed its channel before it was ready"),
        ("time.sleep(60)", r"process \d+ was not ready after 0.5 s"),
        (
            'signal.signal(signal.SIGTERM, signal.SIG_IGN); say(type="refused", faults=1, reason="deaf"); time.sleep(60)',
            "deaf",
        ),
    ],
)
async def test_a_successor_that_fails_changes_nothing(
    old: StartOld,
    folder: RuntimeFolder,
    expect_log: ExpectLog,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    reason: str,
) -> None:
    if "was not ready" in reason:
        # The others have all the time that a machine needs to start them.
        monkeypatch.setattr(upgrade, "_READY_SECONDS", 0.5)
    monkeypatch.setattr(upgrade, "_END_SECONDS", 0.5)
    monkeypatch.setattr(upgrade, "_LOOK_SECONDS", 0.01)
    one = old(script)
    with expect_log(f"the upgrade failed, nothing has changed: {reason}"):
        one.upgrader.ask()
        await until(lambda: mine(folder).failures == 1)
        # It is seen to its end, whatever it does.
        await until(lambda: not len(one.upgrader._reapers))
    assert not one.handed_over
    assert mine(folder).successor is None


async def test_an_upgrade_is_one_at_a_time(old: StartOld, folder: RuntimeFolder, expect_log: ExpectLog) -> None:
    one = old('time.sleep(0.2); say(type="refused", faults=1, reason="no")')
    with expect_log("the upgrade failed"):
        for _ in range(3):
            one.upgrader.ask()
        await until(lambda: mine(folder).failures and not len(one.upgrader._tasks))
    assert 1 == mine(folder).failures
    with expect_log("the upgrade failed"):
        one.upgrader.ask()
        await until(lambda: mine(folder).failures == 2)


async def test_nobody_takes_the_place_of_who_is_told_to_stop(
    old: StartOld, folder: RuntimeFolder, expect_log: ExpectLog, tmp_path: Path
) -> None:
    may_serve = tmp_path / "may serve"
    one = old(f"while not os.path.exists({str(may_serve)!r}): time.sleep(0.01)\n{SERVES}")
    with expect_log("told to stop meanwhile"):
        one.upgrader.ask()
        await asyncio.sleep(0.05)
        one.stopping = True
        may_serve.touch()
        await until(lambda: mine(folder).failures and not len(one.upgrader._tasks))
    with expect_log("it is stopping"):
        one.upgrader.ask()
        await until(lambda: mine(folder).failures == 2 and not len(one.upgrader._tasks))
    one.stopping = False
    may_serve.unlink()
    one.upgrader.ask()
    await asyncio.sleep(0.05)
    await one.upgrader.close()
    assert not one.handed_over
    assert [] == folder.running()


async def test_there_are_gateways_without_successors(
    doors: Doors, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passing = Upgrader(None, doors, lambda: None, lambda: False)
    with expect_log("its configuration goes when it ends"):
        await passing._upgrade()
    usual = Upgrader(["-c", ""], doors, lambda: None, lambda: False)
    with monkeypatch.context() as patch, expect_log("first process of a container.*start a new container"):
        patch.setattr(os, "getpid", lambda: 1)
        await usual._upgrade()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with expect_log("no process can be started: No such file"):
        await usual._upgrade()


async def test_a_successor_tells_what_is_wrong_in_bounds() -> None:
    ours, theirs = socket.socketpair()
    told: list[object] = []
    channel = Channel(ours, told.append)
    successor = Predecessor(theirs.detach())
    successor.refused(OSError("x" * 5000))
    successor.ready("r")
    successor.close()
    await until(lambda: channel.closed)
    assert ["x" * 2000, "r"] == [getattr(each, "reason", getattr(each, "revision", None)) for each in told]


def test_who_asks_is_told_what_came_of_it(folder: RuntimeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    record = folder.record(RunRecord(pid=os.getpid(), config="/c", listen="127.0.0.1:8080"))
    happens: list[Callable[[], object]] = []
    monkeypatch.setattr(signal, "SIGUSR2", 0)  # which asks whether the process is there, and does nothing else

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if happens:
            happens.pop(0)()

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(UpgradeFailed, match="has not said what came of it: see its log"):
        request_upgrade(folder, Path("/c"), None, clock)
    happens += [lambda: None, lambda: record.failed("no luck")]
    with pytest.raises(UpgradeFailed, match=f"process {os.getpid()} serves on: no luck"):
        request_upgrade(folder, Path("/c"), None, clock)
    happens += [lambda: None, lambda: record.handed_over(77)]
    assert (os.getpid(), 77) == request_upgrade(folder, Path("/nowhere"), os.getpid(), clock)
    with pytest.raises(UpgradeFailed, match="no gateway of yours serves /c; those that run: none"):
        request_upgrade(folder, Path("/c"), None, clock)
    record.close()


def test_an_old_process_that_has_ended_has_a_successor_or_not(
    folder: RuntimeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "SIGUSR2", 0)
    first = folder.record(RunRecord(pid=os.getpid(), config="/c", listen="l"))
    second = folder.record(RunRecord(pid=77, config="/d", listen="l", predecessor=os.getpid()))
    monkeypatch.setattr("time.sleep", lambda _: first.close())
    assert (os.getpid(), 77) == request_upgrade(folder, Path("/c"), None, ManualClock())
    second.close()
    first = folder.record(RunRecord(pid=os.getpid(), config="/c", listen="l"))
    with pytest.raises(UpgradeFailed, match="has ended, and no other has taken its place"):
        request_upgrade(folder, Path("/c"), None, ManualClock())
    gone = folder.record(RunRecord(pid=2**22 - 3, config="/c", listen="l"))
    with pytest.raises(UpgradeFailed, match="has just ended"):
        request_upgrade(folder, Path("/c"), None, ManualClock())
    gone.close()
