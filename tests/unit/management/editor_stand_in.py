"""An editor for the tests of handlers: its document is in memory, the edits in it are real, and so is the guard."""

import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.document import Document, parse
from config.edit.apply import apply
from config.edit.errors import Stale, Unreadable
from config.faults import ConfigFaults, Fault
from config.load import LoadedConfig, load
from config.master_key import parse_keys
from config.merge import merge
from config.schema import Config
from config.sealing import CONFIG, KeyRing
from config.sources import SourceFile, revision_of
from core.identity import Author
from management.editing.config_view import difference
from management.editing.editor import (
    API,
    RESTORE,
    Change,
    Changing,
    Committed,
    ConfirmationPending,
    Files,
    NothingPending,
    OnDisk,
    Pending,
    Refused,
    Reloaded,
    Trial,
)
from management.secrets.compared import GuardRefused
from management.secrets.guard import check_edit
from storage.errors import BadCursor
from storage.records import Files as PlainFiles
from storage.records import Page, StoredRevision
from tests.planted import planted_key

_MASTER_KEY = base64.b64encode(planted_key("master-key")).decode()
_HOOK_SECRET = "whsec_" + base64.b64encode(planted_key("hook-secret")).decode()

ROOT = Path("/etc/sluice/config.yaml")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

Reload = Callable[[str, Author], Awaitable[Reloaded | Refused]]


def source_files(root: str | bytes, **included: str) -> Files:
    """``included``: by the names of files in `conf.d`, without `.yaml`."""
    texts = {ROOT.name: root, **{f"conf.d/{name}.yaml": text for name, text in sorted(included.items())}}
    return tuple(
        SourceFile(str(ROOT.parent / name), name, text if isinstance(text, bytes) else text.encode())
        for name, text in texts.items()
    )


def plain(files: Files) -> PlainFiles:
    return tuple((file.relative, file.data) for file in files)


class DocumentInMemory:
    """:class:`management.editing.editor.Editor`."""

    def __init__(self, reload: Reload) -> None:
        self._reload = reload
        self.files = source_files("{}\n")
        self.readable = True
        self.in_force: str | None = None
        """None: what is in memory."""
        self.everywhere = True
        self.failure: Exception | None = None
        """What the next commit ends with."""
        self.kept: list[tuple[StoredRevision, PlainFiles]] = []
        self._waiting: tuple[Pending, Files] | None = None

    @property
    def revision(self) -> str:
        return revision_of(self.files)

    async def read(self) -> OnDisk:
        if not self.readable:
            return OnDisk(revision=None, in_force="abc", files=(), files_in_force=self.files)
        in_force = self.in_force or self.revision
        return OnDisk(revision=self.revision, in_force=in_force, files=self.files, files_in_force=self.files)

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
        if self.failure is not None:
            raise self.failure
        if self.revision != expected:
            raise Stale(self.revision)
        if self._waiting is not None:
            raise ConfirmationPending(self._waiting[0])
        before = self.files
        after, notices = self._edited(edit, restoring=trigger == RESTORE)
        loaded = load_files(after)
        confirm_by = None
        if confirm_within_seconds is not None:
            confirm_by = NOW + timedelta(seconds=confirm_within_seconds)
            pending = Pending(
                revision=revision_of(after),
                before=expected,
                confirm_by=confirm_by,
                author=author,
                max_failure_increase=max_failure_increase,
            )
            self._waiting = pending, before
        self._take(after, author, trigger, comment)
        return self._committed(before, confirm_by, (*notices, *map(str, loaded.notices)))

    async def try_out(self, edit: Changing | None) -> Trial:
        if not self.readable:
            raise Unreadable([Fault((), "cannot be read: there is no such file", "conf.d/gone.yaml", 1, 1)])
        after = self.files
        notices: tuple[str, ...] = ()
        faults: tuple[Fault, ...] = ()
        try:
            if edit is not None:
                after, notices = self._edited(edit, restoring=False)
            load_files(after)
        except (ConfigFaults, GuardRefused) as refused:
            faults = refused.faults
        return Trial(
            revision=revision_of(after),
            faults=faults,
            notices=notices,
            restart=(),
            diff=difference(plain(self.files), plain(after)),
        )

    async def reload(self, trigger: str, author: Author) -> Reloaded | Refused:
        return await self._reload(trigger, author)

    def pending(self) -> Pending | None:
        return None if self._waiting is None else self._waiting[0]

    async def confirm(self, revision: str, author: Author) -> None:
        if self._waiting is None or self._waiting[0].revision != revision:
            raise NothingPending(self.pending())
        self._waiting = None

    async def roll_back(self, author: Author) -> Committed:
        if self._waiting is None:
            raise NothingPending
        before, (_, after) = self.files, self._waiting
        self._waiting = None
        self._take(after, author, "rollback", None)
        return self._committed(before, None, ())

    # management.dependencies.Revisions

    async def list(self, *, cursor: str | None, limit: int) -> Page[StoredRevision]:
        if cursor is not None and not cursor.isdecimal():
            raise BadCursor("not a cursor")
        begin = int(cursor or 0)
        found = [revision for revision, _ in reversed(self.kept)][begin:]
        return Page(tuple(found[:limit]), str(begin + limit) if len(found) > limit else None)

    async def get(self, revision_id: str) -> tuple[StoredRevision, PlainFiles] | None:
        return next((each for each in self.kept if each[0].id == revision_id), None)

    async def before(self, revision: StoredRevision) -> tuple[StoredRevision, PlainFiles] | None:
        return next((each for each in self.kept if each[0].seq == revision.seq - 1), None)

    def _edited(self, edit: Changing, *, restoring: bool) -> tuple[Files, tuple[str, ...]]:
        made = edit(self.files) if callable(edit) else edit
        change = made if isinstance(made, Change) else Change(made)
        after = apply(self.files, change.edit)
        config = _config(self.files)
        amendments = check_edit(
            _merged(self.files).value,
            _merged(after).value,
            config.management.allowed_references,
            config.server.allow_private_targets,
            given=change.given,
            restoring=restoring,
        )
        for amendment in amendments.edits:
            after = apply(after, amendment)
        return after, amendments.notices

    def _take(self, files: Files, author: Author, trigger: str, comment: str | None) -> None:
        self.files = files
        number = len(self.kept) + 1
        kept = StoredRevision(
            id=f"{self.revision}-{number}",
            seq=number,
            at=round(NOW.timestamp() * 1_000_000) + number,
            revision=self.revision,
            author=author.name,
            trigger=trigger,
            comment=comment,
        )
        self.kept.append((kept, plain(files)))

    def _committed(self, before: Files, confirm_by: datetime | None, notices: tuple[str, ...]) -> Committed:
        changed = tuple(new.relative for old, new in zip(before, self.files, strict=False) if old != new)
        return Committed(
            revision=self.revision,
            changed=bool(changed),
            files=changed,
            document=self.files,
            everywhere=self.everywhere,
            notices=notices,
            confirm_by=confirm_by,
        )


def load_files(files: Files) -> LoadedConfig:
    """
    Raises:
        ConfigFaults: it cannot be put in force.
    """
    return load(ROOT, {"SLUICE_MASTER_KEY": _MASTER_KEY, "HOOK_SECRET": _HOOK_SECRET}, copy=files)


def _config(files: Files) -> Config:
    try:
        return load_files(files).config
    except ConfigFaults:
        return Config()


def _merged(files: Files) -> Document:
    root, *included = (parse(file.data, file.shown) for file in files)
    document = merge(root, included)
    if document.faults:
        raise ConfigFaults(document.faults)
    return document


class SealingStandIn:
    """:class:`management.secrets.entry_values.Sealer` with a key that is known beforehand."""

    def __init__(self) -> None:
        self.sealed: list[str] = []
        self.failure: Exception | None = None

    def seal(self, text: str) -> str:
        if self.failure is not None:
            raise self.failure
        self.sealed.append(text)
        return f"${{sealed:{KeyRing(parse_keys(_MASTER_KEY)).seal(text.encode(), CONFIG)}}}"
