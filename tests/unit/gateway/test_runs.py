"""The folder of running gateways: who lives is found, what the dead have left goes, and it is this user's alone."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.runs import RUNTIME_DIR, PrivateFolder, RunRecord, RuntimeFolder
from tests.gateway_process import environment


@pytest.fixture
def folder(tmp_path: Path) -> RuntimeFolder:
    return RuntimeFolder({RUNTIME_DIR: str(tmp_path / "run")})


ME = RunRecord(pid=os.getpid(), config="/etc/sluice/config.yaml", listen="127.0.0.1:8080")

HOLD = """
import sys
from gateway.runs import RUNTIME_DIR, RunRecord, RuntimeFolder
folder = RuntimeFolder({RUNTIME_DIR: sys.argv[1]})
record = folder.record(RunRecord(pid=4, config="c", listen="l"))
private = folder.private_folder()
(private.path / "metrics").mkdir()
print(private.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(folder: RuntimeFolder) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Another process with a record and a private folder, and where that is."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_record_is_there_as_long_as_its_process_says(folder: RuntimeFolder) -> None:
    assert [] == folder.running()
    mine = folder.record(ME)
    assert [ME] == folder.running()
    mine.failed("no luck")
    mine.failed("again none")
    (found,) = folder.running()
    assert (2, "again none", None) == (found.failures, found.failure, found.successor)
    mine.handed_over(17)
    assert 17 == folder.running()[0].successor
    mine.close()
    assert [] == folder.running()
    assert ["lock"] == [left.name for left in folder.path.iterdir()]


def test_what_a_killed_process_has_left_is_removed(
    folder: RuntimeFolder, other: tuple["subprocess.Popen[str]", Path]
) -> None:
    process, private = other
    assert [4] == [record.pid for record in folder.running()]
    mine = folder.private_folder()
    assert private.is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [] == folder.running()
    folder.record(ME).close()
    again = folder.private_folder()
    assert not private.exists()
    assert mine.path.is_dir()
    mine.remove()
    again.remove()
    assert ["lock"] == [left.name for left in folder.path.iterdir()]


def test_a_private_folder_is_held_as_long_as_a_worker_has_it(folder: RuntimeFolder) -> None:
    private = folder.private_folder()
    assert 0o700 == stat.S_IMODE(private.path.stat().st_mode)
    inherited = os.dup(private.descriptor)
    os.close(private.descriptor)
    folder.private_folder().remove()
    assert private.path.is_dir()
    os.close(inherited)
    folder.private_folder().remove()
    assert not private.path.exists()


def test_without_a_runtime_folder_workers_have_one_all_the_same() -> None:
    private = PrivateFolder()
    assert 0o700 == stat.S_IMODE(private.path.stat().st_mode)
    private.remove()
    assert not private.path.exists()


def test_a_record_in_another_form_is_left_out(folder: RuntimeFolder) -> None:
    mine = folder.record(ME)
    (folder.path / f"{ME.pid}.run").write_text("{")
    assert [] == folder.running()
    mine.close()


def test_the_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = RuntimeFolder({}).path
    assert tmp_path / f"sluice-{os.getuid()}" == path
    assert 0o700 == stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        RuntimeFolder({})
    path.rmdir()
    path.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="remove it, or set SLUICE_RUNTIME_DIR"):
        RuntimeFolder({})
    with pytest.raises(OSError, match="No such file"):
        RuntimeFolder({RUNTIME_DIR: str(tmp_path / "nowhere" / "run")})
