"""Prometheus metrics."""

import asyncio

from core.identity import Role, Scope
from management.handler.base import ManagementHandler
from management.handler.operation import TEXT, operation
from management.handler.permit import requires


class Metrics(ManagementHandler):
    """``/metrics``."""

    any_host = True

    def is_open(self) -> bool:
        """By `telemetry.metrics.public`."""
        return self.view.metrics_public

    @operation(
        requires(Role.ADMIN, or_scope=Scope.METRICS),
        summary="Metrics for Prometheus; open where `telemetry.metrics.public` is true.",
        answers={200: TEXT},
    )
    async def get(self) -> None:
        # In a thread: with several workers it reads a file each, and even one has thousands of lines.
        content_type, body = await asyncio.get_running_loop().run_in_executor(None, self.dependencies.render_metrics)
        self.write_bytes(body, content_type)
