"""Names to targets: alias → first route that matches → ``provider/model`` → ``prefix/model`` → providers whose `models`
match."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from config.faults import ConfigFaults, Fault, did_you_mean
from config.schema import Config, Route
from core.errors import CallerError, InvalidRequest, ModelNotFound, ProviderRequired
from core.globs import MAX_NAME, Glob
from routing.aliases import AliasChain, Aliases
from routing.catalog import Catalog
from routing.cooldown import Cooldowns
from routing.explain import Explanation, explain
from routing.groups import RouteGroups, compile_groups
from routing.plan import ANY, CredentialPools, Group, Plan, PlanTimeouts, Random, RouteQuery, Step, Target, split_target
from routing.rules import Rule, RuleSet
from routing.tries import Tries

_OWNER = "sluice"
_MOST_PLANS = 4096
_LONGEST_KEY = 1024
_SHOWN = 128
"""Characters of a client's text that an error repeats."""

_T = TypeVar("_T")


class ListedModel(msgspec.Struct, frozen=True):
    """One entry of `GET /v1/models`."""

    id: str
    owned_by: str
    """The provider that it leads to, or the gateway where that depends on the request."""


class _CompiledRoute(msgspec.Struct, frozen=True):
    entry: Route
    rule: Rule
    groups: RouteGroups
    modelless: RouteGroups
    timeouts: Mapping[str, PlanTimeouts]


class _Named(NamedTuple):
    """What a model's name says of where it leads."""

    model: str
    """As the provider knows it; empty: none is named."""
    step: Step = Step.MODELS
    providers: tuple[str, ...] = ()
    """Empty: it does not say."""
    prefix: str | None = None
    """Of the credentials that alone may serve it."""


class Router:
    """Everything of a configuration that says where requests go. Built once for each generation."""

    __slots__ = (
        "_listed",
        "_live",
        "_plans",
        "_pools",
        "_prefixes",
        "_random",
        "_routes",
        "_serial",
        "aliases",
        "catalog",
        "cooldowns",
        "rules",
    )

    def __init__(self, config: Config, cooldowns: Cooldowns, credentials: CredentialPools, random: Random) -> None:
        """``cooldowns`` outlives the router; ``random`` gives numbers in [0, 1).

        Raises:
            ConfigFaults: every fault of aliases, routes and providers' `models`, with its path in the document.
        """
        self.cooldowns = cooldowns
        self._pools = credentials
        self._random = random
        names = tuple(provider.name for provider in config.providers)
        faults: list[Fault] = []
        catalog = _collect(faults, lambda: Catalog(config.providers))
        aliases = _collect(faults, lambda: Aliases(config.model_aliases, names))
        rules: list[Rule] = []
        groups: list[RouteGroups] = []
        for place, route in enumerate(config.routes):
            if rule := _collect(faults, lambda: Rule(route, place)):  # noqa: B023  called at once
                rules.append(rule)
            if compiled := _collect(faults, lambda: compile_groups(route, place, names)):  # noqa: B023  called at once
                groups.append(compiled)
        self.rules = RuleSet(rules)
        if catalog is not None and aliases is not None and len(rules) == len(config.routes):
            faults += _dangling(config, catalog, aliases, self.rules)
        if faults or catalog is None or aliases is None:
            raise ConfigFaults(faults)
        self.catalog = catalog
        self.aliases = aliases
        self._routes = tuple(
            _CompiledRoute(
                entry,
                rule,
                group,
                group.without_models(),
                {name: catalog.timeouts_under(entry.timeouts, name) for name in group.providers()},
            )
            for entry, rule, group in zip(config.routes, rules, groups, strict=True)
        )
        self._plans: dict[tuple[object, ...], Plan] = {}
        """Plans by all of a query that they depend on: most requests ask what another has asked before."""
        self._live = credentials.live
        self._serial: int | None = None
        self._prefixes: Mapping[str, tuple[str, ...]] = {}
        self._listed = self._list_models()

    def resolve(self, query: RouteQuery) -> Plan:
        """Where the request may go. Cooldowns do not matter here, but when an attempt is chosen.

        Raises:
            ModelNotFound: nothing serves the name.
            ProviderRequired: a request without a model that neither names a provider nor has a route by its path.
            InvalidRequest: it names a provider that there is none of (code ``provider_not_found``).
        """
        if self._live.serial != self._serial:
            self._follow_prefixes()
        key = (query.model, query.provider, self.rules.seen(query))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._resolve(query)
            if len(repr(key)) > _LONGEST_KEY:
                return plan
            if len(self._plans) >= _MOST_PLANS:
                # Clients can make names up without end; those that are asked for again soon come back.
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _resolve(self, query: RouteQuery) -> Plan:
        if query.model is None:
            return self._resolve_without_model(query)
        if len(query.model) > MAX_NAME:
            raise _not_found(query.model)
        chain = self.aliases.resolve(query.model)
        name = chain.name
        named = self._read(name)
        if not named.model:
            raise _not_found(query.model)
        place = self.rules.first(query, name)
        if place is not None:
            return self._routed(self._routes[place], query, chain, named)
        providers = named.providers or self.catalog.serving(name)
        if not providers:
            raise _not_found(query.model)
        return Plan(
            requested_model=query.model,
            model=name,
            route=None,
            step=named.step,
            first=Group.of(
                tuple(
                    Target(provider, named.model, self._label(chain, provider, named.model, None), prefix=named.prefix)
                    for provider in providers
                )
            ),
            timeouts={provider: self.catalog.timeouts(provider) for provider in providers},
        )

    def _read(self, name: str) -> _Named:
        """What ``name`` says by its first part, where that is the name of a provider or a prefix of credentials."""
        prefix, model = split_target(name)
        if "/" in name and prefix in self.catalog:
            return _Named(model, Step.PREFIX, (prefix,))
        if "/" in name and (holders := self._prefixes.get(prefix)):
            return _Named(model, Step.CREDENTIAL_PREFIX, self.catalog.of_prefix(holders, model), prefix)
        return _Named(name)

    def _follow_prefixes(self) -> None:
        """Somebody has signed in, or changed an account: names may lead elsewhere."""
        serial = self._live.serial
        prefixes = self._pools.prefixes()
        if prefixes is not self._prefixes:
            self._prefixes = prefixes
            self._plans.clear()
        self._serial = serial

    def begin(self, plan: Plan, maybe_delivered: bool) -> Tries:
        """The attempts at ``plan``. ``maybe_delivered``: whether what a provider may have begun is tried again,
        as the endpoint has it; the route's `retry.maybe_delivered` is stronger."""
        configured = plan.retry.maybe_delivered
        allowed = maybe_delivered if configured is None else configured
        return Tries(plan, self.cooldowns, self._pools, self._random, maybe_delivered=allowed)

    def explain(self, query: RouteQuery, now: float | None = None) -> Explanation:
        """How ``query`` is resolved, or why it is refused. ``now`` (monotonic seconds) shows cooldowns, where there are."""
        return explain(self, query, now)

    def models(self) -> tuple[ListedModel, ...]:
        """What `GET /v1/models` shows: exact aliases, then the names in providers' `models`; the first one counts."""
        return self._listed

    def parts(self) -> tuple[object, ...]:
        """The compiled routes, of which a large router mostly consists; nothing to look into."""
        return self._routes

    def _resolve_without_model(self, query: RouteQuery) -> Plan:
        if query.provider is not None:
            if query.provider not in self.catalog:
                raise InvalidRequest(
                    f"no provider is named `{query.provider[:_SHOWN]}`",
                    param="x-sluice-provider",
                    code="provider_not_found",
                )
            target = Target(query.provider, None, ANY)
            timeouts = {query.provider: self.catalog.timeouts(query.provider)}
            return Plan(None, None, None, Step.HEADER, Group.of((target,)), timeouts)
        place = self.rules.first(query, None)
        if place is None:
            raise ProviderRequired("this request has no model: name a provider in the header x-sluice-provider")
        route = self._routes[place]
        return self._plan(route, query, None, route.modelless)

    def _routed(self, route: _CompiledRoute, query: RouteQuery, chain: AliasChain, named: _Named) -> Plan:
        model = named.model
        groups = route.groups.fill(
            model, lambda provider: self._label(chain, provider, model, route.rule), named.prefix
        )
        return self._plan(route, query, chain.name, groups)

    def _plan(self, route: _CompiledRoute, query: RouteQuery, model: str | None, groups: RouteGroups) -> Plan:
        entry = route.entry
        return Plan(
            requested_model=query.model,
            model=model,
            route=entry.name,
            step=Step.ROUTE,
            first=groups.first,
            timeouts=route.timeouts,
            fallbacks=groups.fallbacks,
            retry=entry.retry,
            cooldown=entry.cooldown,
            overrides=entry.overrides,
        )

    def _label(self, chain: AliasChain, provider: str, model: str, rule: Rule | None) -> str:
        """The nearest configured text for a model name that a client may have made up."""
        made_from = chain.pattern
        if made_from is not None and "*" not in made_from:
            return model
        if pattern := self.catalog.pattern(provider, model):
            return pattern
        if made_from is not None:
            prefix, rest = split_target(made_from)
            return rest if prefix in self.catalog or prefix in self._prefixes else made_from
        if rule is not None and "model" in rule.globs:
            return rule.globs["model"].first(chain.name) or ANY
        return ANY

    def _list_models(self) -> tuple[ListedModel, ...]:
        listed: dict[str, str] = {}
        for name in self.aliases.names:
            listed.setdefault(name, self._owner(name))
        for name, provider in self.catalog.listed():
            listed.setdefault(name, provider)
        return tuple(ListedModel(name, owner) for name, owner in listed.items())

    def _owner(self, alias: str) -> str:
        try:
            return self.resolve(RouteQuery(alias)).first.targets[0].provider
        except CallerError:
            return _OWNER  # a route takes it under conditions that this query does not meet


def _collect(faults: list[Fault], build: Callable[[], _T]) -> _T | None:
    """What ``build`` gives; None, and its faults told, where it cannot."""
    try:
        return build()
    except ConfigFaults as caught:
        faults += caught.faults
        return None


def _dangling(config: Config, catalog: Catalog, aliases: Aliases, rules: RuleSet) -> list[Fault]:
    """A fault for each alias whose ``to`` looks like a target, of a provider that there is none of.

    A model's own name may have a slash (``meta-llama/Llama-3``): it is fine if anything takes it.
    """
    faults: list[Fault] = []
    routed = rules.model_globs()
    known = {credential.prefix for provider in config.providers for credential in provider.credentials}
    # Accounts have prefixes too, and come and go: what is written may lead to one.
    signs_in = any(provider.oauth is not None for provider in config.providers)
    for place, entry in enumerate(config.model_aliases):
        path = ("model_aliases", place, "to")
        prefix, model = split_target(entry.to)
        if prefix in catalog:
            if "/" in entry.to and not model:
                faults.append(Fault(path, f"`{entry.to}` names no model: write `{prefix}/` and the model's name"))
            continue
        if not model or "*" in prefix or routed is None or prefix in known or signs_in:
            continue
        if "*" in entry.to:
            globs = (
                *catalog.globs(),
                *routed,
                *(Glob(other.from_) for other in config.model_aliases if other != entry),
            )
            taken = any(_may_overlap(glob, entry.to) for glob in globs)
        else:
            taken = (
                bool(catalog.serving(entry.to))
                or any(glob.matches(entry.to) for glob in routed)
                or aliases.takes(entry.to, besides=place)
            )
        if not taken:
            hint = did_you_mean(prefix, catalog.names)
            faults.append(
                Fault(path, f"unknown provider `{prefix}` in `{entry.to}`, and nothing serves that name{hint}")
            )
    return faults


def _may_overlap(glob: Glob, to: str) -> bool:
    """Whether names made from ``to`` could match: whether what they begin with is compatible."""
    head = to.partition("*")[0]
    return any(head.startswith(each.head) or each.head.startswith(head) for each in glob.alternatives)


def _not_found(model: str) -> ModelNotFound:
    shown = model if len(model) <= _SHOWN else f"{model[:_SHOWN]}…"
    return ModelNotFound(f"no alias, route or provider serves the model `{shown}`", param="model")
