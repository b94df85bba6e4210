"""Prices for the tests of handlers."""

from management.price_service import ModelPrice, PriceFromList, PriceShown, UnknownProvider

PRICE = ModelPrice(
    input_usd=2.5, cached_input_usd=1.25, cache_write_usd=2.5, output_usd=10, request_usd=0, long_context=None
)


class Prices:
    """:class:`management.price_service.PriceService` of three models, one of which has a price."""

    def __init__(self) -> None:
        self.models = (("local", "llama"), ("openai", "gpt-4o"), ("openai", "gpt-x"))

    def named(self) -> tuple[tuple[str, str], ...]:
        return self.models

    def shown(self, provider: str, model: str) -> PriceShown:
        if provider not in ("local", "openai"):
            raise UnknownProvider
        source = PriceFromList(date="2026-11-21", vendor="OpenAI", page="Pricing") if model == "gpt-4o" else None
        return PriceShown(provider=provider, model=model, price=PRICE if source else None, source=source)
