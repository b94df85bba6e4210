"""The providers by name, and which of them serve a bare model name."""

from collections.abc import Sequence

from config.faults import ConfigFaults, Fault
from config.schema import Provider, Timeouts
from core.globs import Glob, GlobIndex, GlobSet
from routing.plan import PlanTimeouts, merge_timeouts


class Catalog:
    """The entries of `providers`, compiled."""

    __slots__ = ("_index", "_models", "_providers", "_timeouts", "names")

    def __init__(self, providers: Sequence[Provider]) -> None:
        """
        Raises:
            ConfigFaults: bad globs.
        """
        faults: list[Fault] = []
        entries: list[tuple[Glob, int]] = []
        self._providers = {provider.name: provider for provider in providers}
        self._models: dict[str, GlobSet] = {}
        self.names = tuple(provider.name for provider in providers)
        """In file order."""
        for place, provider in enumerate(providers):
            globs: list[Glob] = []
            for number, pattern in enumerate(provider.models):
                try:
                    globs.append(Glob(pattern))
                except ValueError as error:
                    faults.append(Fault(("providers", place, "models", number), str(error)))
            entries += [(glob, place) for glob in globs]
            self._models[provider.name] = GlobSet(globs)
        if faults:
            raise ConfigFaults(faults)
        self._index = GlobIndex(entries)
        self._timeouts = {name: self.timeouts_under(Timeouts(), name) for name in self.names}

    def __contains__(self, name: str) -> bool:
        return name in self._providers

    def serving(self, model: str) -> tuple[str, ...]:
        """The providers whose `models` match, in file order."""
        return tuple(self.names[place] for place in self._index.matching(model))

    def pattern(self, provider: str, model: str) -> str | None:
        """The glob of the provider's `models` that matches, or None. An exact one is the model's name itself."""
        return self._models[provider].first(model)

    def listed(self) -> tuple[tuple[str, str], ...]:
        """``(model, provider)`` for every `models` entry that is a name, in file order."""
        return tuple((model, name) for name in self.names for glob in self._models[name].globs for model in glob.names)

    def globs(self) -> tuple[Glob, ...]:
        """Every `models` glob of every provider."""
        return tuple(glob for models in self._models.values() for glob in models.globs)

    def timeouts(self, provider: str) -> PlanTimeouts:
        """The provider's own timeouts over the defaults."""
        return self._timeouts[provider]

    def timeouts_under(self, route: Timeouts, provider: str) -> PlanTimeouts:
        """The route's timeouts over the provider's over the defaults."""
        return merge_timeouts(route, self._providers[provider])
