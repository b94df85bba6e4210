"""Edits of the configuration as bodies give them, what is answered to them, and what the audit says of them."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from config.document import parse
from config.edit.edits import MergePatch, PutDocument
from config.edit.errors import EntryMissing, Unreadable
from config.faults import Fault
from config.sources import SourceFile
from management.editing.config_errors import edit_errors
from management.editing.config_view import PlainFiles, difference, read_document, shown_name
from management.editing.editor import API, Change, Committed, Files
from management.errors import ManagementError, RequestError
from management.handler.base import ManagementHandler
from management.handler.in_thread import in_thread
from management.secrets.entry_values import Sealer, patch_to_document
from management.secrets.kept_secrets import given_in
from management.secrets.secret_values import restored_document

MAX_AUDITED_DIFF = 16 * 1024
"""Characters."""

Comment = Annotated[str, Meta(max_length=500, description="kept with the revision")]
FileName = Annotated[
    str, Meta(max_length=4096, description="a file that the configuration includes, as `files` of /config names it")
]
Patch = Annotated[dict[str, Any], Meta(description="a merge patch (RFC 7396) of the whole document")]

_Make = Callable[[Files], Change]


class DocumentQuery(msgspec.Struct, frozen=True):
    """Which file; none: the root."""

    file: FileName | None = None


class EditQuery(msgspec.Struct, frozen=True):
    """The parameters of an edit."""

    comment: Comment | None = None


class EditDraft(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An edit: either a whole `document` or a `patch`."""

    document: (
        Annotated[str, Meta(description="the YAML text of a file, `${kept}` for secrets that stay")] | UnsetType
    ) = UNSET
    file: Annotated[str, Meta(description="which file `document` is: as `files` of /config names it")] | None = None
    """null: the root."""
    patch: Patch | UnsetType = UNSET


class EditMade(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that is on the disk and in force."""

    revision: str
    changed: bool
    """False: the document was so already, and nothing was written."""
    files: tuple[str, ...]
    """Those that were written."""
    everywhere: bool
    """False (and the status is 202): some worker has not answered in time that it serves the new one too; it will."""
    notices: tuple[str, ...]
    restart: tuple[str, ...]
    """Keys that take effect when the gateway is started again."""
    confirm_by: datetime | None = None
    """When the edit is taken back unless it is confirmed; null: it stays."""


ANSWERS: dict[int, Any] = {200: EditMade, 202: EditMade}
"""Of every operation that edits the configuration."""


class Edited:
    """Makes an edit of the files, once they are locked, and remembers them."""

    def __init__(self, make: _Make) -> None:
        self._make = make
        self.before: Files | None = None

    def __call__(self, files: Files) -> Change:
        self.before = files
        return self._make(files)


class WithoutSealing:
    """In the place of a :class:`management.secrets.entry_values.Sealer` where nothing is written, not even a master key."""

    def seal(self, text: str) -> str:
        """The text itself, as a document has it; what shows the document masks it."""
        return text.replace("${", "$${")


def document_edit(data: bytes, name: str | None) -> _Make:
    """``data`` in the place of the file ``name`` (None: the root); secrets that it leaves out are put back."""

    def make(files: Files) -> Change:
        present = named_file(files, name)
        # A file that cannot be parsed is nobody's to overwrite by the API.
        if faults := parse(present.data, present.shown).faults:
            raise Unreadable(faults)
        restored = restored_document(data, present.data, present.shown)
        given = given_in(parse(data, present.shown).value)
        return Change(PutDocument(restored, present.relative), given)

    return make


def patch_edit(patch: dict[str, Any], sealer: Sealer) -> _Make:
    """A merge patch whose secrets have the forms of :mod:`management.secrets.entry_values`."""

    def make(files: Files) -> Change:
        translated = patch_to_document(patch, read_document(files).value, sealer)
        return Change(MergePatch(translated.value), translated.given)

    return make


def given_edit(handler: ManagementHandler, name: str | None, sealer: Sealer) -> _Make:
    """The edit that a request has for its body: YAML, which is the file ``name`` (None: the root), or an :class:`EditDraft`.

    Raises:
        ManagementError: 413, 415, 400: there is none, or not one.
    """
    if handler.says_yaml:
        return document_edit(handler.raw_body(), name)
    draft = handler.read_body(EditDraft)
    match draft.document, draft.patch:
        case str() as text, UnsetType() if name is None or draft.file is None:
            return document_edit(text.encode(), draft.file or name)
        case UnsetType(), dict() as patch if name is None and draft.file is None:
            return patch_edit(patch, sealer)
    raise ManagementError(
        RequestError.INVALID_BODY, "Send either `document`, with `file` where it is not the root, or `patch`."
    )


def named_file(files: Files, name: str | None) -> SourceFile:
    """
    Raises:
        EntryMissing: there is none of that ``name`` (None: the root).
    """
    for file in files:
        if name is None or shown_name(file.relative) == name:
            return file
    known = ", ".join(f"`{shown_name(file.relative)}`" for file in files[:20])
    raise EntryMissing([Fault((), f"there is no such file in the configuration: name one of {known}")])


async def commit(handler: ManagementHandler, make: _Make, *, trigger: str = API, **options: Any) -> None:
    """Make the edit in the document of `If-Match`, answer it, and tell the audit.

    ``options``: of :meth:`management.editing.editor.Editor.commit`.

    Raises:
        ManagementError: as :func:`management.editing.config_errors.edit_errors` has it.
    """
    expected = handler.if_match()
    handler.audit("config", expected, before={"revision": expected})
    edit = Edited(make)
    with edit_errors():
        committed = await handler.dependencies.editor.commit(expected, edit, handler.author, trigger=trigger, **options)
    diff = await _audited_diff(edit.before or (), committed.document)
    after = {"revision": committed.revision, "files": _names(committed), "diff": diff}
    handler.audit("config", committed.revision, before={"revision": expected}, after=after)
    write_made(handler, committed)


def write_made(handler: ManagementHandler, committed: Committed) -> None:
    """Answer an edit that was made."""
    made = EditMade(
        revision=committed.revision,
        changed=committed.changed,
        files=_names(committed),
        everywhere=committed.everywhere,
        notices=committed.notices,
        restart=committed.restart,
        confirm_by=committed.confirm_by,
    )
    handler.write_json(made, HTTPStatus.OK if committed.everywhere else HTTPStatus.ACCEPTED, etag=committed.revision)


def plain(files: Files) -> PlainFiles:
    """Names and contents alone."""
    return tuple((file.relative, file.data) for file in files)


async def _audited_diff(before: Files, after: Files) -> str:
    return shortened(await in_thread(difference, plain(before), plain(after)))


def shortened(diff: str) -> str:
    """No more than an entry of the audit should hold: whole lines from the beginning."""
    if len(diff) <= MAX_AUDITED_DIFF:
        return diff
    shown = diff[: diff.rfind("\n", 0, MAX_AUDITED_DIFF) + 1]
    return f"{shown}# {len(diff) - len(shown)} characters more: compare the revisions\n"


def _names(committed: Committed) -> tuple[str, ...]:
    return tuple(map(shown_name, committed.files))
