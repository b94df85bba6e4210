"""The providers by name, and which of them serve a bare model name."""

from collections.abc import Collection, Iterator, Sequence

from config.faults import ConfigFaults, Fault, Path
from config.schema import Credential, Provider, Timeouts
from core.globs import Glob, GlobIndex, GlobSet
from routing.plan import PlanTimeouts, merge_timeouts


class Catalog:
    """The entries of `providers`, compiled."""

    __slots__ = ("_index", "_models", "_providers", "_timeouts", "names")

    def __init__(self, providers: Sequence[Provider]) -> None:
        """
        Raises:
            ConfigFaults: bad globs, and prefixes of credentials that are names of providers.
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
            for number, credential in enumerate(provider.credentials):
                faults += _credential_faults(credential, self.names, ("providers", place, "credentials", number))
        if faults:
            raise ConfigFaults(faults)
        self._index = GlobIndex(entries)
        self._timeouts = {name: self.timeouts_under(Timeouts(), name) for name in self.names}

    def __contains__(self, name: str) -> bool:
        return name in self._providers

    def of_prefix(self, holders: tuple[str, ...], model: str) -> tuple[str, ...]:
        """Which of the providers with credentials of one prefix to ask: those whose `models` match, where any does."""
        return tuple(name for name in holders if self._models[name].matches(model)) or holders

    def serving(self, model: str) -> tuple[str, ...]:
        """The providers whose `models` match, in file order."""
        return tuple(self.names[place] for place in self._index.matching(model))

    def pattern(self, provider: str, model: str) -> str | None:
        """The glob of the provider's `models` that matches, or None. An exact one is the model's name itself."""
        return self._models[provider].first(model)

    def may_list(self, provider: str) -> bool:
        """Whether what it has by its own list may be shown: its `models` let more through than they name."""
        return any(not glob.names for glob in self._models[provider].globs)

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


def _credential_faults(credential: Credential, providers: Collection[str], path: Path) -> Iterator[Fault]:
    if credential.prefix in providers:
        yield Fault(
            (*path, "prefix"),
            f"`{credential.prefix}/…` names the provider `{credential.prefix}`: choose another prefix",
        )
    for number, pattern in enumerate(credential.models):
        try:
            Glob(pattern)
        except ValueError as error:
            yield Fault((*path, "models", number), str(error))
