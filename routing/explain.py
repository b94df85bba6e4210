"""Why a request goes where it goes: what `./sluice explain` shows."""

from typing import Protocol

import msgspec

from core.errors import CallerError
from core.globs import MAX_NAME
from routing.aliases import AliasChain, Aliases, AliasStep
from routing.cooldown import Cooldowns
from routing.plan import Group, Plan, RouteQuery, Step, Target
from routing.rules import Loss, RuleSet


class Resolver(Protocol):
    """What is explained: a :class:`routing.router.Router`."""

    aliases: Aliases
    rules: RuleSet
    cooldowns: Cooldowns

    def resolve(self, query: RouteQuery) -> Plan: ...


class Refusal(msgspec.Struct, frozen=True):
    """The error that the client would get."""

    status: int
    code: str
    message: str


class Cooling(msgspec.Struct, frozen=True):
    """Why a target is out of rotation, and for how long still."""

    reason: str
    remaining_seconds: float


class ExplainedTarget(msgspec.Struct, frozen=True):
    """A target, in order."""

    provider: str
    model: str | None
    weight: int
    cooling: Cooling | None = None
    prefix: str | None = None
    """Of the credentials that alone may serve it."""


class ExplainedGroup(msgspec.Struct, frozen=True):
    """A group, in order."""

    kind: str
    """`targets` for the first, else what it is the fallback for: `error`, `context`, `content`."""
    strategy: str
    targets: tuple[ExplainedTarget, ...]


class Explanation(msgspec.Struct, frozen=True):
    """The whole way of one request through the configuration. Fit for JSON; carries no secret."""

    requested_model: str | None
    model: str | None
    """The name after aliases."""
    aliases: tuple[AliasStep, ...]
    lost: tuple[Loss, ...]
    """The rules that were asked and did not take the request, in order."""
    step: Step | None
    """What decided; None: nothing did, see ``refusal``."""
    route: str | None
    groups: tuple[ExplainedGroup, ...]
    refusal: Refusal | None


class Dialled(msgspec.Struct, frozen=True):
    """A target and what would be called for it."""

    provider: str
    model: str | None
    url: str
    credentials: tuple[str, ...]
    """Those that may serve it, also where they need a login. Names alone; a secret is never shown."""


class Report(msgspec.Struct, frozen=True):
    """What `./sluice explain --json` and the API tell; `gateway/explain.py` puts it together."""

    explanation: Explanation
    allowed: bool | None
    """Whether the token's `models` let the name through; None without a token or a model."""
    upstream: tuple[Dialled, ...]
    revision: str


def explain(router: Resolver, query: RouteQuery, now: float | None) -> Explanation:
    """Resolve ``query`` and tell how. With ``now`` (monotonic seconds) cooldowns are shown."""
    chain = AliasChain(query.model or "")
    if query.model is not None and len(query.model) <= MAX_NAME:
        chain = router.aliases.resolve(query.model)
    name = None if query.model is None else chain.name
    # A provider named by header is taken before any rule is asked.
    asked = query.model is not None or query.provider is None
    plan: Plan | None = None
    refusal: Refusal | None = None
    try:
        plan = router.resolve(query)
    except CallerError as error:
        refusal = Refusal(error.client_status, error.client_code, error.message)
    return Explanation(
        requested_model=query.model,
        model=name,
        aliases=chain.steps,
        lost=tuple(router.rules.losses(query, name)) if asked else (),
        step=plan.step if plan else None,
        route=plan.route if plan else None,
        groups=_groups(router, plan, now) if plan else (),
        refusal=refusal,
    )


def _groups(router: Resolver, plan: Plan, now: float | None) -> tuple[ExplainedGroup, ...]:
    def group(kind: str, each: Group) -> ExplainedGroup:
        return ExplainedGroup(kind, each.strategy, tuple(_target(router, target, now) for target in each.targets))

    fallbacks = tuple(group(kind, each) for kind in ("error", "context", "content") for each in plan.fallbacks.of(kind))
    return (group("targets", plan.first), *fallbacks)


def _target(router: Resolver, target: Target, now: float | None) -> ExplainedTarget:
    cooled = router.cooldowns.target(*target.key, now) if now is not None else None
    cooling = Cooling(cooled.reason.value, cooled.until - now) if cooled is not None and now is not None else None
    return ExplainedTarget(target.provider, target.model, target.weight, cooling, target.prefix)
