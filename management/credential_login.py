"""``/api/v1/credentials/login``: accounts that sign in at a server, by a person who is sent there.

A sign-in is known by its `state`. Whoever has it can answer for the person, so it is in no log and no entry of the audit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from core.identity import Role
from credentials.errors import (
    LoginDenied,
    LoginExpired,
    LoginFailed,
    LoginFault,
    LoginImpossible,
    LoginMismatch,
    LoginUnknown,
    LoginUsed,
    TooManyLogins,
)
from management.credentials import RESOURCE, STORE_ERRORS, credential_errors
from management.errors import CredentialError, LoginError, ManagementCode, ManagementError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.login_service import LoginAnswer, LoginBegun, LoginShown, NewLogin

_CODES: dict[type[LoginFault], ManagementCode] = {
    LoginUnknown: LoginError.UNKNOWN,
    LoginUsed: LoginError.USED,
    LoginExpired: LoginError.EXPIRED,
    LoginDenied: LoginError.DENIED,
    LoginMismatch: LoginError.MISMATCH,
    LoginFailed: LoginError.FAILED,
    TooManyLogins: LoginError.TOO_MANY,
}
_IMPOSSIBLE: dict[str, ManagementCode] = {
    "provider": CredentialError.UNKNOWN_PROVIDER,
    "name": CredentialError.IN_FILE,
    "flow": LoginError.NO_SUCH_FLOW,
}
_UNKNOWN_RESOURCE = "unknown"
"""In the audit, of a sign-in that there is none of: the state that was asked for stays out of it."""


class CredentialLogin(ManagementHandler):
    """``/api/v1/credentials/login``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Begin the sign-in of an account, and tell where a person goes on with it.",
        body=NewLogin,
        answers={200: LoginBegun},
        errors=(
            RequestError.INVALID_BODY,
            CredentialError.UNKNOWN_PROVIDER,
            CredentialError.IN_FILE,
            LoginError.NO_SUCH_FLOW,
            LoginError.TOO_MANY,
            LoginError.FAILED,
            *STORE_ERRORS,
        ),
        audit="login.begin",
    )
    async def post(self) -> None:
        new = self.read_body(NewLogin)
        self.audit(RESOURCE, f"{new.provider}/{new.name or ''}")
        with login_errors():
            begun = await self.dependencies.logins.begin(new)
        self.audit(RESOURCE, f"{begun.provider}/{begun.name}", after={"flow": begun.flow})
        self.write_json(begun)


class CredentialLoginAnswer(ManagementHandler):
    """``/api/v1/credentials/login/complete``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Complete a sign-in with the address that the person's browser was sent to.",
        body=LoginAnswer,
        answers={200: LoginShown},
        errors=(
            RequestError.INVALID_BODY,
            LoginError.UNKNOWN,
            LoginError.USED,
            LoginError.EXPIRED,
            LoginError.DENIED,
            LoginError.MISMATCH,
            LoginError.FAILED,
            CredentialError.NAME_TAKEN,
            CredentialError.DAMAGED,
            *STORE_ERRORS,
        ),
        audit="login.complete",
    )
    async def post(self) -> None:
        answer = self.read_body(LoginAnswer)
        self.audit(RESOURCE, _UNKNOWN_RESOURCE)
        with login_errors():
            shown = await self.dependencies.logins.complete(answer.redirect_url)
        self.audit(RESOURCE, f"{shown.provider}/{shown.name}", after=shown)
        self.write_json(shown)


class CredentialLoginItem(ManagementHandler):
    """``/api/v1/credentials/login/{state}``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Tell how a sign-in stands.",
        answers={200: LoginShown},
        errors=(LoginError.UNKNOWN, *STORE_ERRORS),
    )
    async def get(self, state: str) -> None:
        with login_errors():
            self.write_json(await self.dependencies.logins.status(state))

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Cancel a sign-in that is under way.",
        answers={200: LoginShown},
        errors=(LoginError.UNKNOWN, LoginError.USED, *STORE_ERRORS),
        audit="login.cancel",
    )
    async def delete(self, state: str) -> None:
        self.audit(RESOURCE, _UNKNOWN_RESOURCE)
        with login_errors():
            shown = await self.dependencies.logins.cancel(state)
        self.audit(RESOURCE, f"{shown.provider}/{shown.name}", after=shown)
        self.write_json(shown)


@contextmanager
def login_errors() -> Iterator[None]:
    """What a service of sign-ins ends with, as answers.

    Raises:
        ManagementError: instead.
    """
    try:
        with credential_errors():
            yield
    except LoginFault as fault:
        code = _IMPOSSIBLE[fault.what] if isinstance(fault, LoginImpossible) else _CODES[type(fault)]
        raise ManagementError(
            code,
            str(fault),
            param=fault.what if isinstance(fault, LoginImpossible) else None,
            retry_after_seconds=fault.retry_after_seconds if isinstance(fault, TooManyLogins) else None,
        ) from fault
