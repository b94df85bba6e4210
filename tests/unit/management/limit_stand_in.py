"""Limits for the tests of handlers: real rules over a real store in memory."""

from access.quotas.memory import MemoryStore
from access.quotas.outcomes import Standing
from access.quotas.rules import Listed, Rules
from access.quotas.store import QuotaStore
from core.clock import ManualClock
from core.identity import ApiToken
from gateway.limit_service import GatewayLimits


class Limits:
    """:class:`management.limit_service.LimitService`."""

    def __init__(self) -> None:
        self.rules = Rules()
        self.store: QuotaStore = MemoryStore(ManualClock(time=1_700_000_000.0))
        self.reason: str | None = None

    def not_kept_because(self) -> str | None:
        return self.reason

    async def of_token(self, token: ApiToken) -> tuple[Standing, ...] | None:
        return await self._service.of_token(token)

    async def of_config(self) -> tuple[tuple[Listed, Standing | None], ...] | None:
        return await self._service.of_config()

    @property
    def _service(self) -> GatewayLimits:
        return GatewayLimits(self.store, lambda: self.rules, self.not_kept_because)
