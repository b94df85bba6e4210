"""What waits for the database, on the disk: files of one line an entry, each line with its checksum.

Every process writes a file of its own, which it holds locked; of one that has ended, another takes over what it left.
An entry that was appended is on the disk (fsync). A file goes once all of it has been written to the database; a process
that is killed before that leaves entries that are there already, so whoever writes them must pass over these.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from config.durable import sync_directory

T = TypeVar("T")

MAX_BYTES = 64 << 20
_SUFFIX = ".spool"
_DAMAGED = ".damaged"
_READ_BYTES = 1 << 18
_CHECKSUM_DIGITS = 8
_TRIES = 5

_log = logging.getLogger("sluice.storage")


class SpoolFull(Exception):
    """The spool has as many bytes as it may."""


class _File:
    """A spool file that this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.begun = 0
        """Up to here it has been written to the database."""
        self.peeked = 0
        """Up to here it has been read."""
        self.entries = 0
        """So many lines are behind ``begun``."""
        self.peeked_entries = 0
        """So many of them are before ``peeked``."""
        self.torn = False
        """Behind ``size`` is what an append that failed has left."""
        self.damaged = False
        self.cut = False

    def close(self) -> None:
        os.close(self.descriptor)

    def finish(self) -> None:
        """All of it has been written."""
        with contextlib.suppress(FileNotFoundError):
            if self.damaged:
                self.path.replace(self.path.with_name(self.path.name + _DAMAGED))
            else:
                self.path.unlink()
        self.close()


class Spool(Generic[T]):
    """Entries of one ``kind`` in files of one directory. Methods block, and may be called from any thread."""

    def __init__(self, directory: Path, name: str, kind: type[T], max_bytes: int = MAX_BYTES) -> None:
        """``name`` tells it from other spools of the directory. Nothing is made before something is appended."""
        self._directory = directory
        self._name = name
        self._max_bytes = max_bytes
        self._decoder = msgspec.json.Decoder(kind)
        self._encode = msgspec.json.Encoder().encode
        self._lock = threading.Lock()
        self._own: _File | None = None
        self._taken_over: list[_File] = []

    @property
    def pending_entries(self) -> int:
        """How many have not been written to the database yet."""
        return sum(file.entries for file in self._files())

    def count_all(self) -> int:
        """What any process of this machine has here. Of other processes' files, what has been written of them meanwhile
        is counted too."""
        with self._lock:
            held = {file.path for file in self._files()}
            count = self.pending_entries
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if self._is_ours(path) and path not in held:
                    count += _lines_of(path)
        return count

    @property
    def has_room(self) -> bool:
        return self._held_bytes() < self._max_bytes

    def take_over(self) -> bool:
        """Hold what ended processes have left too, before what is our own; whether there is any.

        Raises:
            OSError: the directory cannot be read.
        """
        with self._lock:
            found = False
            with contextlib.suppress(FileNotFoundError):
                paths = [path for path in self._directory.iterdir() if self._is_ours(path)]
                # The oldest first, as far as the times of files tell.
                for path in sorted(paths, key=_written_at):
                    file = _held(path)
                    if file is not None:
                        _log.info("taking over %s, which an ended process has left", path)
                        file.entries = _lines_in(file.descriptor)
                        self._taken_over.append(file)
                        found = True
            return found

    def append(self, entries: Sequence[T]) -> None:
        """Add ``entries``: all of them are on the disk then, or none.

        Raises:
            SpoolFull: there are too many.
            OSError: the disk does not take them.
        """
        data = b"".join(_line(self._encode(entry)) for entry in entries)
        with self._lock:
            if self._held_bytes() + len(data) > self._max_bytes:
                raise SpoolFull(f"{self._directory} has its {self._max_bytes} bytes")
            if self._own is None:
                self._own = self._make()
            file = self._own
            if file.torn:
                os.ftruncate(file.descriptor, file.size)
            file.torn = True
            try:
                _write(file.descriptor, data)
                os.fsync(file.descriptor)
            except OSError:
                # What is there of it would be taken for entries, or spoil the next.
                os.ftruncate(file.descriptor, file.size)
                file.torn = False
                raise
            file.torn = False
            file.size += len(data)
            file.entries += len(entries)

    def peek(self, most: int) -> list[T]:
        """The oldest ``most`` entries; none where there are none left.

        Raises:
            OSError: the disk does not give them.
        """
        with self._lock:
            while files := self._files():
                file = files[0]
                entries = self._read(file, most)
                if entries:
                    return entries
                self._finish(file)
            return []

    def drop(self) -> None:
        """What :meth:`peek` gave last has been written."""
        with self._lock:
            file = self._files()[0]
            file.begun = file.peeked
            file.entries -= file.peeked_entries
            file.peeked_entries = 0
            if file.begun >= file.size:
                self._finish(file)

    def close(self) -> None:
        """Let go of the files. What is in them stays."""
        with self._lock:
            for file in self._files():
                file.close()
            self._own = None
            self._taken_over.clear()

    def _files(self) -> list[_File]:
        return [*self._taken_over, *([self._own] if self._own is not None else [])]

    def _held_bytes(self) -> int:
        return sum(file.size for file in self._files())

    def _is_ours(self, path: Path) -> bool:
        return path.suffix == _SUFFIX and path.name.partition(".")[0] == self._name

    def _make(self) -> _File:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(_TRIES):
            path = self._directory / f"{self._name}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            file = _locked(path, os.open(path, flags, 0o600))
            if file is not None:
                sync_directory(self._directory)
                return file
            # Another process took it for one that was left, before it was locked.
        raise BlockingIOError("other processes take every file that is made")

    def _read(self, file: _File, most: int) -> list[T]:
        file.peeked = file.begun
        file.peeked_entries = 0
        entries: list[T] = []
        data = b""
        while len(entries) < most:
            end = data.find(b"\n")
            if end < 0:
                read = file.peeked + len(data)
                if more := os.pread(file.descriptor, min(_READ_BYTES, file.size - read), read):
                    data += more
                    continue
                if data:
                    _tell_cut(file)
                    file.peeked = file.size
                break
            line, data = data[:end], data[end + 1 :]
            file.peeked += end + 1
            file.peeked_entries += 1
            try:
                entries.append(self._decoder.decode(_checked(line)))
            except (ValueError, msgspec.MsgspecError):
                _tell_damaged(file)
        return entries

    def _finish(self, file: _File) -> None:
        if file is self._own:
            self._own = None
        else:
            self._taken_over.remove(file)
        file.finish()


def _tell_cut(file: _File) -> None:
    if not file.cut:
        _log.warning("the last entry in %s is cut and is left out: its writer ended before it was kept", file.path)
    file.cut = True


def _tell_damaged(file: _File) -> None:
    if not file.damaged:
        name = file.path.name + _DAMAGED
        _log.error("an entry in %s is damaged and is left out: the file will stay as %s", file.path, name)
    file.damaged = True


def _held(path: Path) -> _File | None:
    """The file, where nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    return _locked(path, descriptor)


def _locked(path: Path, descriptor: int) -> _File | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not os.fstat(descriptor).st_nlink:
        # Whoever held it has finished it.
        os.close(descriptor)
        return None
    return _File(path, descriptor)


def _written_at(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _lines_of(path: Path) -> int:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return _lines_in(descriptor)
        finally:
            os.close(descriptor)
    return 0


def _lines_in(descriptor: int) -> int:
    """Whole ones: what is behind the last was never kept."""
    count = place = 0
    while data := os.pread(descriptor, _READ_BYTES, place):
        count += data.count(b"\n")
        place += len(data)
    return count


def _line(text: bytes) -> bytes:
    return b"%0*x %b\n" % (_CHECKSUM_DIGITS, zlib.crc32(text), text)


def _checked(line: bytes) -> bytes:
    """
    Raises:
        ValueError: the checksum is not that of the text.
    """
    checksum, _, text = line.partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        raise ValueError("the checksum is not that of the text")
    return text


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
