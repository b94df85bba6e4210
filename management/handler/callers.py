"""Who calls, or the refusal in the management API's own form."""

from collections.abc import Awaitable, Callable

from core.errors import (
    AddressNotAllowed,
    AdminKeyBusy,
    GatewayError,
    TokensNotLoaded,
    TooManyFailures,
    Unauthenticated,
)
from core.headers import Headers
from core.identity import ApiToken, AuthContext
from management.dependencies import ManagerIdentifier
from management.errors import AccessError, ManagementError


async def identified(
    identifier: ManagerIdentifier, headers: Headers, address: str, settle_events: Callable[[], Awaitable[object]]
) -> AuthContext:
    """The caller with these ``headers`` from ``address``; ``settle_events`` is of :class:`Dependencies`.

    Raises:
        ManagementError: 401, 403, 429 or 503.
    """
    try:
        return await identifier.manager(headers, address)
    except Unauthenticated as error:
        # The try may have been the last before a lock-out, which webhooks are told.
        await settle_events()
        raise ManagementError(AccessError.UNAUTHENTICATED, error.message, param=error.param) from error
    except AddressNotAllowed as error:
        raise ManagementError(AccessError.ADDRESS_NOT_ALLOWED, error.message) from error
    except (TokensNotLoaded, TooManyFailures, AdminKeyBusy) as error:
        raise ManagementError(
            _WAITS[type(error)], error.message, retry_after_seconds=error.retry_after_seconds
        ) from error


_WAITS: dict[type[GatewayError], AccessError] = {
    TokensNotLoaded: AccessError.TOKENS_NOT_LOADED,
    TooManyFailures: AccessError.LOCKED_OUT,
    AdminKeyBusy: AccessError.BUSY,
}


def described(caller: AuthContext) -> str:
    """``caller`` in a sentence."""
    return f"The token `{caller.name}` (`{caller.scope}`)" if isinstance(caller, ApiToken) else f"`{caller.name}`"
