"""Where a request would go, and why."""

from core.identity import Role
from management.errors import ManagementError, RequestError, StorageError, TokenError
from management.handler.base import ManagementHandler
from management.handler.operation import operation, unaudited
from management.handler.permit import requires
from management.routing_service import Question, UnknownToken
from routing.explain import Report


class Explain(ManagementHandler):
    """``/api/v1/explain``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Tell where a request would go, and why; nothing is sent.",
        body=Question,
        answers={200: Report},
        errors=(RequestError.INVALID_BODY, TokenError.NOT_FOUND, StorageError.UNAVAILABLE),
        audit=unaudited(because="it changes nothing"),
    )
    async def post(self) -> None:
        question = self.read_body(Question)
        try:
            self.write_json(await self.dependencies.routing.explain(question))
        except UnknownToken as error:
            raise ManagementError(
                TokenError.NOT_FOUND, f"No token is named `{error.name[:64]}`: see /api/v1/tokens.", param="token"
            ) from error
