"""Several files replaced together: what a crash between two of them leaves is finished later.

The new contents lie beside their files before the journal is there, and the journal goes when all of them have taken
their places. So a journal that is found tells what is left to do, and can always be finished.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from config.durable import remove, write_private
from config.edit.errors import WriteFailed
from config.edit.replace import Overtaken, Prepared, digest

_log = logging.getLogger("sluice.config")


class Journal:
    """The file that tells of a replacement under way. Used under the document's lock alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exists(self) -> bool:
        """Whether a replacement was begun and not finished."""
        return self._path.exists()

    def begin(self, steps: Sequence[Prepared]) -> None:
        """From here on the replacement is finished, whatever happens.

        Raises:
            OSError: it is not begun.
        """
        text = json.dumps([[str(step.target), str(step.beside), step.before, step.after] for step in steps])
        write_private(self._path, text.encode())

    def end(self) -> None:
        """All is in its place. A journal that cannot be removed does no harm: nothing of it is left to do."""
        with suppress(OSError):
            remove(self._path)

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
            steps = [
                Prepared(Path(target), Path(beside), before, after)
                for target, beside, before, after in json.loads(text)
            ]
        except (ValueError, TypeError):
            raise WriteFailed(
                f"{self._path} was changed and cannot be read: compare the files that it names, then remove it"
            ) from None
        for step in steps:
            if not step.beside.exists():
                continue  # it has taken its place already
            if digest(step.target.read_bytes()) == step.after:
                step.drop()  # and so has this one: what it has taken the place of lies there
                continue
            try:
                step.put()
            except Overtaken:
                # Somebody has written to it since: what people write by hand is not overwritten unseen.
                _log.warning("an edit of several files was cut off, and %s was changed since: it stays so", step.target)
                step.drop()
        self.end()
        _log.info("an edit of several files that was cut off is finished")
        return True
