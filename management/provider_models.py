"""The models that providers tell of."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus

import msgspec

from core.identity import Role
from management.errors import ManagementError, ModelError, ProviderError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.pages import PageQuery, bad_cursor
from management.handler.permit import requires
from management.provider_health import known_provider
from management.provider_service import Job, KnownModel, KnownModels, ProbeError, RefreshFailed
from storage.errors import BadCursor
from storage.pages import decode_cursor, encode_cursor


class ProviderModelList(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a provider's models, and how the whole list is known."""

    data: tuple[KnownModel, ...]
    next_cursor: str | None
    provider: str
    seen_at: datetime | None
    stale: bool
    refreshing: bool
    stored: bool
    error: ProbeError | None


class ListedModel(KnownModel, frozen=True, kw_only=True):
    """A model and whose it is."""

    provider: str


class ListState(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider's list is known."""

    provider: str
    models: int
    seen_at: datetime | None
    stale: bool
    refreshing: bool
    stored: bool
    error: ProbeError | None


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """A part of all models, by provider and id; and how each list is known."""

    data: tuple[ListedModel, ...]
    next_cursor: str | None
    providers: tuple[ListState, ...]


class RefreshAll(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="source", tag="all"):
    """Read the lists of all providers, as a job."""


class RefreshOne(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="source", tag="provider"):
    """Read one provider's list."""

    provider: str


class ProviderModels(ManagementHandler):
    """``/api/v1/providers/{name}/models``."""

    @operation(
        requires(Role.POWER_USER),
        summary="The models of a provider as last seen; a stale list is read again meanwhile.",
        query=PageQuery,
        answers={200: ProviderModelList},
        errors=(RequestError.INVALID_QUERY, ProviderError.NOT_FOUND),
    )
    async def get(self, name: str) -> None:
        query = self.read_query(PageQuery)
        with known_provider():
            known = await self.dependencies.providers.models(name)
        self.write_json(_part(known, query))


class ProviderModelsRefresh(ManagementHandler):
    """``/api/v1/providers/{name}/models/refresh``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Read a provider's list of models now.",
        answers={200: ProviderModelList},
        errors=(ProviderError.NOT_FOUND, ModelError.REFRESH_FAILED),
        audit="provider.refresh_models",
    )
    async def post(self, name: str) -> None:
        self.write_json(await _refresh(self, name))


class Models(ManagementHandler):
    """``/api/v1/models``."""

    @operation(
        requires(Role.POWER_USER),
        summary="The models of all providers as last seen; stale lists are read again meanwhile.",
        query=PageQuery,
        answers={200: ModelList},
        errors=(RequestError.INVALID_QUERY,),
    )
    async def get(self) -> None:
        query = self.read_query(PageQuery)
        lists = await self.dependencies.providers.all_models()
        page, cursor = _page(lists, query)
        models = tuple(
            ListedModel(provider=provider, id=model.id, owned_by=model.owned_by, created_at=model.created_at)
            for provider, model in page
        )
        self.write_json(ModelList(data=models, next_cursor=cursor, providers=tuple(map(_state, lists))))


class ModelsRefresh(ManagementHandler):
    """``/api/v1/models/refresh``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Read the lists of models now: one provider's, or all as a job.",
        body=RefreshAll | RefreshOne,
        answers={200: ProviderModelList, 202: Job},
        errors=(RequestError.INVALID_BODY, ProviderError.NOT_FOUND, ModelError.REFRESH_FAILED),
        audit="models.refresh",
    )
    async def post(self) -> None:
        match self.read_body(RefreshAll | RefreshOne):  # type: ignore[arg-type]  # a union is no class
            case RefreshOne(provider=name):
                self.write_json(await _refresh(self, name))
            case _:
                job_id = await self.dependencies.providers.refresh_all()
                self.audit("models", "all", after={"job": job_id})
                job = await self.dependencies.providers.job(job_id)
                self.write_json(job, HTTPStatus.ACCEPTED, location=f"/api/v1/jobs/{job_id}")


async def _refresh(handler: ManagementHandler, name: str) -> ProviderModelList:
    try:
        with known_provider():
            known = await handler.dependencies.providers.refresh(name)
    except RefreshFailed as failed:
        handler.audit("provider", name, after={"code": failed.error.code})
        raise ManagementError(
            ModelError.REFRESH_FAILED,
            f"{failed.error.message} ({failed.error.code}) What was known of its models stays.",
        ) from failed
    handler.audit("provider", name, after={"models": len(known.models)})
    return _part(known, PageQuery())


def _part(known: KnownModels, query: PageQuery) -> ProviderModelList:
    page, cursor = _page([known], query)
    return ProviderModelList(
        data=tuple(model for _, model in page),
        next_cursor=cursor,
        provider=known.provider,
        seen_at=known.seen_at,
        stale=known.stale,
        refreshing=known.refreshing,
        stored=known.stored,
        error=known.error,
    )


def _state(known: KnownModels) -> ListState:
    return ListState(
        provider=known.provider,
        models=len(known.models),
        seen_at=known.seen_at,
        stale=known.stale,
        refreshing=known.refreshing,
        stored=known.stored,
        error=known.error,
    )


def _page(lists: Iterable[KnownModels], query: PageQuery) -> tuple[list[tuple[str, KnownModel]], str | None]:
    """By provider and id, those that come after the cursor, which names the last one of the page before: lists may change
    meanwhile. Looks at no more than it must: there may be very many."""
    after = ("", "") if query.cursor is None else _read_cursor(query.cursor)
    found: list[tuple[str, KnownModel]] = []
    for known in sorted(lists, key=lambda each: each.provider):
        provider, models = known.provider, known.models
        if provider < after[0]:
            continue
        begin = bisect_right(models, after[1], key=lambda each: each.id) if provider == after[0] else 0
        found += [(provider, model) for model in models[begin : begin + query.limit + 1 - len(found)]]
        if len(found) > query.limit:
            last_provider, last = found[query.limit - 1]
            return found[: query.limit], encode_cursor(last_provider, last.id)
    return found, None


def _read_cursor(cursor: str) -> tuple[str, str]:
    try:
        return decode_cursor(cursor, tuple[str, str])
    except BadCursor as error:
        raise bad_cursor() from error
