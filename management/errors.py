"""Errors of the management API: ``<domain>_error-<variant>``, one enum a domain, prefixes unique.

Every error answers ``{"error": {"message", "type", "code", "param"}}``, where ``type`` is the broad class that the
data plane uses too. A configuration that was refused adds ``faults`` to it.
"""

from enum import StrEnum

import msgspec

from config.faults import Fault, render_path


class AccessError(StrEnum):
    """Who calls, and whether they may."""

    UNAUTHENTICATED = "access_error-unauthenticated"
    FORBIDDEN = "access_error-forbidden"
    LOCKED_OUT = "access_error-locked_out"
    BUSY = "access_error-busy"


class RequestError(StrEnum):
    """The request itself."""

    UNKNOWN_PATH = "request_error-unknown_path"
    METHOD_NOT_ALLOWED = "request_error-method_not_allowed"
    BODY_TOO_LARGE = "request_error-body_too_large"
    INVALID_BODY = "request_error-invalid_body"
    MALFORMED = "request_error-malformed"


class ConfigError(StrEnum):
    """The configuration."""

    INVALID = "config_error-invalid"


class InternalError(StrEnum):
    """The gateway itself."""

    UNEXPECTED = "internal_error-unexpected"


DOMAINS: tuple[type[StrEnum], ...] = (AccessError, RequestError, ConfigError, InternalError)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class FaultBody(msgspec.Struct, frozen=True):
    """One fault of a configuration; ``line`` and ``column`` count from 1, 0 where the place is not known."""

    file: str
    line: int
    column: int
    path: str
    message: str


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The ``error`` member."""

    message: str
    type: str
    code: str
    param: str | None = None
    faults: tuple[FaultBody, ...] | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct, frozen=True):
    """The whole body of an error."""

    error: ErrorDetail


class ManagementError(Exception):
    """Ends a request with an error; ``message`` says what is wrong and how to mend it, and carries no secret."""

    def __init__(
        self,
        status: int,
        code: StrEnum,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        faults: tuple[Fault, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.faults = faults

    def body(self) -> ErrorBody:
        """What the client gets."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return ErrorBody(
            ErrorDetail(
                message=self.message,
                type=kind,
                code=self.code,
                param=self.param,
                faults=msgspec.UNSET if self.faults is None else tuple(_fault_body(fault) for fault in self.faults),
            )
        )


def _fault_body(fault: Fault) -> FaultBody:
    return FaultBody(fault.file, fault.line, fault.column, render_path(fault.path), fault.message)
