"""The models that a configuration names, and advice on their prices."""

from collections.abc import Callable, Iterable, Iterator

from access.prices import PriceBook, patterns
from config.faults import Notice, Path, did_you_mean, render_path
from config.schema import Config, FallbacksByKind, Group, Limit
from core.globs import Glob, GlobSet
from routing.groups import KEEP
from routing.plan import split_target


def named_targets(config: Config) -> Iterator[tuple[Path, str, str]]:
    """Every provider and model that the document names outright, with the place; some more than once."""
    names = {provider.name for provider in config.providers}
    for path, text in _texts(config):
        provider, model = split_target(text)
        if provider in names and model and model != KEEP:
            yield path, provider, model
    for place, entry in enumerate(config.providers):
        for number, pattern in enumerate(entry.models):
            for model in Glob(pattern).names:
                yield ("providers", place, "models", number), entry.name, model


def price_advice(config: Config, prices: PriceBook) -> list[Notice]:
    """The notices on `prices`, and on models without a price that limits of money are meant to count."""
    return [*_never_counted(config), *_unpriced(config, prices)]


def _texts(config: Config) -> Iterator[tuple[Path, str]]:
    for place, alias in enumerate(config.model_aliases):
        if "*" not in alias.to:
            yield ("model_aliases", place, "to"), alias.to
    for place, route in enumerate(config.routes):
        path: Path = ("routes", place)
        groups = [((*path, "targets"), route.targets)]
        below: Path = (*path, "fallbacks")
        if isinstance(route.fallbacks, FallbacksByKind):
            for kind in ("error", "context", "content"):
                groups += _numbered((*below, kind), getattr(route.fallbacks, kind))
        else:
            groups += _numbered(below, route.fallbacks)
        for at, group in groups:
            for number, entry in enumerate(group):
                yield ((*at, number), entry) if isinstance(entry, str) else ((*at, number, "to"), entry.to)


def _numbered(path: Path, groups: Iterable[Group]) -> list[tuple[Path, Group]]:
    return [((*path, number), group) for number, group in enumerate(groups)]


def _never_counted(config: Config) -> Iterator[Notice]:
    """Entries of `prices` that no model can have."""
    names = [provider.name for provider in config.providers]
    first: dict[str, Path] = {}
    for place, price in enumerate(config.prices):
        for path, pattern in patterns(price, place):
            if pattern in first:
                yield Notice(path, f"never counts: `{pattern}` is in {render_path(first[pattern])} already: remove one")
                continue
            first[pattern] = path
            glob = Glob(pattern)
            if any(_may_match(name, glob) for name in names):
                continue
            provider, model = split_target(pattern)
            mend = did_you_mean(provider, names) if model else ": write it as provider/model"
            yield Notice(path, f"never counts: no model of any provider is called `{pattern}`{mend}")


def _may_match(provider: str, glob: Glob) -> bool:
    """Whether a model of the provider may be called so."""
    prefix = f"{provider}/"
    return any(
        each.head.startswith(prefix) or (each.name is None and prefix.startswith(each.head))
        for each in glob.alternatives
    )


def _unpriced(config: Config, prices: PriceBook) -> Iterator[Notice]:
    counted = _counted(config)
    if counted is None:
        return
    told: set[tuple[str, str]] = set()
    for path, provider, model in named_targets(config):
        if (provider, model) in told or prices.knows(provider, model) or not counted(provider):
            continue
        told.add((provider, model))
        yield Notice(
            path,
            f"the cost of `{provider}/{model}` is unknown, so that limits of money do not see it: "
            "add it to `prices` (with 0 where it costs nothing)",
        )


def _counted(config: Config) -> Callable[[str], bool] | None:
    """Whether a limit of money counts what a provider of that name does; None: there is no such limit."""
    globs: list[str] = []
    providers: set[str] = set()
    for shared in config.limits:
        if shared.usd is not None:
            named = shared.match.provider
            globs += ["*"] if named is None else [named] if isinstance(named, str) else named
    if any(_of_money(token.limits) for token in config.tokens):
        globs.append("*")
    for provider in config.providers:
        if _of_money(provider.limits) or any(_of_money(each.limits) for each in provider.credentials):
            providers.add(provider.name)
    if not globs and not providers:
        return None
    try:
        matched = GlobSet(globs)
    except ValueError:  # the limit's own check tells what is wrong with it
        return None
    return lambda name: name in providers or matched.matches(name)


def _of_money(limits: Iterable[Limit]) -> bool:
    return any(limit.usd is not None for limit in limits)
