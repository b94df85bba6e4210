"""The editor of the configuration: edits of its files, tried, written, and put in force here and on all other workers."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from config.edit.errors import EditFault, Unreadable
from config.edit.writer import Draft, Files
from config.faults import ConfigFaults, Fault
from config.sources import revision_of
from core.events import ConfigRejected, ConfigRolledBack
from core.identity import Author
from core.moments import moment_of
from gateway.account_checks import KeptAccounts, kept_accounts
from gateway.build import Generation
from gateway.confirmation import ASKED, COMMENTS, Confirmations, Waiting, log_rolled_back
from gateway.control import Answered, Apply, Reload
from gateway.failures import FailureWatch
from gateway.guarded_edit import edit_guarded
from gateway.others import TaskFailed
from gateway.pauses import brief_pauses
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.revisions import Applied, Origin, RevisionKeeper
from management.editing.config_view import difference
from management.editing.editor import (
    API,
    RESTORE,
    ROLLBACK,
    Changing,
    Committed,
    ConfirmationPending,
    NothingPending,
    OnDisk,
    Pending,
    Refused,
    Reloaded,
    Trial,
)
from management.handler.in_thread import in_thread
from management.secrets.compared import GuardRefused

_log = logging.getLogger("sluice.config")

_T = TypeVar("_T")


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit came to on the disk."""

    document: Files
    before: str
    """The revision of the files until then."""
    at: int
    files: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    generation: Generation | None = None
    """To be put in force; None where it is."""
    deadline: float | None = None
    """When it is taken back unless it is confirmed."""


class ConfigEditor:
    """Fits :class:`management.editing.editor.Editor`."""

    def __init__(self, resources: Resources, reloader: Reloader, revisions: RevisionKeeper) -> None:
        self._resources = resources
        self._clock = resources.clock
        self._others = resources.others
        self._reloader = reloader
        self._revisions = revisions
        self._writer = reloader.writer
        self._file = reloader.confirmation
        self._failures = FailureWatch()
        self._confirmations = Confirmations(
            self._writer, self._file, self._clock, self._failures, self._roll_back_because
        )

        # Before the supervisor is listened to: nobody shall ask in vain.
        self._others.on(Apply, self._apply)
        self._others.on(Reload, self._reload)

    def start(self) -> None:
        """Keep what is in force, and watch over the edit that waits to be confirmed."""
        self._failures.subscribe(self._resources.events)
        self._reloader.on_applied = self._applied
        generation = self._reloader.current()
        self._revisions.start(generation.revision, generation.loaded.files)
        self._confirmations.wake()
        self._resources.background.spawn(self._confirmations.run(), "confirmation")

    async def read(self) -> OnDisk:
        """As :meth:`management.editing.editor.Editor.read`."""
        revision, files = await in_thread(self._writer.read_leniently)
        loaded = self._reloader.current().loaded
        return OnDisk(revision=revision, in_force=loaded.revision, files=files, files_in_force=loaded.files)

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
        """As :meth:`management.editing.editor.Editor.commit`."""
        accounts = await self._kept_accounts()

        def write() -> _Written:
            with self._writer.draft(expected) as draft:
                if (standing := self._file.standing(draft.before)) is not None:
                    raise ConfirmationPending(standing.shown())
                notices, generation = self._build(draft, edit, accounts, restoring=trigger == RESTORE)
                waiting = None
                if confirm_within_seconds is not None and draft.changed:
                    deadline = self._clock.time() + confirm_within_seconds
                    waiting = Waiting.of(draft, deadline, author, max_failure_increase)
                    self._file.write(waiting)
                try:
                    files = draft.write()
                except BaseException:
                    if waiting is not None:
                        with contextlib.suppress(EditFault):  # it waits for a revision that never comes
                            self._file.remove()
                    raise
                return _Written(
                    document=draft.after,
                    before=revision_of(draft.before),
                    # Under the lock: so the times of all edits are in their order.
                    at=self._revisions.now(),
                    files=files,
                    notices=notices,
                    generation=generation,
                    deadline=waiting.deadline if waiting is not None else None,
                )

        async with self._reloader.exclusive:
            origin = self._origin(trigger, author, comment)
            try:
                written = await _in_thread(write)
            except ConfigFaults as refused:
                self._refuse(refused, trigger)
                raise
            await self._put_in_force(written, origin)
        return await self._spread(written, trigger)

    def pending(self) -> Pending | None:
        """As :meth:`management.editing.editor.Editor.pending`."""
        waiting = self._confirmations.waiting
        return None if waiting is None or waiting.rolled_back else waiting.shown()

    async def confirm(self, revision: str, author: Author) -> None:
        """As :meth:`management.editing.editor.Editor.confirm`."""

        def confirm() -> None:
            with self._writer.draft() as draft:
                standing = self._file.standing(draft.before)
                if standing is None or standing.revision != revision:
                    raise NothingPending(standing.shown() if standing is not None else None)
                self._file.remove()

        await _in_thread(confirm)
        _log.info("configuration %s is confirmed by %s %s", revision[:12], author.kind, author.name)
        await self._confirmations.look()
        await self._others.ask(Apply(revision, API))

    async def roll_back(self, author: Author) -> Committed:
        """As :meth:`management.editing.editor.Editor.roll_back`."""
        return await self._roll_back(ASKED, author)

    async def try_out(self, edit: Changing | None) -> Trial:
        """As :meth:`management.editing.editor.Editor.try_out`."""
        if edit is None:
            return await _in_thread(self._try_on_disk)
        return await _in_thread(partial(self._try, edit, await self._kept_accounts()))

    async def reload(self, trigger: str, author: Author) -> Reloaded | Refused:
        """As :meth:`management.editing.editor.Editor.reload`."""
        outcome = await self._reloader.reload(trigger, author)
        self._confirmations.wake()
        answered, _ = await asyncio.gather(self._others.ask(Reload(trigger)), self._revisions.settle())
        return outcome if isinstance(outcome, Refused) else replace(outcome, everywhere=answered.by_all)

    async def _put_in_force(self, written: _Written, origin: Origin) -> None:
        replaced = written.before if written.files else None
        origin = msgspec.structs.replace(origin, at=written.at, replaced=replaced)
        if written.generation is not None:
            await self._reloader.put_in_force(written.generation, origin)
        elif written.files:
            # It is in force here, where what it was made of has not come to yet: for others it is new.
            revision = revision_of(written.document)
            self._revisions.note(
                Applied(before=written.before, revision=revision, files=written.document, origin=origin)
            )

    async def _kept_accounts(self) -> KeptAccounts:
        return await kept_accounts(self._resources.credentials, self._reloader.current().config)

    def _origin(self, trigger: str, author: Author, comment: str | None = None) -> Origin:
        return Origin(trigger=trigger, began=self._clock.monotonic(), author=author, comment=comment)

    def _build(
        self, draft: Draft, edit: Changing, accounts: KeptAccounts, *, restoring: bool
    ) -> tuple[tuple[str, ...], Generation | None]:
        """Make ``edit`` in ``draft``; what there is to say of it, and what it makes, if that is not in force.

        Raises:
            ConfigFaults, GuardRefused, EditRefused: it cannot be, or may not be.
        """
        with brief_pauses():
            config = self._reloader.current().config
            notices = edit_guarded(draft, edit, config, accounts, restoring=restoring)
        if revision_of(draft.after) == self._reloader.current().revision:
            return notices, None
        generation = self._reloader.build(draft.after)
        return (*notices, *map(str, generation.loaded.notices)), generation

    def _refuse(self, refused: ConfigFaults, trigger: str) -> None:
        faults = tuple(str(fault) for fault in refused.faults)
        _log.info("an edit (%s) was refused: %d faults, first: %s", trigger, len(faults), faults[0])
        self._resources.events.emit(ConfigRejected(trigger=trigger, faults=faults, on_disk=False))

    async def _spread(self, written: _Written, trigger: str) -> Committed:
        """Have the others follow."""
        await self._confirmations.look()
        revision = revision_of(written.document)
        answered = Answered(0)
        if written.generation is not None or written.files:
            answered, _ = await asyncio.gather(self._others.ask(Apply(revision, trigger)), self._revisions.settle())
        config = written.generation.config if written.generation is not None else self._reloader.current().config
        return Committed(
            revision=revision,
            changed=bool(written.files),
            files=written.files,
            document=written.document,
            everywhere=answered.by_all,
            notices=written.notices,
            restart=self._reloader.restart_keys(config),
            confirm_by=moment_of(written.deadline),
        )

    async def _roll_back_because(self, reason: str) -> None:
        await self._roll_back(reason, None)

    async def _roll_back(self, reason: str, author: Author | None) -> Committed:
        """``author``: who has asked for it, if anybody has."""
        now = self._revisions.now

        def undo() -> tuple[Waiting, _Written]:
            with self._writer.draft() as draft:
                found = self._file.read()
                if found is not None and found.rolled_back:
                    self._file.remove()
                    return found, _Written(document=draft.before, before=revision_of(draft.before), at=now())
                standing = self._file.standing(draft.before)
                if standing is None:
                    raise NothingPending
                draft.edit(standing.undoing)
                generation = self._reloader.build(draft.after)
                files = draft.write()
                with contextlib.suppress(EditFault):  # it waits for a document that is there no more
                    self._file.remove()
                before = revision_of(draft.before)
                return standing, _Written(
                    document=draft.after, before=before, at=now(), files=files, generation=generation
                )

        async with self._reloader.exclusive:
            began = self._clock.monotonic()
            waiting, written = await _in_thread(undo)
            by = author if author is not None else waiting.author
            origin = Origin(trigger=ROLLBACK, began=began, author=by, comment=COMMENTS[reason])
            if written.generation is not None:
                log_rolled_back(waiting, reason)
            await self._put_in_force(written, origin)
        self._resources.events.emit(ConfigRolledBack(revision=waiting.revision, restored=waiting.before, reason=reason))
        if author is None:
            await self._revisions.audit(waiting.author, "config.rollback", waiting.revision, waiting.before)
        return await self._spread(written, ROLLBACK)

    def _try(self, edit: Changing, accounts: KeptAccounts) -> Trial:
        draft = self._writer.look()
        notices: tuple[str, ...] = ()
        faults: tuple[Fault, ...] = ()
        generation = None
        try:
            notices, generation = self._build(draft, edit, accounts, restoring=False)
        except (GuardRefused, ConfigFaults) as refused:
            faults = refused.faults
        return self._trial(draft.before, draft.after, faults, notices, generation)

    def _try_on_disk(self) -> Trial:
        try:
            files = self._writer.look().before
        except Unreadable as unreadable:
            return Trial(revision="", faults=unreadable.faults, notices=(), restart=(), diff="")
        faults: tuple[Fault, ...] = ()
        generation = None
        try:
            generation = self._reloader.build(files)
        except ConfigFaults as refused:
            faults = refused.faults
        notices = () if generation is None else tuple(map(str, generation.loaded.notices))
        return self._trial(self._reloader.current().loaded.files, files, faults, notices, generation)

    def _trial(
        self,
        before: Files,
        after: Files,
        faults: tuple[Fault, ...],
        notices: tuple[str, ...],
        generation: Generation | None,
    ) -> Trial:
        with brief_pauses():
            diff = difference(*(tuple((file.relative, file.data) for file in files) for files in (before, after)))
        config = self._reloader.current().config if generation is None else generation.config
        return Trial(
            revision=revision_of(after),
            faults=faults,
            notices=notices,
            restart=() if faults else self._reloader.restart_keys(config),
            diff=diff,
        )

    # What other workers ask for, and what is put in force however it came.

    async def _apply(self, task: Apply) -> None:
        self._revisions.expect(task.revision)
        with self._resources.teller.following():
            outcome = await self._reloader.reload(task.trigger, unless_in_force=True)
        # It may have been found in the files by then.
        self._resources.teller.known(task.revision)
        await self._followed(outcome)

    async def _reload(self, task: Reload) -> None:
        with self._resources.teller.following():
            outcome = await self._reloader.reload(task.trigger)
        await self._followed(outcome)

    async def _followed(self, outcome: Reloaded | Refused) -> None:
        await self._confirmations.look()
        if isinstance(outcome, Refused):
            raise TaskFailed

    def _applied(self, applied: Applied) -> None:
        self._revisions.note(applied)
        # It may be what waits to be confirmed, or no more.
        self._confirmations.wake()


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(None, work)
