"""Edits that are taken back by themselves unless somebody who still reaches the gateway confirms them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from core.identity import Role
from management.config import MAX_DRAFT_BYTES
from management.editing.config_edits import ANSWERS, Comment, EditDraft, FileName, commit, given_edit, write_made
from management.editing.config_errors import COMMIT_CODES, SECRET_CODES, WRITE_CODES, edit_errors
from management.editing.editor import Pending
from management.errors import ConfigError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires

Seconds = Annotated[float, Meta(ge=1, le=86_400, description="how long the edit waits to be confirmed")]
Share = Annotated[
    float,
    Meta(
        ge=0,
        le=1,
        description="it is taken back at once where the share of failed requests grows by more, over 50 requests",
    ),
]


class ApplyQuery(msgspec.Struct, frozen=True):
    """How long to wait, and what for."""

    file: FileName | None = None
    confirm_within_seconds: Seconds = 60.0
    max_failure_increase: Share = 0.1
    comment: Comment | None = None


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is confirmed."""

    revision: Annotated[str, Meta(max_length=200)]
    """That which was answered when it was applied."""


class PendingShown(msgspec.Struct, frozen=True):
    """The edit that waits to be confirmed."""

    pending: Pending | None
    """null: none does."""


class ConfigApplication(ManagementHandler):
    """``/api/v1/config/apply``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Edit the configuration as /config/validate takes it, until it is confirmed or taken back.",
        body=EditDraft,
        or_yaml=True,
        query=ApplyQuery,
        answers=ANSWERS,
        errors=(
            RequestError.INVALID_BODY,
            RequestError.INVALID_QUERY,
            RequestError.INVALID_IF_MATCH,
            RequestError.IF_MATCH_REQUIRED,
            ConfigError.ENTRY_MISSING,
            *COMMIT_CODES,
            *SECRET_CODES,
        ),
        etag=True,
        if_match=True,
        audit="config.apply",
        max_body_bytes=MAX_DRAFT_BYTES,
    )
    async def post(self) -> None:
        query = self.read_query(ApplyQuery)
        edit = given_edit(self, query.file, self.dependencies.sealer)
        await commit(
            self,
            edit,
            comment=query.comment,
            confirm_within_seconds=query.confirm_within_seconds,
            max_failure_increase=query.max_failure_increase,
        )


class ConfigPending(ManagementHandler):
    """``/api/v1/config/pending``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show the edit that waits to be confirmed.",
        answers={200: PendingShown},
    )
    async def get(self) -> None:
        self.write_json(PendingShown(self.dependencies.editor.pending()))


class ConfigConfirmation(ManagementHandler):
    """``/api/v1/config/confirm``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Let the edit that waits to be confirmed stay.",
        body=Confirmation,
        answers={204: None},
        errors=(RequestError.INVALID_BODY, ConfigError.NOTHING_PENDING, *WRITE_CODES),
        audit="config.confirm",
    )
    async def post(self) -> None:
        revision = self.read_body(Confirmation).revision
        self.audit("config", revision)
        with edit_errors():
            await self.dependencies.editor.confirm(revision, self.author)
        self.write_empty()


class ConfigRollback(ManagementHandler):
    """``/api/v1/config/rollback``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Take the edit that waits to be confirmed back at once.",
        answers=ANSWERS,
        errors=(ConfigError.NOTHING_PENDING, ConfigError.INVALID, *WRITE_CODES),
        etag=True,
        audit="config.rollback",
    )
    async def post(self) -> None:
        editor = self.dependencies.editor
        if (pending := editor.pending()) is not None:
            self.audit("config", pending.revision, before={"revision": pending.revision})
        with edit_errors():
            committed = await editor.roll_back(self.author)
        before = None if pending is None else {"revision": pending.revision}
        self.audit("config", committed.revision, before=before, after={"revision": committed.revision})
        write_made(self, committed)
