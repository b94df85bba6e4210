"""What routing is asked, and what it answers."""

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from config.schema import (
    CONNECT_SECONDS,
    FIRST_BYTE_SECONDS,
    IDLE_SECONDS,
    Cooldown,
    Overrides,
    Provider,
    Retry,
    Timeouts,
)
from core.headers import Headers

Random = Callable[[], float]
"""Numbers in [0, 1)."""

ANY = "*"
"""The label of a model name that no configured text stands for."""


class Changing(Protocol):
    """What pools are made of, as far as it changes while they serve."""

    @property
    def serial(self) -> int:
        """Another one after each change."""
        ...


class CredentialPools(Protocol):
    """What routing knows of credentials; :class:`credentials.pool.Pools` is one."""

    @property
    def live(self) -> Changing:
        """Whose serial says whether :meth:`prefixes` may have changed."""
        ...

    def names(self, provider: str) -> tuple[str, ...]:
        """The provider's credentials, whatever they are good for."""
        ...

    def candidates(self, provider: str, model: str | None, prefix: str | None) -> tuple[str, ...]:
        """Those that can serve a target, whether they cool or not."""
        ...

    def lack(self, provider: str, model: str | None, prefix: str | None) -> str:
        """Why there are no candidates, in words."""
        ...

    def choose(
        self,
        provider: str,
        exclude: Collection[str],
        now: float,
        random: Random,
        model: str | None = None,
        prefix: str | None = None,
    ) -> str | None:
        """A candidate that is neither in ``exclude`` nor cooling at ``now``; None: none is left."""
        ...

    def prefixes(self) -> Mapping[str, tuple[str, ...]]:
        """The providers by the prefixes of their credentials; the same object until that changes."""
        ...


class RouteQuery(msgspec.Struct, frozen=True):
    """All that routing may look at in a request."""

    model: str | None
    """As the client spelled it; None for requests that have none."""
    path: str = "/v1/chat/completions"
    token: str | None = None
    """The name of the caller's token."""
    headers: Headers = Headers()
    stream: bool = False
    provider: str | None = None
    """The `x-sluice-provider` header. Only looked at where there is no model."""


class Target(msgspec.Struct, frozen=True):
    """One dialable choice."""

    provider: str
    model: str | None
    """The provider's own name for it; None for requests without a model."""
    label: str
    """For metrics: the model where the configuration names it, else the configured glob that let it through, else `*`."""
    weight: int = 1
    prefix: str | None = None
    """Of the credentials that may serve it; None: any."""

    @property
    def key(self) -> tuple[str, str | None]:
        """What cooldowns go by."""
        return self.provider, self.model

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}" if self.model is not None else self.provider


class Rotation:
    """The position that a group's strategy chose last, over all requests."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = -1


class Group(msgspec.Struct, frozen=True):
    """Targets of equal rank; the strategy picks among them."""

    targets: tuple[Target, ...]
    """Never empty."""
    weights: tuple[int, ...]
    strategy: str
    rotation: Rotation

    @classmethod
    def of(cls, targets: tuple[Target, ...], strategy: str = "first", rotation: Rotation | None = None) -> "Group":
        weights = tuple(target.weight for target in targets)
        return cls(targets, weights, strategy, rotation if rotation is not None else Rotation())


class Fallbacks(msgspec.Struct, frozen=True):
    """Groups to go on to, in order, by what went wrong (:attr:`core.errors.UpstreamError.fallback`)."""

    error: tuple[Group, ...] = ()
    context: tuple[Group, ...] = ()
    content: tuple[Group, ...] = ()

    def of(self, kind: str) -> tuple[Group, ...]:
        """The groups for ``error``, ``context`` or ``content``."""
        return {"error": self.error, "context": self.context, "content": self.content}[kind]


class PlanTimeouts(msgspec.Struct, frozen=True):
    """Timeouts of an attempt at one provider, merged: the route's, else the provider's, else the default. None is off."""

    connect_seconds: float | None = CONNECT_SECONDS
    first_byte_seconds: float | None = FIRST_BYTE_SECONDS
    first_token_seconds: float | None = None
    idle_seconds: float | None = IDLE_SECONDS
    total_seconds: float | None = None


class Step(StrEnum):
    """Which step of resolution decided."""

    ROUTE = "route"
    PREFIX = "provider_prefix"
    CREDENTIAL_PREFIX = "credential_prefix"
    MODELS = "provider_models"
    HEADER = "provider_header"


class Plan(msgspec.Struct, frozen=True):
    """Where one request may go."""

    requested_model: str | None
    """As the client spelled it."""
    model: str | None
    """The name after aliases, with its provider's prefix where it has one."""
    route: str | None
    """The rule that took the request; None where another step decided."""
    step: Step
    first: Group
    timeouts: Mapping[str, PlanTimeouts]
    """By provider, for every provider of the plan."""
    fallbacks: Fallbacks = Fallbacks()
    retry: Retry = Retry()
    cooldown: Cooldown = Cooldown()
    overrides: Overrides = Overrides()

    @property
    def total_seconds(self) -> float | None:
        """The bound on the whole exchange: the one of the first target's provider (a route's own counts for all)."""
        return self.timeouts[self.first.targets[0].provider].total_seconds


def merge_timeouts(route: Timeouts, provider: Provider) -> PlanTimeouts:
    """The first of route, provider and default that says anything, key by key."""
    merged = {}
    for key in PlanTimeouts.__struct_fields__:
        for source in (route, provider.timeouts):
            value = getattr(source, key)
            if value is not msgspec.UNSET:
                merged[key] = value
                break
    return PlanTimeouts(**merged)


def split_target(text: str) -> tuple[str, str]:
    """``provider/model`` at the first slash; the model is empty where there is none."""
    provider, _, model = text.partition("/")
    return provider, model
