"""What is out of rotation, for the tests of handlers."""

import msgspec

from management.routing_service import Cleared, CooldownShown, Question, UnknownToken
from routing.explain import Explanation, Report


class Routing:
    """:class:`management.routing_service.RoutingService`."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.cooling = [
            CooldownShown(provider="openai", model="gpt-4o", credential=None, reason="failures", seconds=9.5),
            CooldownShown(provider="openai", model=None, credential="main", reason="rate_limited", seconds=20.0),
        ]
        self.everywhere = True

    async def explain(self, question: Question) -> Report:
        if question.token not in (None, "team-a"):
            raise UnknownToken(str(question.token))
        self.asked.append(question)
        found = Explanation(
            requested_model=question.model,
            model=question.model,
            aliases=(),
            lost=(),
            step=None,
            route=None,
            groups=(),
            refusal=None,
        )
        return Report(found, allowed=None, upstream=(), revision="abc")

    def cooldowns(self) -> tuple[CooldownShown, ...]:
        return tuple(self.cooling)

    async def clear_cooldowns(self, provider: str, model: str | None, credential: str | None) -> Cleared:
        wanted = {"provider": provider, "model": model, "credential": credential}
        named = {name: value for name, value in wanted.items() if value is not None}
        cleared = [each for each in self.cooling if named.items() <= msgspec.structs.asdict(each).items()]
        self.cooling = [each for each in self.cooling if each not in cleared]
        return Cleared(tuple(cleared), self.everywhere)
