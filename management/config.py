"""The configuration in force."""

from http import HTTPStatus

import msgspec

from core.identity import Role
from management.base import ManagementHandler
from management.dependencies import Refused
from management.errors import ConfigError, ManagementError
from management.permit import requires

TRIGGER = "api"
"""The word for this way to reload, in events, metrics and the log."""


class ReloadRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a reload, which may as well be left out: it has no members."""


class ReloadResponse(msgspec.Struct, frozen=True):
    """The answer to a reload."""

    revision: str
    changed: bool
    duration_seconds: float


class Reload(ManagementHandler, permit=requires(Role.ADMIN)):
    """``POST /api/v1/config/reload``."""

    async def post(self) -> None:
        """200 with :class:`ReloadResponse`; 422 `config_error-invalid` with ``faults``, and nothing has changed."""
        self.read_body(ReloadRequest, ReloadRequest())
        outcome = await self.dependencies.reloader.reload(TRIGGER)
        if isinstance(outcome, Refused):
            raise ManagementError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                ConfigError.INVALID,
                f"The configuration has {len(outcome.faults)} fault(s); the one in force stays.",
                faults=outcome.faults,
            )
        self.write_json(ReloadResponse(outcome.revision, outcome.changed, round(outcome.duration_seconds, 6)))
