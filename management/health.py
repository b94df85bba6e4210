"""Alive, ready, and how the gateway is doing."""

from http import HTTPStatus

import msgspec

from core.identity import Role
from management.dependencies import Health
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import opened, requires


class Probe(msgspec.Struct, frozen=True):
    """The whole body of a probe: nothing else is told to strangers."""

    status: str


class Alive(ManagementHandler):
    """``/healthz``."""

    any_host = True

    @operation(
        opened("a supervisor without credentials asks whether the process answers"),
        summary="Whether the process answers, also while it drains.",
        answers={200: Probe},
    )
    async def get(self) -> None:
        self.write_json(Probe("alive"))


class Ready(ManagementHandler):
    """``/readyz``."""

    any_host = True

    @operation(
        opened("a load balancer without credentials asks whether to send requests"),
        summary="200 when requests should be sent; 503 before a configuration is in force and while the gateway drains.",
        answers={200: Probe, 503: Probe},
    )
    async def get(self) -> None:
        if self.dependencies.ready():
            self.write_json(Probe("ready"))
        else:
            self.write_json(Probe("not_ready"), HTTPStatus.SERVICE_UNAVAILABLE)


class HealthReport(ManagementHandler):
    """``/api/v1/health``."""

    @operation(
        requires(Role.POWER_USER),
        summary="Revision, uptime, providers and what of them is out of rotation, the last reload.",
        answers={200: Health},
    )
    async def get(self) -> None:
        self.write_json(self.dependencies.health())
