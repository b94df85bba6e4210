"""Prices: what the models that the configuration names cost, and whence that is known."""

from typing import Annotated

import msgspec
from msgspec import Meta

from core.identity import Role
from management.errors import ManagementError, ProviderError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.pages import Cursor, Limit, bad_cursor
from management.handler.permit import requires
from management.price_service import PriceShown, UnknownProvider
from storage.errors import BadCursor
from storage.pages import decode_cursor, encode_cursor


class PriceQuery(msgspec.Struct, frozen=True):
    """Which page, or which model alone."""

    model: Annotated[str, Meta(min_length=1, max_length=1024, description="provider/model")] | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


class PriceTable(msgspec.Struct, frozen=True):
    """By provider and model."""

    data: tuple[PriceShown, ...]
    next_cursor: str | None


class Prices(ManagementHandler):
    """``/api/v1/prices``."""

    @operation(
        requires(Role.POWER_USER),
        summary="The price in force for each model that the configuration names, or for any one.",
        query=PriceQuery,
        answers={200: PriceTable},
        errors=(RequestError.INVALID_QUERY, ProviderError.NOT_FOUND),
    )
    async def get(self) -> None:
        query = self.read_query(PriceQuery)
        prices = self.dependencies.prices
        if query.model is not None:
            provider, _, model = query.model.partition("/")
            if not model:
                raise ManagementError(RequestError.INVALID_QUERY, "Write the model as provider/model.", param="model")
            try:
                self.write_json(PriceTable((prices.shown(provider, model),), None))
            except UnknownProvider as error:
                raise ManagementError(
                    ProviderError.NOT_FOUND, f"There is no provider `{provider[:64]}`.", param="model"
                ) from error
            return
        names = prices.named()
        if query.cursor is not None:
            after = _read_cursor(query.cursor)
            names = tuple(name for name in names if name > after)
        page = names[: query.limit]
        cursor = encode_cursor(*page[-1]) if len(names) > len(page) else None
        self.write_json(PriceTable(tuple(prices.shown(provider, model) for provider, model in page), cursor))


def _read_cursor(cursor: str) -> tuple[str, str]:
    try:
        return decode_cursor(cursor, tuple[str, str])
    except BadCursor as error:
        raise bad_cursor() from error
