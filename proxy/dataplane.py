"""All that the pipeline needs of one generation, built by the composition root."""

from dataclasses import dataclass

from access.address import TrustedProxies
from access.tokens import TokenIndex
from config.schema import Server
from credentials.pool import Pools
from proxy.intake import Limits
from proxy.providers.base import ProviderAdapter
from routing.router import Router
from transport.messages import STRAIGHT, ConnectionOptions, UpstreamClient


@dataclass(frozen=True, slots=True)
class BoundProvider:
    """A provider's adapter and the way to it."""

    adapter: ProviderAdapter
    client: UpstreamClient
    options: ConnectionOptions = STRAIGHT


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
