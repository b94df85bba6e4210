"""A document as a mapping, and the router that it makes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from config.faults import ConfigFaults, Fault
from config.schema import Config
from core.secret import Secret
from credentials.pool import Pools
from routing.cooldown import Cooldowns, Cooled
from routing.router import Router

PROVIDERS = [
    {"name": "openai", "type": "openai", "models": ["gpt-*", "o1"]},
    {"name": "azure", "type": "openai-compatible", "models": ["gpt-4o", "gpt-4o-mini"]},
    {"name": "anthropic", "type": "openai-compatible"},
]


def read(document: dict[str, Any]) -> Config:
    """The document as values; every provider of `PROVIDERS` is there unless it says otherwise."""
    return msgspec.convert(
        {"providers": PROVIDERS, **document}, Config, dec_hook=lambda _type, value: Secret.literal(value)
    )


@dataclass
class Bench:
    """A router with what it stands on."""

    config: Config
    cooldowns: Cooldowns
    pools: Pools
    router: Router
    told: list[Cooled] = field(default_factory=list)
    """The cooldowns that the observer was told of."""


def assemble(document: dict[str, Any], random: Callable[[], float] = lambda: 0.5) -> Bench:
    told: list[Cooled] = []
    config = read(document)
    cooldowns = Cooldowns(told.append)
    pools = Pools(config.providers, cooldowns)
    return Bench(config, cooldowns, pools, Router(config, cooldowns, pools, random), told)


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """``bench(document, random)`` builds a router."""
    return assemble


@pytest.fixture
def faults() -> Callable[[dict[str, Any]], tuple[Fault, ...]]:
    """``faults(document)``: what a router says against the document."""

    def collect(document: dict[str, Any]) -> tuple[Fault, ...]:
        with pytest.raises(ConfigFaults) as caught:
            assemble(document)
        return caught.value.faults

    return collect
