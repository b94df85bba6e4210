"""Settings: what a few scalars of the configuration are, where that comes from, and setting them one by one.

A value comes from the highest of its sources: what the system is, the command line, the environment, the file, the
default. The API edits the file, so it changes nothing that a higher source says.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from config.edit.edits import MergePatch
from config.scalars import Scalar
from core.identity import Role
from management.editing.config_errors import COMMIT_CODES, edit_errors
from management.editing.config_view import read_document
from management.editing.editor import Files
from management.errors import ManagementError, RequestError, SettingsError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.setting_values import SettingShown, Source


class SettingList(msgspec.Struct, frozen=True):
    """All of them, in the order of the documentation. There are few: it is one page."""

    data: tuple[SettingShown, ...]
    next_cursor: str | None = None


class SettingValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a setting is to be."""

    value: Annotated[str, Meta(max_length=1024)] | int | float | bool


_ITEM: dict[int, Any] = {200: SettingShown, 202: SettingShown}
_NEEDS = (
    RequestError.INVALID_IF_MATCH,
    RequestError.IF_MATCH_REQUIRED,
    SettingsError.UNKNOWN_KEY,
    SettingsError.READ_ONLY,
    SettingsError.MASKED,
    *COMMIT_CODES,
)
_HIGHER = {
    Source.COMMAND_LINE: "the command line",
    Source.ENVIRONMENT: "the environment",
}


class Settings(ManagementHandler):
    """``/api/v1/settings``."""

    @operation(
        requires(Role.ADMIN),
        summary="List the settings with their values and where these come from.",
        answers={200: SettingList},
        etag=True,
    )
    async def get(self) -> None:
        on_disk = await self.dependencies.editor.read()
        self.write_json(SettingList(tuple(self.dependencies.settings().values())), etag=on_disk.revision)


class SettingItem(ManagementHandler):
    """``/api/v1/settings/{key}``."""

    @operation(
        requires(Role.ADMIN),
        summary="Show a setting.",
        answers={200: SettingShown},
        errors=(SettingsError.UNKNOWN_KEY,),
        etag=True,
    )
    async def get(self, key: str) -> None:
        on_disk = await self.dependencies.editor.read()
        self.write_json(self._setting(key), etag=on_disk.revision)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Set a setting, in the file of the configuration.",
        body=SettingValue,
        answers=_ITEM,
        errors=(RequestError.INVALID_BODY, *_NEEDS),
        etag=True,
        if_match=True,
        audit="settings.set",
    )
    async def put(self, key: str) -> None:
        asked = self.read_body(SettingValue)
        await self._edit(key, asked.value)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Remove a setting from the file of the configuration: its default counts again.",
        answers=_ITEM,
        errors=_NEEDS,
        etag=True,
        if_match=True,
        audit="settings.reset",
    )
    async def delete(self, key: str) -> None:
        await self._edit(key, None)

    async def _edit(self, key: str, value: Scalar) -> None:
        """``value`` None: remove it."""
        expected = self.if_match()
        before = self._setting(key)
        self.audit("setting", key, before=before)
        _require_editable(before)
        with edit_errors():
            committed = await self.dependencies.editor.commit(expected, _edit_of(key, value), self.author)
        after = self._setting(key)
        self.audit("setting", key, before=before, after=after)
        status = HTTPStatus.OK if committed.everywhere else HTTPStatus.ACCEPTED
        self.write_json(after, status, etag=committed.revision)

    def _setting(self, key: str) -> SettingShown:
        settings: Mapping[str, SettingShown] = self.dependencies.settings()
        found = settings.get(key)
        if found is None:
            raise ManagementError(
                SettingsError.UNKNOWN_KEY,
                "There is no such setting: GET /api/v1/settings lists them; other keys are set by /api/v1/config.",
            )
        return found


def _edit_of(key: str, value: Scalar) -> Callable[[Files], MergePatch]:
    path = key.split(".")
    patch: Any = value
    for step in reversed(path):
        patch = {step: patch}

    def edit(files: Files) -> MergePatch:
        if value is None:
            # A merge patch would make the mapping that there is nothing to remove from.
            found: Any = read_document(files).value
            for step in path[:-1]:
                found = found.get(step) if isinstance(found, dict) else None
            if found is None:
                return MergePatch({})
        return MergePatch(patch)

    return edit


def _require_editable(setting: SettingShown) -> None:
    if setting.source is Source.SYSTEM:
        raise ManagementError(SettingsError.READ_ONLY, f"`{setting.key}` is told by the system: it cannot be set.")
    higher = _HIGHER.get(setting.source)
    if higher is not None:
        how = f" (`{setting.variable}`)" if setting.source is Source.ENVIRONMENT else ""
        raise ManagementError(
            SettingsError.MASKED,
            f"`{setting.key}` is set by {higher}{how}, which goes before the file: change it there.",
        )
