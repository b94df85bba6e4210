"""Fills what the management API asks of limits."""

from collections.abc import Callable

from access.quotas.limits import ScopeKind
from access.quotas.outcomes import Standing
from access.quotas.rules import Listed, Rules, Subject
from access.quotas.standings import standings
from access.quotas.store import QuotaStore
from core.identity import ApiToken


class GatewayLimits:
    """Fits :class:`management.limit_service.LimitService`: the counters that requests are charged to, only read."""

    def __init__(
        self, store: QuotaStore, rules: Callable[[], Rules], not_kept_because: Callable[[], str | None]
    ) -> None:
        """``rules``: those of the configuration that is in force."""
        self._store = store
        self._rules = rules
        self.not_kept_because = not_kept_because

    async def of_token(self, token: ApiToken) -> tuple[Standing, ...] | None:
        # What it counts depends on the model, the path or the target has no say in these.
        found = self._rules().for_request(Subject(token=token.name, owner=token.owner), token.limits, token.counted_as)
        own = ((ScopeKind.TOKEN, token.counted_as),)
        ordered = sorted(found.all, key=lambda each: each.scope.named != own)
        return await standings(self._store, ordered)

    async def of_config(self) -> tuple[tuple[Listed, Standing | None], ...] | None:
        listed = tuple(self._rules().listed())
        found = await standings(self._store, [each.limit for each in listed if each.limit is not None])
        if found is None:
            return None
        stand = iter(found)
        return tuple((each, None if each.limit is None else next(stand)) for each in listed)
