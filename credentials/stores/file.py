"""Accounts in a directory, for all processes of one machine that share it.

::

    DIRECTORY/lock                             held while anything is changed, or all is read
    DIRECTORY/version                          a number
    DIRECTORY/accounts/PROVIDER/NAME.account   one cell each; `%` and two digits for characters that a file system may
    DIRECTORY/logins/KEY.login                 take for others

Files are replaced whole, and are for their owner alone. What else is in the directory is left alone.
"""

import asyncio
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Never, TypeVar, TypeVarTuple
from urllib.parse import unquote

from config.durable import sync_directory, write_private
from core.clock import Clock
from credentials.errors import StoreUnavailable
from credentials.stores.shelf import Account, Key, ShelfStore

MAX_CELL_BYTES = 1024 * 1024

_LOCK_TRIES = 1000
_LOCK_PAUSE_SECONDS = 0.005
# Small letters alone: some file systems take `A` for `a`.
_UNSAFE = re.compile(r"[^a-z0-9._-]|^\.")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FileStore(ShelfStore):
    """:class:`credentials.records.AccountStore` in a directory."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """``directory`` is made when something is first written."""
        super().__init__(FileShelf(directory, clock))


class FileShelf:
    """:class:`credentials.stores.shelf.Shelf` in a directory. All its work is done in threads."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    async def now(self) -> int:
        return self._now()

    async def read(self, key: Key) -> bytes | None:
        return await self._in_thread(_read, self._path(key))

    async def swap(self, key: Key, seen: bytes | None, new: bytes, *, counts: bool = False, until: int = 0) -> bool:
        return await self._in_thread(self._swap, key, seen, new, counts, until)

    async def version(self) -> int:
        return await self._in_thread(self._version)

    async def accounts(self) -> tuple[int, list[tuple[Account, bytes]]]:
        return await self._in_thread(self._accounts)

    async def close(self) -> None:
        """Nothing is open."""

    def _now(self) -> int:
        return round(self._clock.time() * 1_000_000)

    def _path(self, key: Key) -> Path:
        if isinstance(key, str):
            return self._directory / "logins" / f"{_quoted(key)}.login"
        provider, name = key
        return self._directory / "accounts" / _quoted(provider) / f"{_quoted(name)}.account"

    def _swap(self, key: Key, seen: bytes | None, new: bytes, counts: bool, until: int) -> bool:
        path = self._path(key)
        self._make(path.parent)
        with self._locked(fcntl.LOCK_EX):
            if _read(path) != seen:
                return False
            if counts:
                # Before it: whoever sees the number and reads all waits for the lock. Nor does it matter if no change follows.
                self._count()
            self._write(path, new)
            if isinstance(key, str):
                # So that it is known when it may go, without reading it.
                os.utime(path, ns=(until * 1000, until * 1000))
                self._forget_logins(path.parent)
        return True

    def _accounts(self) -> tuple[int, list[tuple[Account, bytes]]]:
        if not self._directory.is_dir():
            return 0, []
        with self._locked(fcntl.LOCK_SH):
            return self._version(), list(self._cells())

    def _cells(self) -> Iterator[tuple[Account, bytes]]:
        for path in sorted((self._directory / "accounts").glob("*/*.account")):
            provider, name = unquote(path.parent.name), unquote(path.stem)
            if self._path((provider, name)) == path:
                try:
                    data = _read(path)
                except OSError:
                    data = b""  # damaged, then; the others are not affected
                if data is not None:
                    yield (provider, name), data

    def _version(self) -> int:
        data = _read(self._directory / "version") or b""
        return int(data) if re.fullmatch(rb"[0-9]{1,18}", data) else 0

    def _count(self) -> None:
        # By the time, as the file may have been lost.
        version = max(self._version() + 1, self._now())
        self._write(self._directory / "version", b"%d" % version)

    def _write(self, path: Path, data: bytes) -> None:
        write_private(path, data)
        self._give(path)

    def _give(self, path: Path) -> None:
        # `./sluice rekey` may be run by root, and the gateway as somebody else.
        if os.geteuid() == 0:
            owner = self._directory.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _forget_logins(self, directory: Path) -> None:
        now = self._now()
        for path in directory.glob("*.login"):
            if path.stat().st_mtime_ns <= now * 1000:
                path.unlink()

    def _make(self, directory: Path) -> None:
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for each in reversed(missing):
            with suppress(FileExistsError):
                each.mkdir(mode=0o700)
                if each.is_relative_to(self._directory):
                    self._give(each)
            sync_directory(each.parent)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._give(self._directory / "lock")
            _take(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    async def _in_thread(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, work, *args)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> Never:
        raise StoreUnavailable(
            f"the accounts in {self._directory} cannot be used: {error.strerror or error}; see to its owner, its mode and the "
            "space on its disk (`oauth.directory`)"
        ) from None


def _quoted(text: str) -> str:
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), text)


def _read(path: Path) -> bytes | None:
    """None: there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    try:
        # A pipe must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        # Nothing of ours is as large: the rest makes no difference.
        return file.read(MAX_CELL_BYTES)


def _take(descriptor: int, how: int) -> None:
    """
    Raises:
        OSError: another process has the lock, and keeps it.
    """
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            # Who has it holds it for some milliseconds, or is stopped: then nobody is to wait for it for ever.
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return
    raise OSError(errno.EBUSY, "another process holds its lock")
