"""Files replaced whole or not at all."""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from config.durable import sync_directory
from config.edit.errors import EditFault, ReadOnlyDocument, WriteFailed
from config.edit.exchange import exchange, is_being_written

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# So often, at most, what came in between is put back.
_TRIES = 10


class Overtaken(Exception):
    """The file was changed by somebody who knows nothing of locks, and is as they have left it."""


class Prepared(msgspec.Struct, frozen=True):
    """New content that lies on the disk beside the file it is for."""

    target: Path
    """The file itself, behind all symlinks."""
    beside: Path
    before: str
    """What the file holds, as :func:`digest` has it: it takes the place of nothing else."""
    after: str
    """The new content, likewise."""

    def put(self) -> None:
        """Let the new content take the file's place.

        Raises:
            OSError: it cannot; the file is as it was.
            Overtaken: the file holds something else by now.
        """
        if digest(self.target.read_bytes()) != self.before:
            raise Overtaken
        if exchange(self.beside, self.target):
            self._see_what_came_out()
            self.drop()
        else:
            # Between the look at it and this, an edit by hand would be lost.
            self.beside.replace(self.target)
        # It has happened: a directory that cannot be synchronized now makes it last less surely, not undone.
        with suppress(OSError):
            sync_directory(self.target.parent)

    def _see_what_came_out(self) -> None:
        """
        Raises:
            Overtaken: something else than was expected, which is put back.
        """
        expected, inside = self.before, self.after
        for number in range(_TRIES):
            out = digest(self.beside.read_bytes())
            # Who has it open may have looked at it, and writes to it yet.
            if out == expected and not is_being_written(self.beside):
                if number:
                    raise Overtaken
                return
            exchange(self.beside, self.target)
            expected, inside = inside, out
        raise Overtaken

    def drop(self) -> None:
        """Remove the new content, if it is still beside the file."""
        with suppress(OSError):
            self.beside.unlink()


def beside(target: Path, mark: str) -> Path:
    """Where the new content of ``target`` lies; ``mark`` tells the name apart from those of other writers.

    It begins with a dot: the globs of `include` pass it over.
    """
    return target.with_name(f".{target.name}.{mark}.new")


def digest(data: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def prepare(target: Path, data: bytes, mark: str, before: bytes) -> Prepared:
    """Write ``data`` beside ``target``, which holds ``before``, with its mode and owner, for good.

    Raises:
        OSError: it cannot be written, which leaves nothing behind.
        ReadOnlyDocument: the file is marked as read-only.
    """
    status = target.stat()
    if not status.st_mode & 0o222:
        raise ReadOnlyDocument(f"{target} is read-only: make it writable, or change it where it comes from")
    prepared = Prepared(target, beside(target, mark), digest(before), digest(data))
    prepared.drop()
    try:
        # Until the mode is that of the file, for nobody else: it may hold secrets.
        with os.fdopen(os.open(prepared.beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            made = os.fstat(file.fileno())
            if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
            os.fsync(file.fileno())
        sync_directory(target.parent)
    except OSError:
        prepared.drop()
        raise
    return prepared


def fault_of(error: OSError, path: Path) -> EditFault:
    """What ``error`` means for whoever edits."""
    if error.errno in _READ_ONLY:
        hint = (
            "a file that is mounted alone cannot be replaced: mount its directory"
            if error.errno == errno.EBUSY
            else ("make it and its directory writable for the gateway's user, or change it where it comes from")
        )
        return ReadOnlyDocument(f"{path} cannot be replaced ({error.strerror}): {hint}")
    if error.errno in _FULL:
        return WriteFailed(f"{path} cannot be written ({error.strerror}): make room on the disk; nothing was changed")
    return WriteFailed(f"{path} cannot be written: {error.strerror}; nothing was changed")
