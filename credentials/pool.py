"""Which credential of a provider serves an attempt."""

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from config.schema import Credential, Provider
from core.secret import Secret

NAMELESS = "default"
"""What the one choice of a provider without configured credentials is called; it has no key."""


class CredentialCooldowns(Protocol):
    """What a pool knows of cooldowns; :class:`routing.cooldown.Cooldowns` is one."""

    def credential_cooled(self, provider: str, credential: str, now: float) -> bool:
        """Whether the credential is out of rotation at ``now`` (monotonic seconds)."""
        ...


class Pools:
    """Every provider's credentials. Built anew for each generation; the cooldowns outlive it."""

    __slots__ = ("_cooldowns", "_keys", "_weights")

    def __init__(self, providers: Iterable[Provider], cooldowns: CredentialCooldowns) -> None:
        self._cooldowns = cooldowns
        self._keys: dict[tuple[str, str], Secret | None] = {}
        self._weights: dict[str, tuple[tuple[str, int], ...]] = {}
        for provider in providers:
            self._weights[provider.name] = _weights(provider.credentials)
            self._keys[provider.name, NAMELESS] = None
            for credential in provider.credentials:
                self._keys[provider.name, credential.name] = credential.api_key

    def names(self, provider: str) -> tuple[str, ...]:
        """The provider's credentials in file order; never empty.

        Raises:
            KeyError: no such provider.
        """
        return tuple(name for name, _ in self._weights[provider])

    def choose(self, provider: str, exclude: Collection[str], now: float, random: Callable[[], float]) -> str | None:
        """A credential by weight, among those that are neither in ``exclude`` nor cooling at ``now``; None: none is left.

        ``random`` gives numbers in [0, 1); it is not called when there is nothing to choose.

        Raises:
            KeyError: no such provider.
        """
        cooled = self._cooldowns.credential_cooled
        choices = self._weights[provider]
        if len(choices) == 1:
            name = choices[0][0]
            return None if name in exclude or cooled(provider, name, now) else name
        usable = [choice for choice in choices if choice[0] not in exclude and not cooled(provider, choice[0], now)]
        if len(usable) < 2:
            return usable[0][0] if usable else None
        point = random() * sum(weight for _, weight in usable)
        for name, weight in usable:
            point -= weight
            if point < 0:
                return name
        return usable[-1][0]  # rounding may leave a crumb

    def api_key(self, provider: str, credential: str) -> Secret | None:
        """The credential's key, to be revealed where it is used; None for the nameless one.

        Raises:
            KeyError: no such provider or credential.
        """
        return self._keys[provider, credential]


def _weights(credentials: tuple[Credential, ...]) -> tuple[tuple[str, int], ...]:
    if not credentials:
        return ((NAMELESS, 1),)
    return tuple((credential.name, credential.weight) for credential in credentials)
