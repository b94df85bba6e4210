"""What handlers ask of prices. `gateway/price_service.py` answers."""

from typing import Protocol

import msgspec


class PriceAmounts(msgspec.Struct, frozen=True, kw_only=True):
    """In US dollars for a million tokens."""

    input_usd: float
    cached_input_usd: float
    cache_write_usd: float
    output_usd: float


class LongContextPrice(PriceAmounts, frozen=True, kw_only=True):
    """For every token of a request that has more than ``above_tokens`` input tokens."""

    above_tokens: int


class ModelPrice(PriceAmounts, frozen=True, kw_only=True):
    """What counts for a model."""

    request_usd: float
    """For each request, besides its tokens."""
    long_context: LongContextPrice | None


class PriceFromConfig(msgspec.Struct, frozen=True, kw_only=True, tag_field="from", tag="config"):
    """An entry of `prices`."""

    path: str
    file: str
    line: int
    column: int


class PriceFromList(msgspec.Struct, frozen=True, kw_only=True, tag_field="from", tag="list"):
    """The list of public prices that the gateway brings."""

    date: str
    """When it was taken, YYYY-MM-DD."""
    vendor: str
    page: str
    """Where the vendor publishes them."""


class PriceShown(msgspec.Struct, frozen=True, kw_only=True):
    """The price in force for a model; null: it is not known, and so is the cost of its requests."""

    provider: str
    model: str
    price: ModelPrice | None
    source: PriceFromConfig | PriceFromList | None


class UnknownProvider(Exception):
    """No provider has that name."""


class PriceService(Protocol):
    """The prices of the generation in force."""

    def named(self) -> tuple[tuple[str, str], ...]:
        """Provider and model of every model that the configuration names, sorted."""
        ...

    def shown(self, provider: str, model: str) -> PriceShown:
        """
        Raises:
            UnknownProvider: as it says.
        """
        ...
