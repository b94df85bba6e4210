"""Edits on their way to the disk: either the whole edit is there, or nothing of it."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from config.document import parse
from config.edit.apply import apply
from config.edit.edits import Edit
from config.edit.errors import ReadOnlyDocument, Stale, Unreadable, WriteFailed
from config.edit.journal import Journal, Step, digest
from config.edit.lock import locked
from config.edit.replace import beside, fault_of, prepare
from config.faults import ConfigFaults
from config.sources import SourceFile, include_patterns, read_includes, read_root, revision_of

Files = tuple[SourceFile, ...]


class Commit(msgspec.Struct, frozen=True):
    """An edit that is on the disk."""

    revision: str
    files: Files
    """The document as it is now, the root first."""
    changed: tuple[str, ...]
    """The files that were written, as :attr:`SourceFile.relative` names them; none where the edit changed nothing."""


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
        with locked(self._lock, self._root):
            self._finish()
            before = self._read()
            if revision_of(before) != expected:
                raise Stale(revision_of(before))
            self._sweep(before)
            edited = apply(before, edit)
            old = {file.relative: file for file in before}
            changed = [file for file in edited if file.data != old[file.relative].data]
            if not changed:
                return Commit(expected, before, ())
            after = self._with_its_includes(before, edited)
            validate(after)
            self._write(expected, changed, old)
            return Commit(revision_of(after), after, tuple(file.relative for file in changed))

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
        try:
            root = read_root(self._root)
        except ConfigFaults as error:
            raise Unreadable(error.faults) from None
        included, faults = read_includes(self._root, _include_patterns(root))
        if faults:
            raise Unreadable(faults)
        return (root, *included)

    def _with_its_includes(self, before: Files, edited: Files) -> Files:
        """The document that ``edited`` makes: the edit may have changed the root's `include`."""
        if _include_patterns(edited[0]) == _include_patterns(before[0]):
            return edited
        known = {file.relative: file for file in edited}
        included, faults = read_includes(self._root, _include_patterns(edited[0]))
        if faults:
            raise ConfigFaults(faults)
        return (edited[0], *(known.get(file.relative, file) for file in included))

    def _write(self, expected: str, changed: Sequence[SourceFile], old: dict[str, SourceFile]) -> None:
        steps: list[Step] = []
        present = self._root
        try:
            for file in changed:
                present = self._directory / file.relative
                prepared = prepare(present.resolve(strict=True), file.data, self._mark)
                steps.append(Step(prepared, digest(old[file.relative].data)))
            # Validation takes its time, and editors of people know nothing of our lock.
            if revision_of(now := self._read()) != expected:
                raise Stale(revision_of(now))
            if len(steps) > 1:
                present = self._root
                self._journal.begin(steps)
        except BaseException as error:
            for step in steps:
                step.prepared.drop()
            if isinstance(error, OSError):
                raise fault_of(error, present) from None
            raise
        self._replace(steps, [old[file.relative].data for file in changed])

    def _replace(self, steps: Sequence[Step], contents_before: Sequence[bytes]) -> None:
        for number, step in enumerate(steps):
            try:
                step.prepared.put()
            except OSError as error:
                self._undo(steps[:number], contents_before)
                for left in steps[number:]:
                    left.prepared.drop()
                self._journal.end()
                raise fault_of(error, step.prepared.target) from None
        if len(steps) > 1:
            self._journal.end()

    def _undo(self, done: Sequence[Step], contents_before: Sequence[bytes]) -> None:
        """Put back what was replaced already: a replacement too, which a crash may cut off."""
        back: list[Step] = []
        try:
            for step, data in zip(done, contents_before, strict=False):
                target = step.prepared.target
                back.append(Step(prepare(target, data, self._mark), digest(target.read_bytes())))
            if back:
                self._journal.begin(back)
        except (OSError, ReadOnlyDocument) as error:
            for step in back:
                step.prepared.drop()
            # The first journal stays, and what lies beside the other files too.
            raise WriteFailed(
                f"only some of the files could be replaced ({error}): the next edit does the rest"
            ) from None
        try:
            for step in back:
                step.prepared.put()
        except OSError as error:
            raise WriteFailed(f"some of the files could not be put back ({error}): the next edit does so") from None

    def _sweep(self, files: Files) -> None:
        """Remove what a crash has left beside the files before it came to a journal."""
        for file in files:
            with suppress(OSError):  # where it matters, what follows tells
                beside((self._directory / file.relative).resolve(), self._mark).unlink()


def _include_patterns(root: SourceFile) -> tuple[str, ...]:
    return include_patterns(parse(root.data, root.shown))
