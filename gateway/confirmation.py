"""An edit that is taken back by itself unless it is confirmed.

What waits stands in a file beside the document's lock, written before the edit itself: so it outlives every process,
each of them looks at it, and under the document's lock one of them takes the edit back.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from config.durable import remove, write_private
from config.edit.edits import PutFiles
from config.edit.errors import EditFault
from config.edit.replace import fault_of
from config.edit.writer import Draft, Files, Writer
from config.faults import ConfigFaults
from config.sources import revision_of
from core.clock import Clock
from core.identity import Author
from core.moments import moment_of
from gateway.failures import FailureWatch
from management.editing.editor import NothingPending, Pending

_log = logging.getLogger("sluice.config")

UNCONFIRMED = "unconfirmed"
FAILURES = "failures"
ASKED = "asked"
COMMENTS = {
    UNCONFIRMED: "nobody has confirmed it in time",
    FAILURES: "more requests failed than before",
    ASKED: "somebody has asked for it",
}

_LOOK_SECONDS = 1.0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds."""

    revision: str
    before: str
    files: tuple[tuple[bytes, bytes], ...]
    """Those of the revision before: relative path and content, the root first. Names of files need not be UTF-8."""
    deadline: float
    """Seconds since the Unix epoch."""
    author: Author
    max_failure_increase: float
    rolled_back: bool = False
    """It was taken back already, by a process that had nobody to tell yet."""

    @classmethod
    def of(cls, draft: Draft, deadline: float, author: Author, max_failure_increase: float) -> "Waiting":
        """What shall wait once ``draft`` is written."""
        return cls(
            revision=revision_of(draft.after),
            before=revision_of(draft.before),
            files=tuple((os.fsencode(file.relative), file.data) for file in draft.before),
            deadline=deadline,
            author=author,
            max_failure_increase=max_failure_increase,
        )

    @property
    def undoing(self) -> PutFiles:
        """The edit that takes it back."""
        return PutFiles(tuple((os.fsdecode(name), data) for name, data in self.files))

    def shown(self) -> Pending:
        """As the API tells it."""
        return Pending(
            revision=self.revision,
            before=self.before,
            confirm_by=moment_of(self.deadline),
            author=self.author,
            max_failure_increase=self.max_failure_increase,
        )


class ConfirmationFile:
    """The file beside the document at ``root``. Written under the document's lock alone."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root.absolute().parent / f".{root.name}.confirm"

    def read(self) -> Waiting | None:
        """What waits; None where nothing does."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error("%s cannot be read (%s): what waits to be confirmed is not known", self._path, error.strerror)
            return None
        try:
            return msgspec.json.decode(data, type=Waiting)
        except msgspec.DecodeError:
            _log.error("%s was changed and cannot be read: remove it, and see that the document is right", self._path)
            return None

    def write(self, waiting: Waiting) -> None:
        """
        Raises:
            ReadOnlyDocument, WriteFailed: it cannot be written.
        """
        try:
            write_private(self._path, msgspec.json.encode(waiting))
        except OSError as error:
            raise fault_of(error, self._root) from None

    def remove(self) -> None:
        """
        Raises:
            ReadOnlyDocument, WriteFailed: it cannot be removed.
        """
        try:
            remove(self._path)
        except OSError as error:
            raise fault_of(error, self._root) from None

    def standing(self, document: Files) -> Waiting | None:
        """What waits to be confirmed in the locked ``document``; what waits for another one is dropped.

        Raises:
            ReadOnlyDocument, WriteFailed: it cannot be dropped.
        """
        waiting = self.read()
        if waiting is None or waiting.rolled_back:
            return None
        found = revision_of(document)
        if found == waiting.revision:
            return waiting
        self.remove()
        if found != waiting.before:  # else the edit itself was cut off
            _log.warning(
                "the document was changed while configuration %s waited to be confirmed: it is not taken back any more",
                waiting.revision[:12],
            )
        return None


def roll_back_overdue(writer: Writer, file: ConfirmationFile, now: float, validate: Callable[[Files], object]) -> None:
    """Before a gateway loads its document: take back what nobody has confirmed in time. Raises nothing."""
    waiting = file.read()
    if waiting is None or waiting.rolled_back or waiting.deadline > now:
        return
    try:
        with writer.draft() as draft:
            if (standing := file.standing(draft.before)) is None:
                return
            draft.edit(standing.undoing)
            validate(draft.after)
            draft.write()
            # Who may be told of it is not there yet.
            file.write(msgspec.structs.replace(standing, rolled_back=True))
    except (EditFault, ConfigFaults) as error:
        _log.error("configuration %s, which nobody has confirmed, cannot be taken back: %s", waiting.revision, error)
    else:
        log_rolled_back(waiting, UNCONFIRMED)


def log_rolled_back(waiting: Waiting, reason: str) -> None:
    """Say so; the event is emitted by whoever puts the former configuration in force."""
    _log.log(
        logging.INFO if reason == ASKED else logging.WARNING,
        "configuration %s is taken back, %s: %s is put in force",
        waiting.revision[:12],
        COMMENTS[reason],
        waiting.before[:12],
    )


class Confirmations:
    """What one process knows of the edit that waits, and its watch over it."""

    def __init__(
        self,
        writer: Writer,
        file: ConfirmationFile,
        clock: Clock,
        failures: FailureWatch,
        roll_back: Callable[[str], Awaitable[None]],
    ) -> None:
        """``roll_back`` is given the reason; it raises what :meth:`management.editing.editor.Editor.roll_back` does."""
        self._writer = writer
        self._file = file
        self._clock = clock
        self._failures = failures
        self._roll_back = roll_back
        self._waiting: Waiting | None = None
        self._wake = asyncio.Event()
        self._told: str | None = None
        failures.on_worse = self.wake

    @property
    def waiting(self) -> Waiting | None:
        """As of the last look."""
        return self._waiting

    def wake(self) -> None:
        """Look soon: something was put in force."""
        self._wake.set()

    async def look(self) -> None:
        """See what waits now."""
        waiting = await asyncio.get_running_loop().run_in_executor(None, self._read)
        if waiting == self._waiting:
            return
        self._waiting = waiting
        self.wake()
        if waiting is None or waiting.rolled_back:
            self._failures.end()
        else:
            self._failures.begin(waiting.revision, waiting.max_failure_increase)

    def _read(self) -> Waiting | None:
        waiting = self._file.read()
        if waiting is None or waiting.rolled_back:
            return waiting
        try:
            if revision_of(self._writer.look().before) == waiting.revision:
                return waiting
            # An edit may be on its way: under the lock it is there, or is not.
            with self._writer.draft() as draft:
                return self._file.standing(draft.before)
        except EditFault:
            return waiting

    async def run(self) -> None:
        """Take back what is not confirmed in time, or lets requests fail; until cancelled."""
        while True:
            await self._pause()
            await self.look()
            reason = self._reason()
            if reason is None:
                continue
            try:
                await self._roll_back(reason)
            except NothingPending:
                await self.look()
            except (EditFault, ConfigFaults) as error:
                if self._told != str(error):
                    self._told = str(error)
                    _log.error("an edit that is to be taken back cannot be, and is tried again: %s", error)
                await asyncio.sleep(_LOOK_SECONDS)
            except Exception:
                # A fault of ours must not end the watch: the next try may well succeed.
                _log.exception("an edit that is to be taken back cannot be, and is tried again")
                await asyncio.sleep(_LOOK_SECONDS)

    async def _pause(self) -> None:
        """Until it is worth looking."""
        seconds = None
        if self._waiting is not None:
            seconds = min(max(self._waiting.deadline - self._clock.time(), 0.0), _LOOK_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _reason(self) -> str | None:
        waiting = self._waiting
        if waiting is None:
            return None
        if waiting.rolled_back or self._clock.time() >= waiting.deadline:
            return UNCONFIRMED
        return FAILURES if self._failures.worse else None
