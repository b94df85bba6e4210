"""What tokens cost: `prices:` of the configuration, then the shipped list. Decides; no IO but the list, which is read once.

Money is counted in whole numbers: rates in 10⁻¹⁵ US dollars a token (0.0375 USD a million are 37 500 000 of them), the
cost of a request in 10⁻⁹, rounded half up once at the end. No float takes part, so that nothing drifts.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from access.price_list import ListedPrice, LongContext, price_list
from access.quotas.amounts import MOST
from config.faults import ConfigFaults, Fault, Path
from config.schema import Price
from core.globs import Glob, GlobIndex
from core.remembered import Remembered
from core.usage import Usage

DIGITS = 9
"""Digits behind the point that a price in US dollars may have."""
_A_MILLION = 10**DIGITS
"""10⁻¹⁵ USD a token, of one USD a million tokens."""
_ONE = 10**15
_TO_NANO = 10**6
_HALF = _TO_NANO // 2
_LONGEST = 320
"""Characters of `provider/model` whose price is remembered; names of fine-tuned models are long."""


class Rates(msgspec.Struct, frozen=True, gc=False):
    """In 10⁻¹⁵ US dollars: of a token of each kind, and of the request itself."""

    input: int
    cached: int
    cache_write: int
    output: int
    request: int = 0
    above_tokens: int = 0
    long: "Rates | None" = None
    """For requests of more than ``above_tokens`` input tokens; None: the same."""


class InForce(msgspec.Struct, frozen=True):
    """The price that counts for a model."""

    rates: Rates
    path: Path | None
    """Where the configuration says so; None: the shipped list does."""
    vendor: str = ""
    """Whose list price it is."""
    page: str = ""
    """Where the vendor publishes it."""


class PriceBook:
    """The prices of one generation. Immutable but for what it remembers, of which there is a bounded number."""

    __slots__ = ("_rates", "in_force")

    def __init__(self, prices: tuple[Price, ...], types: Mapping[str, str]) -> None:
        """``types``: provider name → provider type, of the providers that list prices are for (:func:`listed_types`).

        Raises:
            ConfigFaults: bad globs; amounts finer than a price can be.
        """
        faults: list[Fault] = []
        entries: list[tuple[Glob, InForce]] = []
        for place, price in enumerate(prices):
            rates = _rates_of(price, ("prices", place), faults)
            for path, pattern in patterns(price, place):
                try:
                    entries.append((Glob(pattern), InForce(rates, path)))
                except ValueError as error:
                    faults.append(Fault(path, str(error)))
        if faults:
            raise ConfigFaults(faults)
        # The most specific first, then the earlier in the file: sorting is stable.
        entries.sort(key=lambda entry: entry[0].specificity)
        look_up = _LookUp(entries, types)
        self.in_force = look_up.in_force
        """Of a provider and a model, the price that counts; None: none is known."""
        self._rates = Remembered(look_up.rates, _LONGEST)

    def cost(self, provider: str, model: str | None, usage: Usage) -> int | None:
        """What ``usage`` cost, in 10⁻⁹ US dollars; None: the price is not known."""
        rates = self._rates[f"{provider}/{model or ''}"]
        if rates is None:
            return None
        taken = usage.input_tokens
        if rates.long is not None and taken > rates.above_tokens:
            rates = rates.long
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        amount = rates.request + taken * rates.input + usage.output_tokens * rates.output
        if cached or written:
            # What providers say is not always consistent.
            cached = min(cached, taken)
            written = min(written, taken - cached)
            amount += cached * (rates.cached - rates.input) + written * (rates.cache_write - rates.input)
        return _nano(amount)

    def flat_cost(self, provider: str, model: str) -> int | None:
        """What a request cost of which nobody tells any tokens, such as for an image; None: it is not known, also where tokens
        have a price."""
        rates = self._rates[f"{provider}/{model}"]
        return None if rates is None or rates.input or rates.output else _nano(rates.request)

    def quote(self, provider: str, model: str | None, input_tokens: int, output_tokens: int) -> int:
        """What so many tokens are expected to cost, in 10⁻⁹ US dollars; 0 where the price is not known."""
        rates = self._rates[f"{provider}/{model or ''}"]
        if rates is None:
            return 0
        if rates.long is not None and input_tokens > rates.above_tokens:
            rates = rates.long
        return _nano(rates.request + input_tokens * rates.input + output_tokens * rates.output)

    def knows(self, provider: str, model: str | None) -> bool:
        """Whether there is a price."""
        return self._rates[f"{provider}/{model or ''}"] is not None


class _LookUp:
    """Apart from the book, so that the book refers to itself nowhere: a generation goes without the garbage collector."""

    __slots__ = ("_entries", "_index", "_listed", "_types")

    def __init__(self, entries: list[tuple[Glob, InForce]], types: Mapping[str, str]) -> None:
        self._entries = tuple(entry for _, entry in entries)
        self._index = GlobIndex((glob, number) for number, (glob, _) in enumerate(entries))
        self._types = dict(types)
        self._listed = _listed()

    def in_force(self, provider: str, model: str | None) -> InForce | None:
        name = model or ""
        for number in self._index.matching(f"{provider}/{name}"):
            return self._entries[number]
        return self._listed.get((self._types.get(provider, ""), name))

    def rates(self, name: str) -> Rates | None:
        provider, _, model = name.partition("/")
        found = self.in_force(provider, model)
        return None if found is None else found.rates


def patterns(price: Price, place: int) -> Iterable[tuple[Path, str]]:
    """The globs of the entry at ``place``, each with its path."""
    path: Path = ("prices", place, "model")
    if isinstance(price.model, str):
        return [(path, price.model)]
    return [((*path, number), pattern) for number, pattern in enumerate(price.model)]


@lru_cache(maxsize=1)
def _listed() -> dict[tuple[str, str], InForce]:
    """By provider type and model."""
    found: dict[tuple[str, str], InForce] = {}
    for vendor in price_list().vendors:
        for price in vendor.prices:
            in_force = InForce(_list_rates(price), None, vendor.vendor, vendor.page)
            found.update(((vendor.type, model), in_force) for model in price.models)
    return found


def _list_rates(price: ListedPrice) -> Rates:
    long = price.long_context
    if long is None:
        return _listed_amounts(price)
    return msgspec.structs.replace(_listed_amounts(price), above_tokens=long.above_tokens, long=_listed_amounts(long))


def _listed_amounts(price: ListedPrice | LongContext) -> Rates:
    def rate(usd: Decimal | None) -> int:
        return _whole(price.input_usd if usd is None else usd, _A_MILLION)

    return Rates(
        rate(price.input_usd), rate(price.cached_input_usd), rate(price.cache_write_usd), rate(price.output_usd)
    )


def _rates_of(price: Price, path: Path, faults: list[Fault]) -> Rates:
    def rate(name: str, usd: float, unit: int = _A_MILLION) -> int:
        try:
            # As it is written: the shortest text that gives this float.
            return _whole(Decimal(repr(usd)), unit)
        except ValueError as error:
            faults.append(Fault((*path, name), str(error)))
            return 0

    taken = rate("input_usd", price.input_usd)
    cached, written = price.cached_input_usd, price.cache_write_usd
    return Rates(
        taken,
        taken if cached is None else rate("cached_input_usd", cached),
        taken if written is None else rate("cache_write_usd", written),
        rate("output_usd", price.output_usd),
        rate("request_usd", price.request_usd, _ONE),
    )


def _whole(usd: Decimal, unit: int) -> int:
    """
    Raises:
        ValueError: it is finer than prices are kept.
    """
    if usd * 10**DIGITS % 1 != 0:
        raise ValueError(f"{usd} USD is finer than prices are kept: write at most {DIGITS} digits behind the point")
    return int(usd * unit)


def usd_of(rate: int, tokens: int = 1_000_000) -> float:
    """US dollars for so many tokens, to be shown; ``tokens=1`` for the rate of a request."""
    return float(Decimal(rate) * tokens / _ONE)


def _nano(amount: int) -> int:
    """Rounded half up; bounded, since numbers of tokens come from providers."""
    return min((amount + _HALF) // _TO_NANO, MOST)
