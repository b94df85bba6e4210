"""Entries that are kept in the files of the configuration, in lists such as `providers`: what their handlers share.

An entry is told by its name (an alias by its `from`). It is edited in the file that it stands in, a new one is written
last in the root file. The ETag is the revision of all files together: what another edit has changed meanwhile is seen.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

from config.document import Value
from config.edit.apply import merge_patch
from config.edit.edits import PutEntry, RemoveEntry, key_field
from config.edit.errors import Stale, Unreadable
from config.faults import Fault
from core.identity import Role
from management.editing.config_errors import COMMIT_CODES, SECRET_CODES, edit_errors
from management.editing.config_view import read_document, shown_name
from management.editing.editor import Change, Committed, Files, OnDisk
from management.editing.entry_schema import ORDERED, left_aside
from management.errors import ConfigError, ManagementCode, ManagementError, RequestError
from management.handler.base import ManagementHandler
from management.handler.in_thread import in_thread
from management.handler.pages import bad_cursor
from management.secrets.entry_values import Json, Translated, shown, to_document
from management.secrets.secret_places import shared_secrets
from storage.errors import BadCursor
from storage.pages import decode_cursor, encode_cursor

Entry = dict[str, Value]

LIST_ERRORS: tuple[ManagementCode, ...] = (RequestError.INVALID_QUERY,)
_GIVEN: tuple[ManagementCode, ...] = (
    RequestError.INVALID_BODY,
    *SECRET_CODES,
    *COMMIT_CODES,
)
CREATE_ERRORS: tuple[ManagementCode, ...] = (
    RequestError.INVALID_IF_MATCH,
    ConfigError.ENTRY_EXISTS,
    *_GIVEN,
)
CHANGE_ERRORS: tuple[ManagementCode, ...] = (
    RequestError.INVALID_IF_MATCH,
    RequestError.IF_MATCH_REQUIRED,
    *_GIVEN,
)
DELETE_ERRORS: tuple[ManagementCode, ...] = (
    RequestError.INVALID_IF_MATCH,
    RequestError.IF_MATCH_REQUIRED,
    *COMMIT_CODES,
)

TRIES = 20
"""Of an edit that expects no revision: others may be made at the same time. One that comes too late costs little."""


class EntryQuery(msgspec.Struct, frozen=True):
    """Which part of a list."""

    cursor: Annotated[str | None, Meta(description="`next_cursor` of the part before")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="most entries")] = 100


class EntryRemoved(msgspec.Struct, frozen=True):
    """An entry is removed here; some worker has not answered yet that it has followed."""

    revision: str
    notices: tuple[str, ...]
    restart: tuple[str, ...]


class Section(msgspec.Struct, frozen=True):
    """A list of the document as a resource."""

    name: str
    """The key of the list, such as `providers`."""
    resource: str
    """What the audit calls one of its entries."""
    path: str
    """Of the resource."""
    one: str
    """An entry, in words, with its article."""
    many: str
    """Entries, in words."""
    missing: ManagementCode = ConfigError.ENTRY_MISSING
    """Where there is no entry of the name that is asked for."""
    readers: Role = Role.ADMIN
    """Who may look at them. Only admins edit, and no tokens."""

    @property
    def key_field(self) -> str:
        """The field of an entry that its path ends in."""
        return key_field(self.name)

    def path_of(self, key: str) -> str:
        """Of an entry."""
        return f"{self.path}/{quote(key, safe='')}"


class _Found(msgspec.Struct, frozen=True):
    """An entry where it stands."""

    section: str
    key: str
    value: Entry
    shared: frozenset[int]
    file: str
    line: int

    def shown(self) -> dict[str, Json]:
        """For the audit."""
        return shown(self.value, self.section, self.shared)


class Entries(ManagementHandler):
    """Base of the handlers of a :class:`Section`."""

    section: Section

    def notes(self, _key: str) -> dict[str, Json]:
        """What is shown of an entry beside what its file says."""
        return {}

    def notes_once(self) -> dict[str, Json]:
        """What is told by the answer to an edit alone."""
        return {}

    async def translate(self, key: str, body: dict[str, Json], present: Entry | None) -> Translated:
        """What a caller has given, as :func:`management.secrets.entry_values.to_document` does."""
        # It may wait for Vault, which nobody else should.
        return await asyncio.to_thread(to_document, self.section.name, key, body, present, self.dependencies.sealer)

    async def list_entries(self) -> None:
        """200 with a part of the list, in the order of the document."""
        query = self.read_query(EntryQuery)
        revision, found = await self._read_to_show()
        begin = 0
        if query.cursor is not None:
            try:
                (last,) = decode_cursor(query.cursor, tuple[str])
            except BadCursor as error:
                raise bad_cursor() from error
            begin = next((number + 1 for number, each in enumerate(found) if each.key == last), -1)
            if begin < 0:
                raise ManagementError(
                    RequestError.INVALID_QUERY,
                    "The list has changed, and what `cursor` stands for is gone: begin anew, without one.",
                    param="cursor",
                )
        end = begin + query.limit
        part = found[begin:end]
        self.write_json(
            {
                "data": [self._shown(each) for each in part],
                "next_cursor": encode_cursor(part[-1].key) if end < len(found) else None,
            },
            etag=revision,
        )

    async def show_entry(self, key: str) -> None:
        """200 with the entry."""
        revision, found = await self._read_to_show()
        self.write_json(self._shown(self._require(found, key)), etag=revision)

    async def create_entry(self) -> None:
        """201 with the new entry, or 202."""
        body, before = self._read_given()
        field = self.section.key_field
        key = body.get(field)
        if not isinstance(key, str) or not key:
            raise ManagementError(
                RequestError.INVALID_BODY, f"A new entry needs a name: send `{field}`, a text.", param=field
            )
        self.audit(self.section.resource, key)
        given = self.optional_if_match()
        for last in (*[False] * (TRIES - 1), True):
            try:
                with edit_errors():
                    on_disk, found = await self._read()
                    self._require_before(found, before)
                    translated = await self.translate(key, body, None)
                    edit = PutEntry(self.section.name, key, translated.value, before=before, must_exist=False)
                    committed = await self._commit(given or _revision(on_disk), edit, translated)
                break
            except ManagementError as error:
                if error.code is not ConfigError.STALE or given is not None or last:
                    raise
        await self._answer_with(key, committed, None, HTTPStatus.CREATED)

    async def replace_entry(self, key: str) -> None:
        """200 with the entry as it is now, or 202. It may be sent back as it was shown."""
        body, before = self._read_given()
        file = _take_notes(self.section, body)
        await self._change(
            key, before, file, lambda present: self.translate(key, self._named(key, body), present.value)
        )

    async def patch_entry(self, key: str) -> None:
        """200 with the entry as it is now, or 202. The body is a merge patch (RFC 7396)."""
        body, before = self._read_given()
        file = _take_notes(self.section, body)

        async def patched(present: _Found) -> Translated:
            patch = await self.translate(key, self._named(key, body), present.value)
            value = merge_patch(present.value, patch.value)
            assert isinstance(value, dict)  # a mapping joined with another
            return msgspec.structs.replace(patch, value=value)

        await self._change(key, before, file, patched)

    async def delete_entry(self, key: str) -> None:
        """204, or 202."""
        expected = self.if_match()
        self.audit(self.section.resource, key)
        with edit_errors():
            _, present = await self._read_expected(expected, key)
            committed = await self.dependencies.editor.commit(
                expected, RemoveEntry(self.section.name, key), self.author
            )
        self.audit(self.section.resource, key, before=present.shown())
        if committed.everywhere:
            self.write_empty(etag=committed.revision)
        else:
            body = EntryRemoved(committed.revision, committed.notices, committed.restart)
            self.write_json(body, HTTPStatus.ACCEPTED, etag=committed.revision)

    async def _change(
        self, key: str, before: str | None, file: Json, make: Callable[[_Found], Awaitable[Translated]]
    ) -> None:
        expected = self.if_match()
        self.audit(self.section.resource, key)
        with edit_errors():
            found, present = await self._read_expected(expected, key)
            if file not in (None, present.file):
                raise ManagementError(
                    RequestError.INVALID_BODY,
                    f"`file` is not where the entry stands, which is `{present.file}`: leave it out, an entry stays there.",
                    param="file",
                )
            self._require_before(found, before)
            translated = await make(present)
            edit = PutEntry(self.section.name, key, translated.value, before=before, must_exist=True)
            committed = await self._commit(expected, edit, translated)
        await self._answer_with(key, committed, present, HTTPStatus.OK)

    async def _commit(self, expected: str, edit: PutEntry, translated: Translated) -> Committed:
        return await self.dependencies.editor.commit(expected, Change(edit, translated.given), self.author)

    async def _answer_with(self, key: str, committed: Committed, before: _Found | None, status: HTTPStatus) -> None:
        found = self._require(await in_thread(_entries, self.section, committed.document), key)
        self.audit(
            self.section.resource,
            key,
            before=None if before is None else before.shown(),
            after=found.shown(),
        )
        self.write_json(
            {
                **self._shown(found),
                "notices": committed.notices,
                "restart": committed.restart,
                **self.notes_once(),
            },
            status if committed.everywhere else HTTPStatus.ACCEPTED,
            etag=committed.revision,
            location=self.section.path_of(key) if status is HTTPStatus.CREATED else None,
        )

    def _shown(self, found: _Found) -> dict[str, Json]:
        return {**found.shown(), "file": found.file, "line": found.line, **self.notes(found.key)}

    async def _read_to_show(self) -> tuple[str, list[_Found]]:
        """The entries and their revision; those in force where a file on the disk cannot be read, and nothing be edited."""
        on_disk = await self.dependencies.editor.read()
        if on_disk.revision is not None:
            with contextlib.suppress(Unreadable):
                return on_disk.revision, await in_thread(_entries, self.section, on_disk.files)
        return on_disk.in_force, await in_thread(_entries, self.section, on_disk.files_in_force)

    async def _read(self) -> tuple[OnDisk, list[_Found]]:
        with edit_errors():
            on_disk = await self.dependencies.editor.read()
            _revision(on_disk)
            return on_disk, await in_thread(_entries, self.section, on_disk.files)

    async def _read_expected(self, expected: str, key: str) -> tuple[list[_Found], _Found]:
        """The entries, and the one of ``key``, of the revision that is ``expected``."""
        on_disk, found = await self._read()
        _require_revision(on_disk, expected)
        return found, self._require(found, key)

    def _read_given(self) -> tuple[dict[str, Json], str | None]:
        """The body, and of it what the entry shall stand before."""
        body = self.read_body(dict[str, Any])
        if self.section.name not in ORDERED:
            return body, None
        before = body.pop("before", None)
        if before is not None and not isinstance(before, str):
            raise ManagementError(
                RequestError.INVALID_BODY,
                "`before` takes the name of the entry that this one shall stand before.",
                param="before",
            )
        return body, before

    def _named(self, key: str, body: dict[str, Json]) -> dict[str, Json]:
        field = self.section.key_field
        if body.setdefault(field, key) != key:
            raise ManagementError(
                RequestError.INVALID_BODY,
                f"`{field}` is not the one in the path: an entry keeps its name; make another one and delete this.",
                param=field,
            )
        return {field: key, **body}

    def _require(self, found: list[_Found], key: str) -> _Found:
        for each in found:
            if each.key == key:
                return each
        raise ManagementError(
            self.section.missing,
            f"The configuration's `{self.section.name}` have no entry `{key[:64]}`.",
            param=self.section.key_field,
        )

    def _require_before(self, found: list[_Found], before: str | None) -> None:
        if before is not None and all(each.key != before for each in found):
            raise ManagementError(
                RequestError.INVALID_BODY, f"`before` names no entry that there is: `{before[:64]}`.", param="before"
            )


def _take_notes(section: Section, body: dict[str, Json]) -> Json:
    """Take out of ``body`` what answers add to an entry; of that, the file where it is said to stand."""
    for name in left_aside(section.name):
        body.pop(name, None)
    return body.pop("file", None)


def _entries(section: Section, files: Files) -> list[_Found]:
    """The entries of a section, in their order."""
    document = read_document(files)
    shared = shared_secrets(document.value)
    names = {file.shown: shown_name(file.relative) for file in files}
    entries = document.value.get(section.name)
    found: list[_Found] = []
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        key = entry.get(section.key_field) if isinstance(entry, dict) else None
        if isinstance(entry, dict) and isinstance(key, str):
            place, _ = document.place.find((section.name, number))
            found.append(_Found(section.name, key, entry, shared, names[place.file], place.line))
    return found


def _revision(on_disk: OnDisk) -> str:
    if on_disk.revision is None:
        raise Unreadable([Fault((), "some file of the configuration cannot be read")])
    return on_disk.revision


def _require_revision(on_disk: OnDisk, expected: str) -> None:
    if _revision(on_disk) != expected:
        raise Stale(on_disk.revision)
