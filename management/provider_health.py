"""Whether a provider serves: what is known, and a probe."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from core.identity import Role
from management.errors import ManagementError, ProviderError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.provider_service import ProbeResult, ProviderHealth, UnknownProvider


class TestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a test; without one the provider is asked for its models, which costs nothing."""

    __test__ = False  # pytest takes it for a test

    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """Asked for a few tokens."""


@contextmanager
def known_provider() -> Iterator[None]:
    """A name that the configuration in force does not have is answered 404."""
    try:
        yield
    except UnknownProvider as error:
        raise ManagementError(
            ProviderError.NOT_FOUND, f"No provider is named `{error.name[:128]}`: see `GET /api/v1/providers`."
        ) from error


class ProviderHealthReport(ManagementHandler):
    """``/api/v1/providers/{name}/health``."""

    @operation(
        requires(Role.POWER_USER),
        summary="Whether a provider serves, as far as is known; it is not asked.",
        answers={200: ProviderHealth},
        errors=(ProviderError.NOT_FOUND,),
    )
    async def get(self, name: str) -> None:
        with known_provider():
            self.write_json(self.dependencies.providers.health(name))


class ProviderTest(ManagementHandler):
    """``/api/v1/providers/{name}/test``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Ask a provider now, at its own address and with its own credential; tell what came of it.",
        body=TestRequest,
        body_required=False,
        answers={200: ProbeResult},
        errors=(RequestError.INVALID_BODY, ProviderError.NOT_FOUND),
        audit="provider.test",
    )
    async def post(self, name: str) -> None:
        asked = self.read_body_or(TestRequest, TestRequest())
        with known_provider():
            result = await self.dependencies.providers.test(name, asked.model)
        code = None if result.error is None else result.error.code
        self.audit("provider", name, after={"model": asked.model, "ok": result.ok, "code": code})
        self.write_json(result)
