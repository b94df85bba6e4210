"""Prometheus metrics."""

import asyncio

from core.identity import Role, Scope
from management.base import ManagementHandler
from management.permit import requires


class Metrics(ManagementHandler, permit=requires(Role.ADMIN, or_scope=Scope.METRICS)):
    """``GET /metrics``."""

    def is_open(self) -> bool:
        """By `telemetry.metrics.public`."""
        return self.view.metrics_public

    async def get(self) -> None:
        """The text exposition of :mod:`telemetry.metrics`."""
        # In a thread: with several workers it reads a file each, and even one has thousands of lines.
        content_type, body = await asyncio.get_running_loop().run_in_executor(None, self.dependencies.render_metrics)
        self.set_header("Content-Type", content_type)
        self.finish(body)
