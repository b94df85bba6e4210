"""Targets and credentials that are out of rotation for a while."""

from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta

from core.identity import Role
from management.errors import ManagementError, ProviderError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.routing_service import Cleared, CooldownShown

Named = Annotated[str, Meta(min_length=1, max_length=256)]


class CooldownList(msgspec.Struct, frozen=True):
    """All of the worker that answers, the longest last."""

    data: tuple[CooldownShown, ...]
    next_cursor: None = None


class CooldownQuery(msgspec.Struct, frozen=True):
    """Which to clear: all of a provider, one of its targets, or one of its credentials."""

    provider: Named
    model: Named | None = None
    credential: Named | None = None


class Cooldowns(ManagementHandler):
    """``/api/v1/cooldowns``."""

    @operation(
        requires(Role.ADMIN),
        summary="List what is out of rotation on the worker that answers.",
        answers={200: CooldownList},
    )
    async def get(self) -> None:
        self.write_json(CooldownList(self.dependencies.routing.cooldowns()))

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Take targets and credentials of a provider back into the rotation, on all workers.",
        query=CooldownQuery,
        answers={200: Cleared, 202: Cleared},
        errors=(RequestError.INVALID_QUERY, ProviderError.NOT_FOUND),
        audit="cooldown.clear",
    )
    async def delete(self) -> None:
        query = self.read_query(CooldownQuery)
        if query.model is not None and query.credential is not None:
            raise ManagementError(
                RequestError.INVALID_QUERY,
                "A cooldown is of a target or of a credential: name `model` or `credential`.",
                param="credential",
            )
        known = {provider.name for provider in self.dependencies.health().providers}
        if query.provider not in known:
            raise ManagementError(
                ProviderError.NOT_FOUND, f"There is no provider `{query.provider[:64]}`.", param="provider"
            )
        self.audit("cooldown", query.provider)
        cleared = await self.dependencies.routing.clear_cooldowns(query.provider, query.model, query.credential)
        self.audit("cooldown", query.provider, before=cleared.cleared, after=query)
        self.write_json(cleared, HTTPStatus.OK if cleared.everywhere else HTTPStatus.ACCEPTED)
