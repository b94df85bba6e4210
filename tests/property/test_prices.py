"""Costs add up: nothing is lost or gained by rounding but less than half a nano-dollar a request."""

from decimal import ROUND_HALF_UP, Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from access.prices import PriceBook
from config.schema import Price
from core.usage import Usage

usd = st.decimals(0, 1000, places=9).map(float)
counts = st.integers(0, 10_000_000)
usages = st.builds(
    lambda fresh, output, cached, written: Usage(
        fresh + cached + written, output, cached, 0, cache_write_tokens=written
    ),
    counts,
    counts,
    counts,
    counts,
)


def price_of(amounts: tuple[float, float, float, float]) -> PriceBook:
    taken, cached, written, given = amounts
    entry = Price(model="p/m", input_usd=taken, output_usd=given, cached_input_usd=cached, cache_write_usd=written)
    return PriceBook((entry,), {})


def cost(prices: PriceBook, usage: Usage) -> int:
    found = prices.cost("p", "m", usage)
    assert found is not None
    return found


@settings(deadline=None)
@given(st.tuples(usd, usd, usd, usd), usages)
def test_a_cost_is_the_exact_sum_rounded_half_up(amounts: tuple[float, float, float, float], usage: Usage) -> None:
    fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    parts = (fresh, usage.cached_tokens, usage.cache_write_tokens, usage.output_tokens)
    exact = sum(count * Decimal(repr(amount)) for count, amount in zip(parts, amounts, strict=True)) * 1000
    assert int(Decimal(exact).quantize(Decimal(1), ROUND_HALF_UP)) == cost(price_of(amounts), usage)


@settings(deadline=None)
@given(st.tuples(usd, usd, usd, usd), st.lists(usages, min_size=1, max_size=8))
def test_costs_add_up_and_none_is_negative(amounts: tuple[float, float, float, float], several: list[Usage]) -> None:
    prices = price_of(amounts)
    costs = [cost(prices, usage) for usage in several]
    together = Usage(
        sum(usage.input_tokens for usage in several),
        sum(usage.output_tokens for usage in several),
        sum(usage.cached_tokens for usage in several),
        0,
        cache_write_tokens=sum(usage.cache_write_tokens for usage in several),
    )
    assert all(each >= 0 for each in costs)
    assert 2 * abs(sum(costs) - cost(prices, together)) <= len(several) + 1


def test_a_million_requests_cost_a_million_times_one() -> None:
    prices = PriceBook((Price(model="p/m", input_usd=0.0375, output_usd=0.1),), {})
    usage = Usage(2, 1)
    total = 0
    for _ in range(1_000_000):
        total += prices.cost("p", "m", usage) or 0
    # 2 000 000 tokens at 0.0375 USD a million, and 1 000 000 at 0.10.
    assert 175_000_000 == total == cost(prices, Usage(2_000_000, 1_000_000))
