"""Who a process is among all that share a database, so that others can tell when it has ended.

Its name is that of a file which it holds locked: the lock (flock(2)) goes when the process goes, be it by SIGKILL. Of
processes of other machines nothing can be told; their files are elsewhere.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".owner"
_TRIES = 5


class Owner:
    """This process, and the others of its machine. Methods read or write a small file or two, in this thread."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is shared by all of them; it is made when it is needed."""
        self._directory = directory
        self._name: str | None = None
        self._descriptor = -1

    def name(self) -> str | None:
        """The name of this process, from now on; None where the disk takes no file."""
        if self._name is None:
            # What is lost then is but that others can tell.
            with contextlib.suppress(OSError):
                self._hold()
        return self._name

    @contextlib.contextmanager
    def gone(self) -> Iterator[tuple[str, ...]]:
        """Names of processes that have ended. When the block ends well they are forgotten."""
        held: dict[Path, int] = {}
        try:
            with contextlib.suppress(OSError):
                for path in self._directory.glob(f"*{_SUFFIX}"):
                    descriptor = _taken(path)
                    if descriptor is not None:
                        held[path] = descriptor
            yield tuple(path.stem for path in held)
            with contextlib.suppress(OSError):
                for path in held:
                    path.unlink(missing_ok=True)
        finally:
            for descriptor in held.values():
                os.close(descriptor)

    def close(self) -> None:
        """This process ends. Its file stays, for those who look."""
        if self._name is not None:
            os.close(self._descriptor)
            self._name = None

    def _hold(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(_TRIES):
            name = f"{os.getpid()}-{secrets.token_hex(4)}"
            path = self._directory / f"{name}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _locked(descriptor) and os.fstat(descriptor).st_nlink:
                self._name, self._descriptor = name, descriptor
                return
            # Another took it for one that was left, before it was locked.
            os.close(descriptor)


def _taken(path: Path) -> int | None:
    """A descriptor of the file, where nobody else holds it. This process does not get its own a second time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    if _locked(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
