"""Alive, ready, and how the gateway is doing."""

from http import HTTPStatus

import msgspec

from core.identity import Role
from management.base import ManagementHandler
from management.permit import opened, requires


class Probe(msgspec.Struct, frozen=True):
    """The whole body of a probe: nothing else is told to strangers."""

    status: str


class Alive(ManagementHandler, permit=opened("a supervisor without credentials asks whether the process answers")):
    """``GET /healthz``."""

    async def get(self) -> None:
        """200 for as long as the event loop turns, also while draining."""
        self.write_json(Probe("alive"))


class Ready(ManagementHandler, permit=opened("a load balancer without credentials asks whether to send requests")):
    """``GET /readyz``."""

    async def get(self) -> None:
        """200 once a configuration is in force, 503 before that and while draining."""
        if self.dependencies.ready():
            self.write_json(Probe("ready"))
        else:
            self.write_json(Probe("not_ready"), HTTPStatus.SERVICE_UNAVAILABLE)


class HealthReport(ManagementHandler, permit=requires(Role.POWER_USER)):
    """``GET /api/v1/health``."""

    async def get(self) -> None:
        """:class:`management.dependencies.Health`."""
        self.write_json(self.dependencies.health())
