"""Edits on their way to the disk: either the whole edit is there, or nothing of it."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from config.document import parse
from config.edit.apply import apply
from config.edit.edits import Edit, PutFiles
from config.edit.errors import DocumentBusy, EditFault, EditRefused, ReadOnlyDocument, Stale, Unreadable, WriteFailed
from config.edit.exchange import is_being_written
from config.edit.journal import Journal
from config.edit.lock import locked
from config.edit.replace import Overtaken, Prepared, beside, fault_of, prepare
from config.faults import ConfigFaults, Fault
from config.sources import SourceFile, include_patterns, read_includes, read_root, revision_of

Files = tuple[SourceFile, ...]
_Found = tuple[Files, tuple[Fault, ...]]
"""What can be read, and what is wrong with the rest."""

_TRIES = 10
_PAUSE_SECONDS = 0.005


class Commit(msgspec.Struct, frozen=True):
    """An edit that is on the disk."""

    revision: str
    files: Files
    """The document as it is now, the root first."""
    changed: tuple[str, ...]
    """The files that were written, as :attr:`SourceFile.relative` names them; none where the edit changed nothing."""


class Draft:
    """A document and what edits make of it, before anything is written. Made by :class:`Writer`."""

    def __init__(self, root: Path, before: Files) -> None:
        self._root = root
        self.before = before
        self.after = before
        self._on_disk = {file.relative: file.data for file in before}

    @property
    def changed(self) -> tuple[SourceFile, ...]:
        """The files that would be written."""
        return tuple(file for file in self.after if file.data != self._on_disk[file.relative])

    def on_disk(self, file: SourceFile) -> bytes:
        """What ``file`` of :attr:`after` holds now."""
        return self._on_disk[file.relative]

    def edit(self, edit: Edit, admit: Callable[[SourceFile, SourceFile], None] = lambda _before, _after: None) -> None:
        """Make ``edit`` on top of the ones before it.

        ``admit`` is given the root as it was and as it becomes, before any file is read that it includes anew: it raises to
        prevent it.

        Raises:
            EditRefused: :func:`config.edit.apply.apply` does.
            ConfigFaults: its `include` leads nowhere.
        """
        edited = apply(self.after, edit)
        admit(self.after[0], edited[0])
        if isinstance(edit, PutFiles):
            after = self._with_its_includes(edited)
            if faults := _differences(edited, after):
                raise EditRefused(faults)
            self.after = after
        elif _include_patterns(edited[0]) == _include_patterns(self.after[0]):
            self.after = edited
        else:
            self.after = self._with_its_includes(edited)

    def _with_its_includes(self, edited: Files) -> Files:
        """The root of ``edited`` with what it includes now."""
        included, faults = read_includes(self._root, _include_patterns(edited[0]))
        if faults:
            raise ConfigFaults(faults)
        known = {file.relative: file for file in edited}
        for file in included:
            self._on_disk.setdefault(file.relative, file.data)
        return (
            edited[0],
            *(
                msgspec.structs.replace(file, data=known[file.relative].data) if file.relative in known else file
                for file in included
            ),
        )


def _differences(wanted: Files, found: Files) -> list[Fault]:
    names, there = {file.relative for file in wanted}, {file.relative for file in found}
    return [
        *(
            Fault((), f"the revision has a file `{name}`, which is not there: make it (`{{}}` will do), then try again")
            for name in sorted(names - there)
        ),
        *(
            Fault((), f"the revision has no file `{name}`, which is there now: take it away, then try again")
            for name in sorted(there - names)
        ),
    ]


class LockedDraft(Draft):
    """One that can be written, as long as the document is locked."""

    def __init__(self, root: Path, before: Files, write: Callable[["LockedDraft"], None]) -> None:
        super().__init__(root, before)
        self._write = write

    def write(self) -> tuple[str, ...]:
        """Let the edits take the place of the document; the names of the files that were written.

        Raises:
            Stale: somebody who knows nothing of locks has changed the document.
            ReadOnlyDocument, WriteFailed: it cannot be written; nothing was changed.
        """
        changed = self.changed
        if changed:
            self._write(self)
        return tuple(file.relative for file in changed)


class Writer:
    """Commits edits of the document at one root. Its methods wait for the disk: call them in a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root.absolute().parent
        # Two roots may include the same file, and each has its own lock.
        self._mark = hashlib.sha256(str(root.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        self._lock = self._directory / f".{root.name}.lock"
        self._journal = Journal(self._directory / f".{root.name}.journal")

    def commit(self, expected: str, edit: Edit, validate: Callable[[Files], None]) -> Commit:
        """Make ``edit`` in the document whose revision is ``expected``.

        ``validate`` is given the whole document as it would be, and raises to prevent it.

        Raises:
            Stale: the document on disk is another one.
            EditRefused: :func:`config.edit.apply.apply` does.
            ReadOnlyDocument, DocumentBusy, WriteFailed: it cannot be written; nothing was changed.
            ConfigFaults: of ``validate``, or an `include` of the edit that leads nowhere.
        """
        with self.draft(expected) as draft:
            draft.edit(edit)
            if draft.changed:
                validate(draft.after)
            return Commit(revision_of(draft.after), draft.after, draft.write())

    @contextmanager
    def draft(self, expected: str | None = None) -> Iterator[LockedDraft]:
        """The document, locked until the block is left; ``expected`` is its revision, if only that one will do.

        Raises:
            Stale: it is another one.
            Unreadable: a file cannot be read.
            ReadOnlyDocument, DocumentBusy, WriteFailed: it cannot be locked, or somebody is writing to it by hand.
        """
        with locked(self._lock, self._root):
            self._finish()
            before = self._read_at_rest()
            if expected is not None and revision_of(before) != expected:
                raise Stale(revision_of(before))
            self._sweep(before)
            yield LockedDraft(self._root, before, self._write)

    def look(self) -> Draft:
        """The document as it is, for edits that are tried out.

        Raises:
            Unreadable: a file cannot be read.
        """
        files, faults = self._read_settled()
        if faults:
            raise Unreadable(faults)
        return Draft(self._root, files)

    def read_leniently(self) -> tuple[str | None, Files]:
        """What can be read of the document, and its revision if that is all of it."""
        files, faults = self._read_settled()
        return None if faults else revision_of(files), files

    @property
    def interrupted(self) -> bool:
        """Whether files are being replaced just now, or a crash has cut that off."""
        return self._journal.exists()

    def finish_interrupted(self) -> bool:
        """Finish what a crash has cut off, before the document is read; whether there was anything.

        Raises:
            EditFault: it cannot be finished now.
        """
        if not self._journal.exists():
            return False
        with locked(self._lock, self._root):
            return self._finish()

    def _finish(self) -> bool:
        try:
            return self._journal.finish()
        except OSError as error:
            raise fault_of(error, self._root) from None

    def _read(self) -> Files:
        files, faults = self._read_once()
        if faults:
            raise Unreadable(faults)
        return files

    def _read_settled(self) -> _Found:
        """As the files are while nobody replaces them: of an edit of several files all is read, or nothing."""
        found, is_settled = self._settle(lambda _: not self.interrupted)
        if is_settled:
            return found
        # There is one edit upon the other, or a crash has left the journal.
        with suppress(EditFault), locked(self._lock, self._root):
            self._finish()
            return self._read_once()
        return found

    def _read_at_rest(self) -> Files:
        """As the files are while nobody writes to them by hand: an editor that has emptied a file fills it soon."""
        (files, faults), is_settled = self._settle(self._is_at_rest)
        if not is_settled and not self._is_at_rest(files):
            raise DocumentBusy("a file of the document is open for writing: when that is closed, try again")
        if faults:
            raise Unreadable(faults)
        return files

    def _is_at_rest(self, files: Files) -> bool:
        with suppress(OSError):
            return not any(is_being_written(self._directory / file.relative) for file in files)
        return True

    def _settle(self, is_still: Callable[[Files], bool]) -> tuple[_Found, bool]:
        """What two readings have found alike, or the last of them.

        ``is_still`` is asked in between, as an edit of several files that both saw half of has its journal then.
        """
        found = self._read_once()
        for _ in range(_TRIES):
            was_still = is_still(found[0])
            again = self._read_once()
            if was_still and again == found:
                return found, True
            found = again
            time.sleep(_PAUSE_SECONDS)
        return found, False

    def _read_once(self) -> _Found:
        try:
            root = read_root(self._root)
        except ConfigFaults as error:
            return (), error.faults
        included, faults = read_includes(self._root, _include_patterns(root))
        return (root, *included), tuple(faults)

    def _write(self, draft: LockedDraft) -> None:
        expected = revision_of(draft.before)
        steps: list[Prepared] = []
        present = self._root
        try:
            for file in draft.changed:
                present = self._directory / file.relative
                target = present.resolve(strict=True)
                steps.append(prepare(target, file.data, self._mark, draft.on_disk(file)))
            # Validation takes its time, and editors of people know nothing of our lock.
            if revision_of(now := self._read_at_rest()) != expected:
                raise Stale(revision_of(now))
            if len(steps) > 1:
                present = self._root
                self._journal.begin(steps)
        except BaseException as error:
            for step in steps:
                step.drop()
            if isinstance(error, OSError):
                raise fault_of(error, present) from None
            raise
        self._replace(steps, [draft.on_disk(file) for file in draft.changed])

    def _replace(self, steps: Sequence[Prepared], contents_before: Sequence[bytes]) -> None:
        for number, step in enumerate(steps):
            try:
                step.put()
            except (OSError, Overtaken) as error:
                self._undo(steps[:number], contents_before)
                for left in steps[number:]:
                    left.drop()
                self._journal.end()
                if isinstance(error, OSError):
                    raise fault_of(error, step.target) from None
                (files, faults), _ = self._settle(self._is_at_rest)
                raise Stale(None if faults else revision_of(files)) from None
        if len(steps) > 1:
            self._journal.end()

    def _undo(self, done: Sequence[Prepared], contents_before: Sequence[bytes]) -> None:
        """Put back what was replaced already: a replacement too, which a crash may cut off."""
        back: list[Prepared] = []
        try:
            for step, data in zip(done, contents_before, strict=False):
                back.append(prepare(step.target, data, self._mark, step.target.read_bytes()))
            if back:
                self._journal.begin(back)
        except (OSError, ReadOnlyDocument) as error:
            for step in back:
                step.drop()
            # The first journal stays, and what lies beside the other files too.
            raise WriteFailed(
                f"only some of the files could be replaced ({error}): the next edit does the rest"
            ) from None
        try:
            for step in back:
                with suppress(Overtaken):  # in this instant: whoever has written to it has seen the edit
                    step.put()
        except OSError as error:
            raise WriteFailed(f"some of the files could not be put back ({error}): the next edit does so") from None

    def _sweep(self, files: Files) -> None:
        """Remove what a crash has left beside the files before it came to a journal."""
        for file in files:
            with suppress(OSError):  # where it matters, what follows tells
                beside((self._directory / file.relative).resolve(), self._mark).unlink()


def _include_patterns(root: SourceFile) -> tuple[str, ...]:
    return include_patterns(parse(root.data, root.shown))
