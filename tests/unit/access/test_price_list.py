"""The shipped list: well-formed, dated, and no price of it beyond reason."""

from datetime import date
from decimal import Decimal

import pytest

from access.price_list import ListedPrice, Vendor, price_list
from access.prices import PriceBook
from core.globs import Glob
from core.usage import Usage
from proxy.providers import PROVIDER_TYPES

ROWS = [(vendor, price) for vendor in price_list().vendors for price in vendor.prices]
FUTURE_TYPES = {"anthropic", "gemini"}
"""Their adapters are to come."""


def test_the_list_says_when_and_where_its_prices_were_read() -> None:
    taken = date.fromisoformat(price_list().date)
    assert taken > date(2026, 1, 1)
    assert price_list().sources
    assert all(date(2026, 1, 1) < date.fromisoformat(source.date) <= taken for source in price_list().sources)
    assert all(vendor.page and vendor.hosts for vendor in price_list().vendors)


def test_a_model_is_listed_once_and_by_its_name() -> None:
    names = [(vendor.type, model) for vendor, price in ROWS for model in price.models]
    assert len(names) == len(set(names)) > 40
    assert all(Glob(model).exact and not model.endswith("-latest") for _, model in names)


def test_each_vendor_has_a_type() -> None:
    types = [vendor.type for vendor in price_list().vendors]
    assert len(types) == len(set(types))
    assert set(types) <= PROVIDER_TYPES.keys() | FUTURE_TYPES


@pytest.mark.parametrize(("vendor", "price"), ROWS, ids=lambda each: getattr(each, "models", ("",))[0])
def test_a_row_is_within_reason(vendor: Vendor, price: ListedPrice) -> None:
    embeds = "embedding" in price.models[0]
    for row in (price, price.long_context) if price.long_context else (price,):
        assert 0 < row.input_usd <= 200
        assert embeds == (row.output_usd == 0)
        assert row.output_usd <= 10 * row.input_usd or vendor.type != "anthropic"
        assert row.cached_input_usd is None or 0 < row.cached_input_usd < row.input_usd
        assert row.cache_write_usd is None or row.input_usd < row.cache_write_usd
    if price.long_context is not None:
        assert 100_000 <= price.long_context.above_tokens
        assert price.input_usd < price.long_context.input_usd
    prices = PriceBook((), {"p": vendor.type})
    for model in price.models:
        assert price.input_usd * 1000 == Decimal(prices.cost("p", model, Usage(1)) or 0)
