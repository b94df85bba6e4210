"""What requests cost: whole numbers, exact to the last digit."""

from typing import Any

import msgspec
import pytest

from access.price_list import listed_types
from access.prices import PriceBook, usd_of
from access.quotas.amounts import MOST
from config.faults import ConfigFaults
from config.schema import Price, Provider
from core.usage import Usage

LISTED = {"openai": "openai", "other": "openai", "claude": "anthropic"}


def book(*entries: dict[str, Any]) -> PriceBook:
    return PriceBook(msgspec.convert(entries, tuple[Price, ...]), LISTED)


def one(input_usd: float = 0, output_usd: float = 0, **more: Any) -> PriceBook:
    return book({"model": "p/m", "input_usd": input_usd, "output_usd": output_usd, **more})


COSTS = [
    # 0.15 a million is 150 nano-dollars a token.
    (one(0.15, 0.6), Usage(1, 1), 750),
    (one(0.15, 0.6), Usage(1_000_000, 0), 150_000_000),
    (one(0.15, 0.6), Usage(0, 1_000_000), 600_000_000),
    (one(0.15, 0.6), Usage(), 0),
    (one(0.15, 0.6), Usage(1000, 500, 1000), 450_000),
    # The cached part at its own price.
    (one(0.15, 0.6, cached_input_usd=0.075), Usage(1000, 500, 1000), 375_000),
    (one(0.15, 0.6, cached_input_usd=0.075), Usage(1000, 500, 64), 445_200),
    (one(0.15, 0.6, cached_input_usd=0), Usage(1000, 0, 999), 150),
    # What is put into the cache too.
    (
        one(2, 10, cached_input_usd=0.2, cache_write_usd=2.5),
        Usage(1000, 100, 400, 0, cache_write_tokens=500),
        2_530_000,
    ),
    (one(2, 10, cached_input_usd=0.2), Usage(1000, 100, 400, 0, cache_write_tokens=500), 2_280_000),
    # Reasoning is a part of the output and not charged twice.
    (one(1, 4), Usage(0, 100, 0, 90), 400_000),
    # 37.5 nano-dollars a token: half a nano-dollar is rounded up, once at the end.
    (one(0.0375), Usage(1), 38),
    (one(0.0375), Usage(2), 75),
    (one(0.0375, 0.0375), Usage(1, 1), 75),
    (one(0.0375), Usage(3), 113),
    (one(0.0374), Usage(1), 37),
    (one(0.000000001), Usage(1), 0),
    (one(0.000000001), Usage(500_000), 1),
    (one(0.000000001), Usage(499_999), 0),
    # Each request, whatever it uses.
    (one(request_usd=0.01), Usage(), 10_000_000),
    (one(1, request_usd=0.000000001), Usage(1), 1_001),
    (one(0, 0), Usage(5, 5, 5, 5), 0),
    # What providers say is not always consistent, nor small.
    (one(1, cached_input_usd=0.5), Usage(10, 0, 50), 5_000),
    (one(1, cached_input_usd=0.5, cache_write_usd=2), Usage(10, 0, 6, 0, cache_write_tokens=50), 11_000),
    (one(1_000_000, 1_000_000), Usage(2**53, 2**53), MOST),
]


@pytest.mark.parametrize(("prices", "usage", "nano_usd"), COSTS)
def test_a_cost_is_exact(prices: PriceBook, usage: Usage, nano_usd: int) -> None:
    assert nano_usd == prices.cost("p", "m", usage)


LIST_COSTS = [
    ("gpt-4o-mini", Usage(1_000_000, 1_000_000), 750_000_000),
    ("gpt-4o-mini", Usage(1_000_000, 0, 1_000_000), 75_000_000),
    ("gpt-4o-mini-2024-07-18", Usage(1000, 500, 64), 445_200),
    ("text-embedding-3-small", Usage(1_000_000), 20_000_000),
    ("gpt-5.5-pro", Usage(100, 10, 50), 4_800_000),
    # Up to 272 000 input tokens, and from there on: every token at another price.
    ("gpt-5.4", Usage(272_000, 1000), 695_000_000),
    ("gpt-5.4", Usage(272_001, 1000), 1_382_505_000),
    ("gpt-5.4", Usage(300_000, 0, 300_000), 150_000_000),
    ("gpt-6-sol", Usage(1000, 0, 0, 0, cache_write_tokens=1000), 2_500_000),
]


@pytest.mark.parametrize(("model", "usage", "nano_usd"), LIST_COSTS)
def test_a_list_price_costs_what_the_vendor_says(model: str, usage: Usage, nano_usd: int) -> None:
    assert nano_usd == book().cost("openai", model, usage)
    assert nano_usd == book().cost("other", model, usage)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-latest"),
        ("openai", "gpt-4o-2030-01-01"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:us::x"),
        ("openai", "GPT-4o"),
        ("openai", ""),
        ("openai", None),
        ("openai", "openai/gpt-4o"),
        ("openai", "claude-sonnet-5"),
        ("claude", "gpt-4o"),
        ("local", "gpt-4o"),
        ("unknown", "gpt-4o"),
    ],
)
def test_what_is_in_no_list_has_an_unknown_price_and_not_zero(provider: str, model: str | None) -> None:
    prices = book()
    assert prices.cost(provider, model, Usage(1, 1)) is None
    assert prices.in_force(provider, model) is None
    assert not prices.knows(provider, model)
    assert 0 == prices.quote(provider, model, 1000, 1000)


def test_a_quote_is_the_cost_without_a_cache() -> None:
    prices = one(0.15, 0.6, cached_input_usd=0.01, request_usd=0.001)
    assert prices.cost("p", "m", Usage(1000, 500)) == prices.quote("p", "m", 1000, 500)
    assert 1_382_505_000 == prices.quote("openai", "gpt-5.4", 272_001, 1000)


def price(model: str | list[str], usd: float) -> dict[str, Any]:
    return {"model": model, "input_usd": usd, "output_usd": 0}


@pytest.mark.parametrize(
    ("entries", "usd"),
    [
        # An entry goes before the list, however vague.
        ([price("*", 7)], 7),
        ([price("openai/*", 7)], 7),
        ([price("other/*", 7)], 2.5),
        # The most specific glob, wherever it stands; then the earlier one.
        ([price("openai/*", 7), price("openai/gpt-4o", 8)], 8),
        ([price("openai/gpt-4o", 8), price("openai/*", 7)], 8),
        ([price("*", 6), price("openai/gpt-*", 8), price("openai/*", 7)], 8),
        ([price("openai/?pt-4o", 6), price("openai/gp?-4o", 8)], 6),
        ([price("openai/{gpt-4o,x}", 8), price("openai/gpt*", 6)], 8),
        ([price(["x/*", "openai/gpt-4*"], 8), price("openai/*", 6)], 8),
        # Zero is a price like others.
        ([price("openai/gpt-4o", 0)], 0),
        ([price("openai/gpt-4O", 9)], 2.5),
    ],
)
def test_entries_go_before_the_list_and_the_most_specific_first(entries: list[dict[str, Any]], usd: float) -> None:
    assert round(usd * 1e9) == book(*entries).cost("openai", "gpt-4o", Usage(1_000_000))


def test_a_request_without_a_model_has_the_price_of_its_provider() -> None:
    assert 1000 == book(price("p/*", 1)).cost("p", None, Usage(1))
    assert book(price("p/m", 1)).cost("p", None, Usage(1)) is None


def test_names_that_are_long_or_many_are_priced_alike() -> None:
    prices = book(price("p/*", 1))
    for number in range(5000):
        assert 1000 == prices.cost("p", f"m{number}", Usage(1))
    assert 1000 == prices.cost("p", "m" * 900, Usage(1))


@pytest.mark.parametrize(
    ("entry", "path", "words"),
    [
        (price("p/[", 1), ("prices", 1, "model"), "is never closed"),
        (price(["p/m", ""], 1), ("prices", 1, "model", 1), "an empty glob"),
        (price("p/m", 0.0000000001), ("prices", 1, "input_usd"), "1E-10 USD is finer than prices are kept"),
        ({**price("p/m", 1), "cached_input_usd": 1 / 3}, ("prices", 1, "cached_input_usd"), "at most 9 digits"),
        ({**price("p/m", 1), "cache_write_usd": 1 / 3}, ("prices", 1, "cache_write_usd"), "at most 9 digits"),
        ({**price("p/m", 1), "output_usd": 1 / 3}, ("prices", 1, "output_usd"), "at most 9 digits"),
        ({**price("p/m", 1), "request_usd": 1 / 3}, ("prices", 1, "request_usd"), "at most 9 digits"),
    ],
)
def test_a_bad_entry_is_a_fault_at_its_place(entry: dict[str, Any], path: tuple[str | int, ...], words: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        book(price("p/m", 1), entry)
    (fault,) = caught.value.faults
    assert path == fault.path
    assert words in fault.message


@pytest.mark.parametrize("usd", [0.0, 0.0375, 0.15, 2.5, 1e6, 0.000000001, 123456.789012345])
def test_an_amount_is_shown_as_it_is_written(usd: float) -> None:
    found = one(usd).in_force("p", "m")
    assert found is not None
    assert usd == usd_of(found.rates.input)


@pytest.mark.parametrize(
    ("base_url", "listed"),
    [
        (None, True),
        ("https://api.openai.com/v1", True),
        ("https://API.openai.com:443/v1/", True),
        ("https://eu.api.openai.com/v1", False),
        ("https://api.openai.com.example/v1", False),
        ("https://reseller.example/api.openai.com/v1", False),
        ("http://127.0.0.1:8080/v1", False),
        ("http://[", False),
    ],
)
def test_list_prices_are_for_the_vendors_own_address_alone(base_url: str | None, listed: bool) -> None:
    providers = [Provider(name="a", type="openai", base_url=base_url)]
    assert ({"a": "openai"} if listed else {}) == listed_types(providers)


@pytest.mark.parametrize("kind", ["openai-compatible", "echo", "unknown"])
def test_a_type_without_a_vendor_has_no_list_prices(kind: str) -> None:
    assert {} == listed_types([Provider(name="a", type=kind)])
