"""The shipped table of list prices, `access/price_list.json`: what vendors publish, with the day that it was taken.

It is data, so that a new price is an edit of one line. A model that it does not have has no known price.
"""

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from config.schema import Provider

_FILE = Path(__file__).with_name("price_list.json")


class _Amounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In US dollars for a million tokens; what is not said costs as input does."""

    input_usd: Decimal
    cached_input_usd: Decimal | None = None
    cache_write_usd: Decimal | None = None
    output_usd: Decimal


class LongContext(_Amounts, frozen=True, kw_only=True):
    """What every token of a request costs whose input is longer."""

    above_tokens: int


class ListedPrice(_Amounts, frozen=True, kw_only=True):
    """One row: models of one price, by their exact names."""

    models: tuple[str, ...]
    long_context: LongContext | None = None


class Vendor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose prices, and whom they are for."""

    type: str
    """The provider type."""
    vendor: str
    page: str
    """Where the vendor publishes them."""
    hosts: tuple[str, ...]
    """The vendor's own; a provider at any other address charges what it likes."""
    prices: tuple[ListedPrice, ...]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the prices were read."""

    name: str
    date: str
    note: str | None = None


class PriceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    date: str
    """The day that the prices were taken, YYYY-MM-DD."""
    unit: str
    about: tuple[str, ...]
    sources: tuple[Source, ...]
    vendors: tuple[Vendor, ...]


@lru_cache(maxsize=1)
def price_list() -> PriceList:
    """Read once, when the first generation is built."""
    return msgspec.json.decode(_FILE.read_bytes(), type=PriceList)


def listed_types(providers: Iterable[Provider]) -> dict[str, str]:
    """The provider's name → its type, of those that list prices are for: their vendor's own addresses.

    Another address than the vendor's own may be a reseller, a machine of one's own or a region with a surcharge.
    """
    hosts = {vendor.type: vendor.hosts for vendor in price_list().vendors}
    return {
        provider.name: provider.type
        for provider in providers
        if provider.type in hosts and (provider.base_url is None or _host(provider.base_url) in hosts[provider.type])
    }


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # what is wrong with it, the provider's own faults tell
        return None
