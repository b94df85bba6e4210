"""The configuration as a whole: its values, edits of them, what an edit would do, and reading the files again."""

from http import HTTPStatus
from typing import Any, Literal

import msgspec

from config.document import MAX_DOCUMENT_BYTES
from config.edit.errors import Unreadable
from config.faults import Fault
from core.identity import Role
from management.editing.config_edits import (
    ANSWERS,
    DocumentQuery,
    EditDraft,
    EditQuery,
    WithoutSealing,
    commit,
    given_edit,
    patch_edit,
)
from management.editing.config_errors import COMMIT_CODES, SECRET_CODES, edit_errors
from management.editing.config_view import ConfigShown, shown_config
from management.editing.editor import API, OnDisk, Refused, Trial
from management.errors import ConfigError, FaultBody, ManagementError, RequestError, fault_body
from management.handler.base import ManagementHandler
from management.handler.in_thread import in_thread
from management.handler.operation import JSON, operation, unaudited
from management.handler.permit import requires

MAX_DRAFT_BYTES = 2 * MAX_DOCUMENT_BYTES
"""A document as a text of JSON: line breaks and quotes take two bytes there."""


class ReloadRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a reload, which may as well be left out: it has no members."""


class ReloadResponse(msgspec.Struct, frozen=True):
    """The answer to a reload."""

    revision: str
    changed: bool
    duration_seconds: float
    everywhere: bool
    """False (and the status is 202): some worker has not answered in time that it has read it too; it will."""
    restart: tuple[str, ...]
    """Keys whose values differ from those of the start: they take effect when the gateway is started again."""


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of an edit. Nothing was written."""

    ok: bool
    """Whether it would be put in force."""
    revision: str | None
    """That the configuration would have; null where a file cannot be read."""
    faults: tuple[FaultBody, ...]
    route_tests: Literal["passed", "failed", "not_run"]
    """`not_run`: other faults come before them."""
    notices: tuple[str, ...]
    restart: tuple[str, ...]
    """Keys that would take effect when the gateway is started again."""
    diff: str
    """What would change, as a unified diff without secrets: in the files, or, without an edit, in what is in force."""


class Configuration(ManagementHandler):
    """``/api/v1/config``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show the configuration on the disk without its secrets, with the place of each value.",
        answers={200: ConfigShown},
        errors=(ConfigError.UNREADABLE,),
        etag=True,
    )
    async def get(self) -> None:
        found, revision = await readable(self)
        with edit_errors():
            shown = await in_thread(shown_config, found.files, revision, found.in_force)
        self.write_bytes(shown, JSON, etag=revision)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Change the configuration by a merge patch (RFC 7396), and put it in force.",
        body=dict[str, Any],
        query=EditQuery,
        answers=ANSWERS,
        errors=(
            RequestError.INVALID_BODY,
            RequestError.INVALID_QUERY,
            RequestError.INVALID_IF_MATCH,
            RequestError.IF_MATCH_REQUIRED,
            *COMMIT_CODES,
            *SECRET_CODES,
        ),
        etag=True,
        if_match=True,
        audit="config.patch",
    )
    async def patch(self) -> None:
        query = self.read_query(EditQuery)
        patch = self.read_body(dict[str, Any])
        await commit(self, patch_edit(patch, self.dependencies.sealer), comment=query.comment)


class ConfigValidation(ManagementHandler):
    """``/api/v1/config/validate``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Tell what an edit would do; without a body, what a reload would do with the files as they are.",
        body=EditDraft,
        body_required=False,
        or_yaml=True,
        query=DocumentQuery,
        answers={200: Validated},
        errors=(
            RequestError.INVALID_BODY,
            RequestError.INVALID_QUERY,
            ConfigError.ENTRY_MISSING,
            ConfigError.UNREADABLE,
            ConfigError.EDIT_REFUSED,
            ConfigError.NOTHING_TO_KEEP,
        ),
        audit=unaudited(because="it changes nothing"),
        max_body_bytes=MAX_DRAFT_BYTES,
    )
    async def post(self) -> None:
        query = self.read_query(DocumentQuery)
        edit = given_edit(self, query.file, WithoutSealing()) if self.raw_body().strip() else None
        with edit_errors():
            trial = await self.dependencies.editor.try_out(edit)
        self.write_json(
            Validated(
                ok=not trial.faults,
                revision=trial.revision or None,
                faults=tuple(map(fault_body, trial.faults)),
                route_tests=_route_tests(trial),
                notices=trial.notices,
                restart=trial.restart,
                diff=trial.diff,
            )
        )


class ConfigReload(ManagementHandler):
    """``/api/v1/config/reload``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Read the configuration again and put it in force; with faults nothing changes.",
        body=ReloadRequest,
        body_required=False,
        answers={200: ReloadResponse, 202: ReloadResponse},
        errors=(RequestError.INVALID_BODY, ConfigError.INVALID),
        audit="config.reload",
    )
    async def post(self) -> None:
        self.read_body_or(ReloadRequest, ReloadRequest())
        before = self.view.revision
        self.audit("config", before, before={"revision": before})
        outcome = await self.dependencies.editor.reload(API, self.author)
        if isinstance(outcome, Refused):
            raise ManagementError(
                ConfigError.INVALID,
                f"The configuration has {len(outcome.faults)} fault(s); the one in force stays.",
                faults=outcome.faults,
            )
        self.audit("config", outcome.revision, before={"revision": before}, after={"revision": outcome.revision})
        self.write_json(
            ReloadResponse(
                outcome.revision,
                outcome.changed,
                round(outcome.duration_seconds, 6),
                outcome.everywhere,
                outcome.restart,
            ),
            HTTPStatus.OK if outcome.everywhere else HTTPStatus.ACCEPTED,
        )


async def readable(handler: ManagementHandler) -> tuple[OnDisk, str]:
    """What is on the disk, and its revision.

    Raises:
        ManagementError: 409: some file cannot be read.
    """
    found = await handler.dependencies.editor.read()
    if found.revision is not None:
        return found, found.revision
    with edit_errors():
        trial = await handler.dependencies.editor.try_out(None)
        raise Unreadable(trial.faults or [Fault((), "a file could not be read a moment ago: try again")])


def _route_tests(trial: Trial) -> Literal["passed", "failed", "not_run"]:
    # They are run when nothing else is wrong.
    if not trial.faults:
        return "passed"
    are_all_of_tests = all(fault.path[:1] == ("route_tests",) and len(fault.path) > 1 for fault in trial.faults)
    return "failed" if are_all_of_tests else "not_run"
