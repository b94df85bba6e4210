"""All that the pipeline needs of one generation, built by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass, field

from access.address import TrustedProxies
from access.prices import PriceBook
from access.quotas.rules import Rules
from access.tokens import TokenIndex
from config.schema import Quotas, Server
from core.secret import Secret
from credentials.pool import Pools
from proxy.intake import Limits
from proxy.providers.base import ProviderAdapter
from routing.router import ListedModel, Router
from transport.messages import STRAIGHT, ConnectionOptions, UpstreamClient


@dataclass(frozen=True, slots=True)
class BoundProvider:
    """A provider's adapter and the way to it."""

    adapter: ProviderAdapter
    client: UpstreamClient
    options: ConnectionOptions = STRAIGHT
    include_usage: bool = False
    """Whether it is asked for the usage of streams where the client does not ask."""
    through: Callable[[Secret], ConnectionOptions] | None = None
    """The options by a credential's own proxy; None: there is no connection to make."""

    def options_for(self, proxy_url: Secret | None) -> ConnectionOptions:
        """How it is reached by a credential; ``proxy_url`` is the credential's own, if it has one."""
        return self.options if proxy_url is None or self.through is None else self.through(proxy_url)


class Discovered:
    """Models by name that providers have told of; swapped whole as that changes, and outlives generations."""

    __slots__ = ("asked", "models")

    def __init__(self) -> None:
        self.models: tuple[ListedModel, ...] = ()
        """Those that their provider's `models` let through."""
        self.asked: Callable[[], None] = lambda: None
        """Told that somebody asks for them, so that old lists are read again; nobody waits for that."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """Immutable; every exchange ends on the one it began with."""

    revision: str
    built_at: float
    """Seconds since the epoch: the age of the models that GET /v1/models lists."""
    limits: Limits
    tokens: TokenIndex
    router: Router
    pools: Pools
    providers: dict[str, BoundProvider]
    trusted_proxies: TrustedProxies
    body_idle_seconds: float = Server().body_idle_seconds
    rules: Rules = field(default_factory=Rules)
    assumed_output_tokens: int = Quotas().assumed_output_tokens
    """Reserved for the answer to a request that sets no maximum of its own."""
    discovered: Discovered = field(default_factory=Discovered)
    prices: PriceBook = field(default_factory=lambda: PriceBook((), {}))
