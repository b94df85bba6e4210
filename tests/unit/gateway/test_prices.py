"""Prices of a generation: where they are from, and what is told of those that are missing."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from config.load import RejectedConfig
from core.usage import Usage
from gateway.build import Generation, load_and_build
from gateway.price_advice import named_targets
from gateway.price_service import GatewayPrices
from gateway.resources import Resources
from management.price_service import PriceFromConfig, PriceFromList, UnknownProvider

Build = Callable[..., Generation]

PROVIDERS = """
tokens: []
providers:
  - {name: openai, type: openai, models: ["gpt-4o", "gpt-4o-{x,y}", "gpt-5*"]}
  - {name: reseller, type: openai, base_url: "https://reseller.example/v1", models: [gpt-4o]}
  - {name: local, type: openai-compatible, base_url: "http://127.0.0.1:1/v1"}
"""
MONEY = "limits: [{usd: 20, per: month}]\n"
NAMED = """
model_aliases:
  - {from: fast, to: local/llama}
  - {from: "g-*", to: "openai/g-*"}
  - {from: slow, to: fast}
routes:
  - name: gold
    match: {model: gold}
    targets: [openai/gpt-4o, {to: local/qwen}, "openai/*"]
    fallbacks: {error: [[local/llama]], context: [[local/long]]}
  - {name: plain, match: {model: plain}, targets: [openai/gpt-4o], fallbacks: [[local/qwen], [local/last]]}
"""


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    resources = Resources({})

    def make(*parts: str) -> Generation:
        path = tmp_path / "config.yaml"
        path.write_text("".join(parts))
        return load_and_build(path, resources)

    yield make
    await resources.close()


def told(generation: Generation) -> list[str]:
    """The notices on prices, without their file's directory."""
    return [
        str(notice).rpartition("config.yaml:")[2]
        for notice in generation.loaded.notices
        if "cost" in notice.message or "never counts" in notice.message
    ]


async def test_the_plane_has_the_prices_of_the_document_and_of_the_list(build: Build) -> None:
    prices = build(PROVIDERS, "prices: [{model: 'local/*', input_usd: 1, output_usd: 2}]\n").plane.prices
    assert [12_500, 3_000, None] == [
        prices.cost(provider, "gpt-4o", Usage(1, 1)) for provider in ("openai", "local", "reseller")
    ]


async def test_every_model_that_is_named_outright_is_found_once_for_each_place(build: Build) -> None:
    found = list(named_targets(build(PROVIDERS, NAMED).config))
    assert [
        (("model_aliases", 0, "to"), "local", "llama"),
        (("routes", 0, "targets", 0), "openai", "gpt-4o"),
        (("routes", 0, "targets", 1, "to"), "local", "qwen"),
        (("routes", 0, "fallbacks", "error", 0, 0), "local", "llama"),
        (("routes", 0, "fallbacks", "context", 0, 0), "local", "long"),
        (("routes", 1, "targets", 0), "openai", "gpt-4o"),
        (("routes", 1, "fallbacks", 0, 0), "local", "qwen"),
        (("routes", 1, "fallbacks", 1, 0), "local", "last"),
        (("providers", 0, "models", 0), "openai", "gpt-4o"),
        (("providers", 0, "models", 1), "openai", "gpt-4o-x"),
        (("providers", 0, "models", 1), "openai", "gpt-4o-y"),
        (("providers", 1, "models", 0), "reseller", "gpt-4o"),
    ] == found


UNSEEN = "the cost of `{}` is unknown, so that limits of money do not see it: add it to `prices` (with 0 where it costs nothing)"
OF_LOCAL = ["local/llama", "local/qwen", "local/long", "local/last"]
OF_OTHERS = ["openai/gpt-4o-x", "openai/gpt-4o-y", "reseller/gpt-4o"]


@pytest.mark.parametrize(
    ("more", "unseen"),
    [
        ("", []),
        ("limits: [{requests: 20, per: month}]\n", []),
        (MONEY, [*OF_LOCAL, *OF_OTHERS]),
        ("limits: [{usd: 20, per: month, match: {provider: 'l*'}}]\n", OF_LOCAL),
        (MONEY + "prices: [{model: 'local/*', input_usd: 0, output_usd: 0}]\n", OF_OTHERS),
        (MONEY + "prices: [{model: '*', input_usd: 0, output_usd: 0}]\n", []),
    ],
)
async def test_a_limit_of_money_tells_which_models_it_does_not_see(build: Build, more: str, unseen: list[str]) -> None:
    found = told(build(PROVIDERS, NAMED, more))
    assert sorted(UNSEEN.format(model) for model in unseen) == sorted(line.split(": ", 2)[2] for line in found)


@pytest.mark.parametrize("at", ["tokens", "providers", "credentials"])
async def test_limits_of_money_are_seen_wherever_they_stand(build: Build, at: str) -> None:
    money = ", limits: [{usd: 1, per: day}]"
    text = (
        f"tokens: [{{name: t, sha256: '{'0' * 64}'{money if at == 'tokens' else ''}}}]\n"
        "providers:\n"
        "  - {name: local, type: openai-compatible, base_url: 'http://127.0.0.1:1/v1', models: [llama]"
        f"{money if at == 'providers' else ''}"
        f", credentials: [{{name: main, api_key: x{money if at == 'credentials' else ''}}}]}}\n"
    )
    (line,) = told(build(text))
    assert line.startswith("3:")
    assert UNSEEN.format("local/llama") in line


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4o", None),
        ("open*/gpt", None),
        ("*", None),
        ("*/gpt-4o", None),
        ("{openai,nobody}/x", None),
        ("[lr]*", None),
        ("openay/gpt-4o", "no model of any provider is called `openay/gpt-4o`: did you mean `openai`?"),
        ("nobody/*", "no model of any provider is called `nobody/*` (one of `local`, `openai`, `reseller`)"),
        ("gpt-4*", "no model of any provider is called `gpt-4*`: write it as provider/model"),
        ("openai", "no model of any provider is called `openai`: write it as provider/model"),
    ],
)
async def test_an_entry_that_no_model_can_have_is_told(build: Build, model: str, expected: str | None) -> None:
    found = told(build(PROVIDERS, f"prices:\n  - {{model: '{model}', input_usd: 1, output_usd: 1}}\n"))
    assert ([] if expected is None else [f"8:13: prices[0].model: never counts: {expected}"]) == found


async def test_a_glob_that_stands_twice_is_told(build: Build) -> None:
    entries = (
        "prices:\n"
        "  - {model: [local/a, local/b], input_usd: 1, output_usd: 1}\n"
        "  - {model: local/b, input_usd: 2, output_usd: 1}\n"
    )
    (line,) = told(build(PROVIDERS, entries))
    assert "9:13: prices[1].model: never counts: `local/b` is in prices[0].model[1] already: remove one" == line


async def test_a_bad_price_is_a_fault_with_its_place(build: Build) -> None:
    with pytest.raises(RejectedConfig) as caught:
        build(PROVIDERS, "prices: [{model: 'local/[', input_usd: 0.0000000001, output_usd: 1}]\n")
    places = [(fault.line, fault.path) for fault in caught.value.faults]
    assert [
        (7, ("prices", 0, "model")),
        (7, ("prices", 0, "input_usd")),
    ] == places


async def test_a_price_is_shown_with_whence_it_is(build: Build) -> None:
    entry = "prices:\n  - {model: [x/y, 'local/l*'], input_usd: 0.15, output_usd: 0.6, request_usd: 0.001}\n"
    generation = build(PROVIDERS, NAMED, entry)
    prices = GatewayPrices(lambda: generation)
    assert [
        *(("local", model) for model in ("last", "llama", "long", "qwen")),
        *(("openai", model) for model in ("gpt-4o", "gpt-4o-x", "gpt-4o-y")),
        ("reseller", "gpt-4o"),
    ] == list(prices.named())

    ours = prices.shown("local", "llama")
    assert ours.price is not None
    assert isinstance(ours.source, PriceFromConfig)
    assert (0.15, 0.15, 0.6, 0.001) == (
        ours.price.input_usd,
        ours.price.cached_input_usd,
        ours.price.output_usd,
        ours.price.request_usd,
    )
    place = generation.loaded.place.find(("prices", 0, "model", 1))[0]
    assert ("prices[0].model[1]", place.line) == (ours.source.path, ours.source.line)
    assert ours.source.file.endswith("config.yaml")

    listed = prices.shown("openai", "gpt-5.4")
    assert listed.price is not None
    assert listed.price.long_context is not None
    assert isinstance(listed.source, PriceFromList)
    assert ("OpenAI", 272_000, 5.0) == (
        listed.source.vendor,
        listed.price.long_context.above_tokens,
        listed.price.long_context.input_usd,
    )
    unknown = prices.shown("reseller", "gpt-4o")
    assert (None, None) == (unknown.price, unknown.source)
    with pytest.raises(UnknownProvider):
        prices.shown("nobody", "gpt-4o")
