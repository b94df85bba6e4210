"""What a configuration may hold and hardly means: told as notices, for it works as it stands."""

from collections.abc import Iterator

from config.faults import Notice
from config.schema import Config
from core.globs import GlobIndex
from routing.plan import split_target
from routing.router import Router


def advice(config: Config, router: Router) -> list[Notice]:
    """The notices on `routes` and `model_aliases`; ``router`` is made of ``config``."""
    return [*_rules_over_aliases(config, router), *_dead_ends(config, router)]


def _rules_over_aliases(config: Config, router: Router) -> Iterator[Notice]:
    """Routes that ask for a name which an alias has turned into another before they see it."""
    aliases = frozenset(router.aliases.names)
    for place, route in enumerate(config.routes):
        names = route.match.model
        for number, name in enumerate((names,) if isinstance(names, str) else names or ()):
            if name not in aliases:
                continue
            end = router.aliases.resolve(name).name
            if end != name:
                path = ("routes", place, "match", "model")
                yield Notice(
                    path if isinstance(names, str) else (*path, number),
                    f"never matches: `{name}` is an alias, and routes see what it stands for (`{end}`): "
                    "match that, or use `requested_model`",
                )


def _dead_ends(config: Config, router: Router) -> Iterator[Notice]:
    """Aliases for plain names that nothing takes. Such a name that looks like a target is a fault of the router's."""
    routed = router.rules.model_globs()
    if routed is None:
        return
    index = GlobIndex((glob, number) for number, glob in enumerate(routed))
    for place, entry in enumerate(config.model_aliases):
        prefix, _ = split_target(entry.to)
        if "*" in entry.to or ("/" in entry.to and prefix in router.catalog):
            continue
        taken = (
            bool(router.catalog.serving(entry.to))
            or next(index.matching(entry.to), None) is not None
            or router.aliases.takes(entry.to, besides=place)
        )
        if not taken:
            yield Notice(
                ("model_aliases", place, "to"),
                f"leads nowhere: no alias, route or provider serves `{entry.to}`: "
                "write provider/model, or add it to a provider's `models`",
            )
