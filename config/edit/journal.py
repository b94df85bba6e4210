"""Several files replaced together: what a crash between two of them leaves is finished later.

The new contents lie beside their files before the journal is there, and the journal goes when all of them have taken
their places. So a journal that is found tells what is left to do, and can always be finished.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from config.durable import sync_directory
from config.edit.errors import WriteFailed
from config.edit.replace import Prepared

_log = logging.getLogger("sluice.config")


class Step(msgspec.Struct, frozen=True):
    """One file: what lies beside it, and what it held when that was written."""

    prepared: Prepared
    before: str
    """SHA-256."""


class Journal:
    """The file that tells of a replacement under way. Used under the document's lock alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exists(self) -> bool:
        """Whether a replacement was begun and not finished."""
        return self._path.exists()

    def begin(self, steps: Sequence[Step]) -> None:
        """From here on the replacement is finished, whatever happens.

        Raises:
            OSError: it is not begun.
        """
        text = json.dumps([[str(step.prepared.target), str(step.prepared.beside), step.before] for step in steps])
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            sync_directory(self._path.parent)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def end(self) -> None:
        """All is in its place. A journal that cannot be removed does no harm: nothing of it is left to do."""
        with suppress(OSError):
            self._path.unlink()
            sync_directory(self._path.parent)

    def finish(self) -> bool:
        """Do what is left of a replacement that was cut off; whether there was one.

        Raises:
            OSError: it cannot be finished now; the journal stays.
            WriteFailed: the journal is not one.
        """
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return False
        try:
            steps = [(Prepared(Path(target), Path(beside)), before) for target, beside, before in json.loads(text)]
        except (ValueError, TypeError):
            raise WriteFailed(
                f"{self._path} was changed and cannot be read: compare the files that it names, then remove it"
            ) from None
        for prepared, before in steps:
            if not prepared.beside.exists():
                continue  # it has taken its place already
            if digest(prepared.target.read_bytes()) == before:
                prepared.put()
            else:
                # Somebody has written to it since: what people write by hand is not overwritten unseen.
                _log.warning(
                    "an edit of several files was cut off, and %s was changed since: it stays so", prepared.target
                )
                prepared.drop()
        self.end()
        _log.info("an edit of several files that was cut off is finished")
        return True


def digest(data: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
