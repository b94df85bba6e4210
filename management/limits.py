"""How limits stand: those of a token, and those of the configuration."""

from access.issued import api_token
from access.issuing import may_manage
from access.tokens import FILE_PREFIX, declared_token
from core.identity import ApiToken, Role
from management.errors import LimitError, ManagementError, StorageError, TokenError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.limit_bodies import LimitList, shown_of_config, shown_of_token
from management.token_look_up import declared, not_found, stored


class Limits(ManagementHandler):
    """``/api/v1/limits``."""

    @operation(
        requires(Role.MANAGER),
        summary="List the limits of the configuration and how they stand; those of tokens are told with the tokens.",
        answers={200: LimitList},
        errors=(LimitError.UNAVAILABLE,),
    )
    async def get(self) -> None:
        found = await self.dependencies.limits.of_config()
        if found is None:
            raise _unavailable(self)
        now = self.dependencies.clock.time()
        self.write_json(LimitList(tuple(shown_of_config(listed, standing, now) for listed, standing in found)))


class TokenLimits(ManagementHandler):
    """``/api/v1/tokens/{id}/limits``."""

    @operation(
        requires(Role.POWER_USER),
        summary="Show how the limits of an API token stand; a token may ask for its own.",
        answers={200: LimitList},
        errors=(TokenError.NOT_FOUND, LimitError.UNAVAILABLE, StorageError.UNAVAILABLE),
    )
    async def get(self, token_id: str) -> None:
        token = await self._token(token_id)
        found = await self.dependencies.limits.of_token(token)
        if found is None:
            raise _unavailable(self)
        now = self.dependencies.clock.time()
        self.write_json(LimitList(tuple(shown_of_token(each, token, now) for each in found)))

    async def _token(self, token_id: str) -> ApiToken:
        caller = self.caller
        if isinstance(caller, ApiToken):
            if token_id != (caller.id or FILE_PREFIX + caller.name):
                raise not_found(token_id)
            return caller
        filed = declared(self.dependencies.tokens, token_id)
        if filed is None:
            return api_token(await stored(self, token_id))
        if not may_manage(caller, filed.owner):
            raise not_found(token_id)
        return declared_token(filed)


def _unavailable(handler: ManagementHandler) -> ManagementError:
    because = handler.dependencies.limits.not_kept_because()
    if because is not None:
        return ManagementError(LimitError.UNAVAILABLE, f"Limits cannot be kept: {because}.")
    return ManagementError(
        LimitError.UNAVAILABLE,
        "Redis, which counts what is used, does not answer: try again.",
        retry_after_seconds=1.0,
    )
