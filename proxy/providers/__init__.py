"""How each vendor wants its bytes sent. Sans-io: an adapter computes, the transport sends.

To add an OpenAI-compatible vendor: one row in :data:`proxy.providers.openai_compatible.VENDORS`.
To add another: a module here with its adapter, and one line in :data:`PROVIDER_TYPES`.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from config.faults import ConfigFaults, Fault, did_you_mean
from config.schema import Provider
from proxy.providers.base import ProviderAdapter
from proxy.providers.echo import Echo
from proxy.providers.openai_compatible import VENDORS, OpenAICompatible


class ProviderType(msgspec.Struct, frozen=True):
    """A value of `providers[].type`."""

    build: Callable[[Provider], ProviderAdapter]
    """Binds the type to an entry; raises ConfigFaults with paths relative to it."""
    transport: Literal["http", "local"]
    """`local`: its adapter is a :class:`proxy.providers.base.LocalAdapter`, which answers by itself."""


PROVIDER_TYPES: dict[str, ProviderType] = {
    **{name: ProviderType(OpenAICompatible, "http") for name in VENDORS},
    "echo": ProviderType(Echo, "local"),
}


def build_adapter(provider: Provider) -> ProviderAdapter:
    """The adapter for an entry of `providers`.

    Raises:
        config.faults.ConfigFaults: every fault of the entry, with paths relative to it, such as ``("type",)``.
    """
    kind = PROVIDER_TYPES.get(provider.type)
    if kind is None:
        hint = did_you_mean(provider.type, PROVIDER_TYPES)
        raise ConfigFaults([Fault(("type",), f"unknown provider type `{provider.type}`{hint}")])
    return kind.build(provider)
