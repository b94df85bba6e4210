"""Answers what the management API asks of prices."""

from collections.abc import Callable

from access.price_list import price_list
from access.prices import InForce, Rates, usd_of
from config.faults import Notice, render_path
from gateway.build import Generation
from gateway.price_advice import named_targets
from management.price_service import (
    LongContextPrice,
    ModelPrice,
    PriceFromConfig,
    PriceFromList,
    PriceShown,
    UnknownProvider,
)


class GatewayPrices:
    """Fits :class:`management.price_service.PriceService`."""

    def __init__(self, current: Callable[[], Generation]) -> None:
        """``current`` gives the generation in force."""
        self._current = current

    def named(self) -> tuple[tuple[str, str], ...]:
        """As :meth:`management.price_service.PriceService.named`."""
        return tuple(sorted({(provider, model) for _, provider, model in named_targets(self._current().config)}))

    def shown(self, provider: str, model: str) -> PriceShown:
        """As :meth:`management.price_service.PriceService.shown`."""
        generation = self._current()
        if provider not in generation.plane.providers:
            raise UnknownProvider
        found = generation.plane.prices.in_force(provider, model)
        if found is None:
            return PriceShown(provider=provider, model=model, price=None, source=None)
        return PriceShown(provider=provider, model=model, price=_price(found.rates), source=_source(found, generation))


def _price(rates: Rates) -> ModelPrice:
    long = rates.long
    return ModelPrice(
        input_usd=usd_of(rates.input),
        cached_input_usd=usd_of(rates.cached),
        cache_write_usd=usd_of(rates.cache_write),
        output_usd=usd_of(rates.output),
        request_usd=usd_of(rates.request, tokens=1),
        long_context=None
        if long is None
        else LongContextPrice(
            above_tokens=rates.above_tokens,
            input_usd=usd_of(long.input),
            cached_input_usd=usd_of(long.cached),
            cache_write_usd=usd_of(long.cache_write),
            output_usd=usd_of(long.output),
        ),
    )


def _source(found: InForce, generation: Generation) -> PriceFromConfig | PriceFromList:
    if found.path is None:
        return PriceFromList(date=price_list().date, vendor=found.vendor, page=found.page)
    place = generation.loaded.place.locate(Notice(found.path, ""))
    return PriceFromConfig(path=render_path(found.path), file=place.file, line=place.line, column=place.column)
