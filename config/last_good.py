"""The files of the revision in force, kept where a process that starts later finds them.

A worker that takes a dead one's place reads the document anew; where that has become bad meanwhile, it starts from
this copy. References are kept as references, so the copy tells no more than the files do; it is private all the same.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from config.sources import SourceFile


class _Kept(msgspec.Struct, array_like=True):
    shown: bytes  # names of files need not be UTF-8
    relative: bytes
    data: bytes


class LastGood:
    """One copy, in a file that several processes replace: each writes what it has put in force."""

    def __init__(self, file: Path) -> None:
        """``file``: in a directory that no other user may enter."""
        self._file = file

    def keep(self, files: Iterable[SourceFile]) -> None:
        """Replace the copy, whole or not at all.

        Raises:
            OSError: it could not be written; the former one stays.
        """
        kept = [_Kept(os.fsencode(file.shown), os.fsencode(file.relative), file.data) for file in files]
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.msgpack.encode(kept))
            new.replace(self._file)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def read(self) -> tuple[SourceFile, ...] | None:
        """The files, the root first; None where nothing has been kept."""
        try:
            kept = msgspec.msgpack.decode(self._file.read_bytes(), type=list[_Kept])
        except (OSError, msgspec.MsgspecError):
            return None
        return tuple(SourceFile(os.fsdecode(each.shown), os.fsdecode(each.relative), each.data) for each in kept)
