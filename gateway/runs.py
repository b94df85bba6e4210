"""What running gateways leave on disk, in a folder of their user alone: who runs, and the files that workers share.

Whatever belongs to a process is held by a lock (flock(2)) that goes when the process goes, be it by SIGKILL: what can
be locked by somebody else is left over, and is removed at the next start.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

RUNTIME_DIR = "SLUICE_RUNTIME_DIR"
"""Names the folder where the one in the system's temporary directory is not wanted."""

_RECORD_SUFFIX = ".run"
_WORKERS_PREFIX = "workers-"
_LOCK_FILE = "lock"


class RunRecord(msgspec.Struct, frozen=True):
    """One running gateway, as it describes itself; of several processes, the supervisor."""

    pid: int
    config: str
    """The absolute path of its configuration."""
    listen: str
    predecessor: int | None = None
    """The process that it took the listening sockets from."""
    successor: int | None = None
    """The process that has taken them from it."""
    failures: int = 0
    """How many upgrades have failed."""
    failure: str = ""
    """Why the last one did."""


class RunFile:
    """The record of this process, as long as it runs."""

    def __init__(self, file: Path, record: RunRecord, writing: Callable[[], AbstractContextManager[None]]) -> None:
        """``file`` is made and held, which somebody who is ``writing`` may do; it is entered for each change."""
        self._file = file
        self._record = record
        self._writing = writing
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()

    def handed_over(self, successor: int) -> None:
        self._record = msgspec.structs.replace(self._record, successor=successor)
        with self._writing():
            self._write()

    def failed(self, reason: str) -> None:
        """An upgrade has failed, and this process serves on."""
        self._record = msgspec.structs.replace(self._record, failures=self._record.failures + 1, failure=reason)
        with self._writing():
            self._write()

    def close(self) -> None:
        """This process runs no more."""
        self._file.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _write(self) -> None:
        # In place: the lock is of this very file.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, msgspec.json.encode(self._record), 0)


class RuntimeFolder:
    """The folder that all gateways of a user share."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Make it where it is missing.

        Raises:
            OSError: it cannot be made, or others than this user may write there.
        """
        named = environment.get(RUNTIME_DIR)
        self.path = Path(named) if named else Path(tempfile.gettempdir(), f"sluice-{os.getuid()}")
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{self.path} is not a folder of this user alone: remove it, or set {RUNTIME_DIR}")

    def record(self, record: RunRecord) -> RunFile:
        """Keep ``record`` of this process; those of ended ones are removed.

        Raises:
            OSError: it cannot be written.
        """
        with self._locked():
            for file in self._records():
                if not _is_held(file):
                    file.unlink(missing_ok=True)
            return RunFile(self.path / f"{record.pid}{_RECORD_SUFFIX}", record, self._locked)

    def running(self) -> list[RunRecord]:
        """Every gateway that runs."""
        running = []
        with self._locked():
            for file in filter(_is_held, self._records()):
                # One that ends meanwhile, or that other code has written, is left out.
                with contextlib.suppress(msgspec.MsgspecError, FileNotFoundError):
                    running.append(msgspec.json.decode(file.read_bytes(), type=RunRecord))
        return running

    def private_folder(self) -> "PrivateFolder":
        """A new, empty folder of this process and its workers; those of ended ones are removed.

        Raises:
            OSError: it cannot be made.
        """
        with self._locked():
            for left in self.path.glob(f"{_WORKERS_PREFIX}*"):
                if not _is_held(left):
                    shutil.rmtree(left, ignore_errors=True)
            return PrivateFolder(self.path)

    def _records(self) -> list[Path]:
        return sorted(self.path.glob(f"*{_RECORD_SUFFIX}"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """What is new is held before anybody looks whether it is."""
        descriptor = os.open(self.path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class PrivateFolder:
    """A folder that is held as long as any process has its descriptor open."""

    def __init__(self, parent: Path | None = None) -> None:
        """In ``parent``; None: in the system's temporary directory, where nobody finds it once it is left over."""
        self.path = Path(tempfile.mkdtemp(prefix=f"{_WORKERS_PREFIX}{os.getpid()}-", dir=parent))
        # A lock also keeps systemd-tmpfiles from cleaning it up when it looks old (tmpfiles.d(5), "Age").
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def _is_held(path: Path) -> bool:
    """Whether a living process holds ``path``."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
