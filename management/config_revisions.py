"""What the configuration was: its revisions, how they differ, and putting one back."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from config.edit.edits import PutFiles
from core.identity import Role
from core.moments import moment
from management.config import readable
from management.editing.config_edits import ANSWERS, Comment, commit, plain
from management.editing.config_errors import COMMIT_CODES
from management.editing.config_view import FileShown, PlainFiles, difference, shown_files
from management.editing.editor import RESTORE, Change
from management.errors import ConfigError, ManagementError, RequestError, StorageError
from management.handler.base import ManagementHandler
from management.handler.in_thread import in_thread
from management.handler.operation import TEXT, operation
from management.handler.pages import PageQuery, bad_cursor
from management.handler.permit import requires
from storage.errors import BadCursor
from storage.records import Files, StoredRevision

CURRENT = "current"
"""In the place of a revision: the files as they are on the disk."""

_READ_ERRORS = (ConfigError.REVISION_MISSING, StorageError.UNAVAILABLE)


class RevisionShown(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that was put in force."""

    id: str
    revision: str
    """The hash of its files; one that was put back has that of the earlier one."""
    at: datetime
    author: str
    trigger: str
    """`api`, `watch`, `signal`, `start`, `restore` or `rollback`."""
    comment: str | None


class RevisionWithFiles(RevisionShown, frozen=True, kw_only=True):
    """The same with its files."""

    files: tuple[FileShown, ...]


class RevisionList(msgspec.Struct, frozen=True):
    """Some of them, newest first."""

    data: tuple[RevisionShown, ...]
    next_cursor: str | None


class DifferenceQuery(msgspec.Struct, frozen=True):
    """What it is compared with."""

    against: (
        Annotated[str, Meta(max_length=200, description="another's id or hash, or `current`; none: the one before")]
        | None
    ) = None


class RestoreQuery(msgspec.Struct, frozen=True):
    """The parameters of a restore."""

    comment: Comment | None = None


class ConfigRevisions(ManagementHandler):
    """``/api/v1/config/revisions``."""

    @operation(
        requires(Role.ADMIN),
        summary="List the configurations that were put in force, newest first.",
        query=PageQuery,
        answers={200: RevisionList},
        errors=(RequestError.INVALID_QUERY, StorageError.UNAVAILABLE),
    )
    async def get(self) -> None:
        query = self.read_query(PageQuery)
        try:
            page = await self.dependencies.revisions.list(cursor=query.cursor, limit=query.limit)
        except BadCursor as error:
            raise bad_cursor() from error
        self.write_json(RevisionList(tuple(map(_shown, page.entries)), page.next_cursor))


class ConfigRevision(ManagementHandler):
    """``/api/v1/config/revisions/{id}``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show a revision with its files, without their secrets.",
        answers={200: RevisionWithFiles},
        errors=_READ_ERRORS,
    )
    async def get(self, revision_id: str) -> None:
        revision, files = await _found(self, revision_id)
        shown = await in_thread(shown_files, files)
        self.write_json(RevisionWithFiles(**msgspec.structs.asdict(_shown(revision)), files=shown))


class ConfigRevisionDifference(ManagementHandler):
    """``/api/v1/config/revisions/{id}/diff``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show what a revision has changed, as a unified diff without secrets.",
        query=DifferenceQuery,
        answers={200: TEXT},
        errors=(RequestError.INVALID_QUERY, ConfigError.UNREADABLE, *_READ_ERRORS),
    )
    async def get(self, revision_id: str) -> None:
        query = self.read_query(DifferenceQuery)
        revision, files = await _found(self, revision_id)
        before: PlainFiles
        if query.against is None:
            previous = await self.dependencies.revisions.before(revision)
            before = () if previous is None else previous[1]
        elif query.against == CURRENT:
            before = plain((await readable(self))[0].files)
        else:
            _, before = await _found(self, query.against)
        self.write_bytes((await in_thread(difference, before, files)).encode(), f"{TEXT}; charset=utf-8")


class ConfigRevisionRestore(ManagementHandler):
    """``/api/v1/config/revisions/{id}/restore``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Put the files of a revision back, all at once, and in force.",
        query=RestoreQuery,
        answers=ANSWERS,
        errors=(
            RequestError.INVALID_QUERY,
            RequestError.INVALID_IF_MATCH,
            RequestError.IF_MATCH_REQUIRED,
            *_READ_ERRORS,
            *COMMIT_CODES,
        ),
        etag=True,
        if_match=True,
        audit="config.restore",
    )
    async def post(self, revision_id: str) -> None:
        query = self.read_query(RestoreQuery)
        self.if_match()
        _, files = await _found(self, revision_id)
        comment = query.comment if query.comment is not None else f"restores {revision_id}"
        await commit(self, lambda _: Change(PutFiles(files)), trigger=RESTORE, comment=comment)


async def _found(handler: ManagementHandler, revision_id: str) -> tuple[StoredRevision, Files]:
    found = await handler.dependencies.revisions.get(revision_id)
    if found is None:
        raise ManagementError(
            ConfigError.REVISION_MISSING,
            f"There is no revision `{revision_id[:100]}`, or it is kept no longer: see /api/v1/config/revisions.",
        )
    return found


def _shown(revision: StoredRevision) -> RevisionShown:
    return RevisionShown(
        id=revision.id,
        revision=revision.revision,
        at=moment(revision.at),
        author=revision.author,
        trigger=revision.trigger,
        comment=revision.comment,
    )
