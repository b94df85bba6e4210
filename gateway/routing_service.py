"""Answers what the management API asks of routing."""

from collections.abc import Callable, Iterable

from core.headers import Headers
from gateway.build import Generation
from gateway.control import ClearCooldown
from gateway.explain import declared_models, make_report
from gateway.resources import Resources
from management.routing_service import Cleared, CooldownShown, Question, UnknownToken
from proxy import endpoints
from routing.cooldown import Cooled
from routing.explain import Report
from routing.plan import RouteQuery


class GatewayRouting:
    """Fits :class:`management.routing_service.RoutingService`."""

    def __init__(self, resources: Resources, current: Callable[[], Generation]) -> None:
        """``current`` gives the generation in force."""
        self._resources = resources
        self._current = current
        resources.others.on(ClearCooldown, self._follow)

    async def explain(self, question: Question) -> Report:
        """As :meth:`management.routing_service.RoutingService.explain`."""
        models = None if question.token is None else await self._models_of(question.token)
        headers = Headers.parse(question.headers.items())
        query = RouteQuery(
            model=question.model,
            path=endpoints.canonical_path(question.path),
            token=question.token,
            headers=headers,
            stream=question.stream,
            provider=headers.get("x-sluice-provider"),
        )
        return make_report(self._current(), query, models, self._resources.clock.monotonic())

    def cooldowns(self) -> tuple[CooldownShown, ...]:
        """As :meth:`management.routing_service.RoutingService.cooldowns`."""
        now = self._resources.clock.monotonic()
        return _shown(self._resources.cooldowns.current(now), now)

    async def clear_cooldowns(self, provider: str, model: str | None, credential: str | None) -> Cleared:
        """As :meth:`management.routing_service.RoutingService.clear_cooldowns`."""
        now = self._resources.clock.monotonic()
        ended = self._resources.cooldowns.clear(provider, model, credential, now)
        answered = await self._resources.others.ask(ClearCooldown(provider, model, credential))
        return Cleared(_shown(ended, now), answered.by_all)

    async def _follow(self, task: ClearCooldown) -> None:
        now = self._resources.clock.monotonic()
        self._resources.cooldowns.clear(task.provider, task.model, task.credential, now)

    async def _models_of(self, token: str) -> tuple[str, ...]:
        declared = declared_models(self._current(), token)
        if declared is not None:
            return declared
        stores = self._resources.stores
        if stores.exists():
            await stores.prepare()
            issued = await stores.tokens.by_name(token)
            if issued is not None:
                return issued.models
        raise UnknownToken(token)


def _shown(cooled: Iterable[Cooled], now: float) -> tuple[CooldownShown, ...]:
    return tuple(
        CooldownShown(
            provider=each.provider,
            model=each.model,
            credential=each.credential,
            reason=each.reason.value,
            seconds=round(each.until - now, 3),
        )
        for each in sorted(cooled, key=lambda each: each.until)
    )
