"""A route's groups of targets, compiled; and filled in for one request."""

from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from config.faults import ConfigFaults, Fault, Path, did_you_mean
from config.schema import FallbacksByKind, Route
from config.schema import Target as TargetEntry
from routing.plan import ANY, Fallbacks, Group, Target, split_target
from routing.strategies import STRATEGIES

KEEP = "*"
"""The model of a target that keeps the request's own: ``openai/*``."""

_Entries = Sequence[str | TargetEntry]


class RouteGroups(msgspec.Struct, frozen=True):
    """Every group of one route."""

    first: Group
    fallbacks: Fallbacks
    fixed: bool
    """Whether no target keeps the request's model, so that the groups serve every request as they are."""

    def providers(self) -> frozenset[str]:
        """Every provider of any group."""
        return frozenset(target.provider for group in self.all() for target in group.targets)

    def all(self) -> Iterator[Group]:
        """The first group and every fallback."""
        yield self.first
        yield from self.fallbacks.error
        yield from self.fallbacks.context
        yield from self.fallbacks.content

    def fill(self, model: str, label: Callable[[str], str], prefix: str | None = None) -> "RouteGroups":
        """With ``model`` where a target keeps the request's own; ``label`` gives its label at a provider. ``prefix``: of
        the credentials that alone may serve the request, whatever target takes it."""
        if self.fixed and prefix is None:
            return self

        def filled(target: Target) -> Target:
            if target.model != KEEP:
                return msgspec.structs.replace(target, prefix=prefix)
            return Target(target.provider, model, label(target.provider), target.weight, prefix)

        return self._map(lambda targets: tuple(filled(target) for target in targets))

    def without_models(self) -> "RouteGroups":
        """For requests that have no model: each provider of a group once, with the weight of its first target."""

        def bare(targets: tuple[Target, ...]) -> tuple[Target, ...]:
            once = {target.provider: Target(target.provider, None, ANY, target.weight) for target in reversed(targets)}
            return tuple(once[provider] for provider in dict.fromkeys(target.provider for target in targets))

        return self._map(bare)

    def _map(self, change: Callable[[tuple[Target, ...]], tuple[Target, ...]]) -> "RouteGroups":
        def changed(group: Group) -> Group:
            targets = change(group.targets)
            # As many targets as before: the positions of the rotation still hold. Fewer: they count from new.
            rotation = group.rotation if len(targets) == len(group.targets) else None
            return Group.of(targets, group.strategy, rotation)

        return RouteGroups(
            changed(self.first),
            Fallbacks(
                error=tuple(map(changed, self.fallbacks.error)),
                context=tuple(map(changed, self.fallbacks.context)),
                content=tuple(map(changed, self.fallbacks.content)),
            ),
            fixed=True,
        )


def compile_groups(route: Route, place: int, providers: Collection[str]) -> RouteGroups:
    """The groups of the route at ``place``.

    Raises:
        ConfigFaults: an unknown strategy, targets that are no ``provider/model``, unknown providers.
    """
    faults: list[Fault] = []
    path: Path = ("routes", place)
    if route.strategy not in STRATEGIES:
        hint = did_you_mean(route.strategy, STRATEGIES)
        faults.append(Fault((*path, "strategy"), f"unknown strategy `{route.strategy}`{hint}"))

    def group(entries: _Entries, at: Path) -> Group:
        targets = tuple(_target(entry, (*at, number), providers, faults) for number, entry in enumerate(entries))
        return Group.of(targets, route.strategy)

    def groups(lists: Sequence[_Entries], at: Path) -> tuple[Group, ...]:
        return tuple(group(entries, (*at, number)) for number, entries in enumerate(lists))

    first = group(route.targets, (*path, "targets"))
    below: Path = (*path, "fallbacks")
    if isinstance(route.fallbacks, FallbacksByKind):
        fallbacks = Fallbacks(
            error=groups(route.fallbacks.error, (*below, "error")),
            context=groups(route.fallbacks.context, (*below, "context")),
            content=groups(route.fallbacks.content, (*below, "content")),
        )
    else:
        fallbacks = Fallbacks(error=groups(route.fallbacks, below))
    if faults:
        raise ConfigFaults(faults)
    compiled = RouteGroups(first, fallbacks, fixed=False)
    keeps = any(target.model == KEEP for each in compiled.all() for target in each.targets)
    return compiled if keeps else RouteGroups(first, fallbacks, fixed=True)


def _target(entry: str | TargetEntry, path: Path, providers: Collection[str], faults: list[Fault]) -> Target:
    if isinstance(entry, str):
        to, weight = entry, 1
    else:
        to, weight, path = entry.to, entry.weight, (*path, "to")
    provider, model = split_target(to)
    if not model:
        mend = f"write `{provider}/` and the model's name" if provider in providers else "write it as provider/model"
        faults.append(Fault(path, f"target `{to}` is not of the form provider/model: {mend}"))
    elif provider not in providers:
        faults.append(Fault(path, f"unknown provider `{provider}` in target `{to}`{did_you_mean(provider, providers)}"))
    elif KEEP in model and model != KEEP:
        faults.append(
            Fault(path, f"in target `{to}` the `*` must stand alone: `{provider}/*` keeps the request's model")
        )
    return Target(provider, model, model, weight)
