"""Edits of the configuration, as handlers ask for them; gateway/editing.py makes them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from config.edit.edits import Edit
from config.faults import Fault
from config.sources import SourceFile
from core.identity import Author
from management.secrets.secret_places import Place

Files = tuple[SourceFile, ...]
"""The files of a document, the root first."""

API = "api"
"""The trigger of an edit or reload that a client has asked for."""
RESTORE = "restore"
"""That of an edit that puts the files of an earlier revision back."""
ROLLBACK = "rollback"
"""That of an edit that was taken back, because nobody has confirmed it."""


class Change(msgspec.Struct, frozen=True):
    """An edit with what the guard (management/secrets/guard.py) has to know of it."""

    edit: Edit
    given: frozenset[Place] = frozenset()
    """Where the caller has written the secret itself, so that it keeps none."""


Changing = Edit | Change | Callable[[Files], Edit | Change]
"""An edit, or what makes it of the files, once they are locked; it may raise what :meth:`Editor.commit` may."""


class OnDisk(msgspec.Struct, frozen=True, kw_only=True):
    """The document as its files stand now."""

    revision: str | None
    """What an edit must expect; None where some file cannot be read: no edit can be made before that is mended."""
    in_force: str
    """The revision that answers requests. Another one than ``revision`` where the files were refused."""
    files: Files
    """Raw bytes; those that can be read."""
    files_in_force: Files
    """Those that ``in_force`` was made of."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that is on the disk and in force."""

    revision: str
    changed: bool
    """False: the document was so already, and nothing was written."""
    files: tuple[str, ...]
    """Those that were written, as paths from the root's directory."""
    document: Files = ()
    """All files as they are now: what an answer shows of the edit, whoever makes the next one."""
    everywhere: bool
    """False: some worker has not answered in time that it serves the new configuration too; it will."""
    notices: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    """Keys whose values differ from those of the start: they take effect when the gateway is started again."""
    confirm_by: datetime | None = None
    """When the edit is taken back unless it is confirmed; None: it stays."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of an edit."""

    revision: str
    """That the document would have."""
    faults: tuple[Fault, ...]
    """Why it would be refused; none: it would be put in force."""
    notices: tuple[str, ...]
    restart: tuple[str, ...]
    diff: str
    """What would change in the files, as a unified diff with the secrets masked."""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that is in force and waits to be confirmed."""

    revision: str
    before: str
    """The revision that comes back unless it is confirmed."""
    confirm_by: datetime
    author: Author
    max_failure_increase: float


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration was read again and is in force; ``changed`` is False when its revision was before."""

    revision: str
    changed: bool
    duration_seconds: float
    everywhere: bool = True
    """False: some worker has not answered in time that it has read it too."""
    restart: tuple[str, ...] = ()
    """As of :class:`Committed`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The configuration was refused, the last good one stays in force; ``faults`` is never empty."""

    faults: tuple[Fault, ...]


class ConfirmationPending(Exception):
    """Another edit waits to be confirmed: confirm it or roll it back first."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        super().__init__(
            f"configuration {pending.revision[:12]} waits to be confirmed until "
            f"{pending.confirm_by.isoformat(timespec='seconds')}: confirm it or roll it back first"
        )


class NothingPending(Exception):
    """No edit waits to be confirmed, or another one than was named."""

    def __init__(self, pending: Pending | None = None) -> None:
        """``pending``: what waits instead."""
        self.pending = pending
        super().__init__(
            "no edit waits to be confirmed: it was confirmed or taken back already"
            if pending is None
            else f"it is configuration {pending.revision} that waits to be confirmed: name that one"
        )


class Editor(Protocol):
    """Reads and changes the files of the configuration and puts them in force, on all workers."""

    async def read(self) -> OnDisk:
        """The files as they are on the disk now. Raises nothing: what cannot be read is left out."""
        ...

    async def commit(
        self,
        expected: str,
        edit: Changing,
        author: Author,
        *,
        trigger: str = API,
        comment: str | None = None,
        confirm_within_seconds: float | None = None,
        max_failure_increase: float = 0.1,
    ) -> Committed:
        """Make ``edit`` in the document whose revision is ``expected``, and put it in force.

        Gives back when all workers serve it, or have not answered for 10 seconds.

        Args:
            expected: :attr:`OnDisk.revision` of the document that the edit was made for.
            author: told in the revision.
            trigger: what brought it about, for events, metrics and the revision. With `restore` the guard knows that
                the document was in force before.
            comment: kept with the revision.
            confirm_within_seconds: it is rolled back by itself unless :meth:`confirm` comes in time.
            max_failure_increase: while it waits to be confirmed, it is rolled back at once when the share of failed
                requests has grown by more than this.

        Raises:
            config.edit.errors.Stale: the document on disk is another one.
            config.edit.errors.EditRefused: the edit cannot be made in it (Unreadable, EntryMissing, EntryExists).
            config.edit.errors.ReadOnlyDocument, config.edit.errors.DocumentBusy, config.edit.errors.WriteFailed:
                it cannot be written.
            config.faults.ConfigFaults: the document would be refused.
            management.secrets.guard.GuardRefused: the API may not make this edit.
            ConfirmationPending: another edit waits to be confirmed.

        After any of these nothing has changed.
        """
        ...

    async def try_out(self, edit: Changing | None) -> Trial:
        """What :meth:`commit` would do with ``edit``; None: what a reload would do with the files as they are.

        Nothing is written or swapped. What the guard refuses is told as faults.

        Raises:
            config.edit.errors.EditRefused: the edit cannot be made (Unreadable, EntryMissing, EntryExists).
        """
        ...

    async def reload(self, trigger: str, author: Author) -> Reloaded | Refused:
        """Read the files again and put them in force here and on all workers. Raises nothing."""
        ...

    def pending(self) -> Pending | None:
        """The edit that waits to be confirmed."""
        ...

    async def confirm(self, revision: str, author: Author) -> None:
        """Let the edit that waits stay.

        Raises:
            NothingPending: none waits, or another one than ``revision``.
            config.edit.errors.DocumentBusy, config.edit.errors.ReadOnlyDocument, config.edit.errors.WriteFailed:
                it cannot be noted on the disk.
        """
        ...

    async def roll_back(self, author: Author) -> Committed:
        """Take the edit that waits back at once.

        Raises:
            NothingPending: none waits, or the files were changed since.
            config.edit.errors.DocumentBusy, config.edit.errors.ReadOnlyDocument, config.edit.errors.WriteFailed:
                the files cannot be written.
            config.faults.ConfigFaults: what was in force before cannot be put in force any more.
        """
        ...
