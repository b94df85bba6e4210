"""Errors of the management API: ``<domain>_error-<variant>``, one enum a domain, prefixes unique.

Every error answers ``{"error": {"message", "type", "code", "param"}}``, where ``type`` is the broad class that the
data plane uses too. A configuration that was refused adds ``faults`` to it.
"""

from enum import StrEnum
from http import HTTPStatus
from typing import Self

import msgspec

from config.faults import Fault, render_path


class ManagementCode(StrEnum):
    """Base of the domains. A member is written as its code and its status, and equals the code's text."""

    status: int

    def __new__(cls, code: str, status: int) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = int(status)
        return member


class AccessError(ManagementCode):
    """Who calls, and whether they may."""

    UNAUTHENTICATED = "access_error-unauthenticated", HTTPStatus.UNAUTHORIZED
    FORBIDDEN = "access_error-forbidden", HTTPStatus.FORBIDDEN
    LOCKED_OUT = "access_error-locked_out", HTTPStatus.TOO_MANY_REQUESTS
    BUSY = "access_error-busy", HTTPStatus.SERVICE_UNAVAILABLE
    ADDRESS_NOT_ALLOWED = "access_error-address_not_allowed", HTTPStatus.FORBIDDEN
    TOKENS_NOT_LOADED = "access_error-tokens_not_loaded", HTTPStatus.SERVICE_UNAVAILABLE


class RequestError(ManagementCode):
    """The request itself."""

    UNKNOWN_PATH = "request_error-unknown_path", HTTPStatus.NOT_FOUND
    METHOD_NOT_ALLOWED = "request_error-method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED
    BODY_TOO_LARGE = "request_error-body_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    INVALID_BODY = "request_error-invalid_body", HTTPStatus.BAD_REQUEST
    INVALID_QUERY = "request_error-invalid_query", HTTPStatus.BAD_REQUEST
    INVALID_IF_MATCH = "request_error-invalid_if_match", HTTPStatus.BAD_REQUEST
    IF_MATCH_REQUIRED = "request_error-if_match_required", HTTPStatus.PRECONDITION_REQUIRED
    UNSUPPORTED_MEDIA_TYPE = "request_error-unsupported_media_type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    UNKNOWN_HOST = "request_error-unknown_host", HTTPStatus.MISDIRECTED_REQUEST
    FOREIGN_ORIGIN = "request_error-foreign_origin", HTTPStatus.FORBIDDEN
    MALFORMED = "request_error-malformed", HTTPStatus.BAD_REQUEST


class ConfigError(ManagementCode):
    """The configuration."""

    INVALID = "config_error-invalid", HTTPStatus.UNPROCESSABLE_ENTITY
    REFERENCE_NOT_ALLOWED = "config_error-reference_not_allowed", HTTPStatus.UNPROCESSABLE_ENTITY
    FILE_ONLY = "config_error-file_only", HTTPStatus.UNPROCESSABLE_ENTITY
    SECRET_REQUIRED = "config_error-secret_required", HTTPStatus.UNPROCESSABLE_ENTITY
    NOTHING_TO_KEEP = "config_error-nothing_to_keep", HTTPStatus.UNPROCESSABLE_ENTITY
    CANNOT_SEAL = "config_error-cannot_seal", HTTPStatus.SERVICE_UNAVAILABLE
    STALE = "config_error-stale", HTTPStatus.PRECONDITION_FAILED
    ENTRY_MISSING = "config_error-entry_missing", HTTPStatus.NOT_FOUND
    ENTRY_EXISTS = "config_error-entry_exists", HTTPStatus.CONFLICT
    UNREADABLE = "config_error-unreadable", HTTPStatus.CONFLICT
    EDIT_REFUSED = "config_error-edit_refused", HTTPStatus.UNPROCESSABLE_ENTITY
    READ_ONLY = "config_error-read_only", HTTPStatus.CONFLICT
    BUSY = "config_error-busy", HTTPStatus.SERVICE_UNAVAILABLE
    WRITE_FAILED = "config_error-write_failed", HTTPStatus.INTERNAL_SERVER_ERROR
    CONFIRMATION_PENDING = "config_error-confirmation_pending", HTTPStatus.CONFLICT
    NOTHING_PENDING = "config_error-nothing_pending", HTTPStatus.CONFLICT
    REVISION_MISSING = "config_error-revision_missing", HTTPStatus.NOT_FOUND


class ProviderError(ManagementCode):
    """The providers of the configuration."""

    SECRET_REQUIRED = "provider_error-secret_required", HTTPStatus.UNPROCESSABLE_ENTITY
    COMMAND_IN_FILE_ONLY = "provider_error-command_in_file_only", HTTPStatus.FORBIDDEN
    NOT_FOUND = "provider_error-not_found", HTTPStatus.NOT_FOUND


class CredentialError(ManagementCode):
    """Credentials of providers."""

    NOT_FOUND = "credential_error-not_found", HTTPStatus.NOT_FOUND
    UNKNOWN_PROVIDER = "credential_error-unknown_provider", HTTPStatus.UNPROCESSABLE_ENTITY
    IN_FILE = "credential_error-in_file", HTTPStatus.CONFLICT
    NAME_TAKEN = "credential_error-name_taken", HTTPStatus.CONFLICT
    STALE = "credential_error-stale", HTTPStatus.PRECONDITION_FAILED
    ELSEWHERE = "credential_error-elsewhere", HTTPStatus.UNPROCESSABLE_ENTITY
    NOTHING_SEALED = "credential_error-nothing_sealed", HTTPStatus.CONFLICT
    DAMAGED = "credential_error-damaged", HTTPStatus.CONFLICT
    IMPORT_DAMAGED = "credential_error-import_damaged", HTTPStatus.UNPROCESSABLE_ENTITY
    WRONG_KEY = "credential_error-wrong_key", HTTPStatus.UNPROCESSABLE_ENTITY
    CANNOT_REFRESH = "credential_error-cannot_refresh", HTTPStatus.CONFLICT
    NEEDS_LOGIN = "credential_error-needs_login", HTTPStatus.CONFLICT
    REFUSED = "credential_error-refused", HTTPStatus.BAD_GATEWAY
    UNAVAILABLE = "credential_error-unavailable", HTTPStatus.BAD_GATEWAY
    STORE_UNAVAILABLE = "credential_error-store_unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class LoginError(ManagementCode):
    """Sign-ins of accounts."""

    UNKNOWN = "login_error-unknown", HTTPStatus.NOT_FOUND
    USED = "login_error-used", HTTPStatus.GONE
    EXPIRED = "login_error-expired", HTTPStatus.GONE
    DENIED = "login_error-denied", HTTPStatus.UNPROCESSABLE_ENTITY
    MISMATCH = "login_error-mismatch", HTTPStatus.UNPROCESSABLE_ENTITY
    FAILED = "login_error-failed", HTTPStatus.BAD_GATEWAY
    NO_SUCH_FLOW = "login_error-no_such_flow", HTTPStatus.UNPROCESSABLE_ENTITY
    TOO_MANY = "login_error-too_many", HTTPStatus.TOO_MANY_REQUESTS


class ModelError(ManagementCode):
    """The models that providers tell of."""

    REFRESH_FAILED = "model_error-refresh_failed", HTTPStatus.BAD_GATEWAY


class JobError(ManagementCode):
    """Jobs."""

    NOT_FOUND = "job_error-not_found", HTTPStatus.NOT_FOUND


class AuditError(ManagementCode):
    """The audit."""

    FULL = "audit_error-full", HTTPStatus.SERVICE_UNAVAILABLE


class StorageError(ManagementCode):
    """The database."""

    UNAVAILABLE = "storage_error-unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class TokenError(ManagementCode):
    """API tokens."""

    INVALID = "token_error-invalid", HTTPStatus.UNPROCESSABLE_ENTITY
    NOT_FOUND = "token_error-not_found", HTTPStatus.NOT_FOUND
    NAME_TAKEN = "token_error-name_taken", HTTPStatus.CONFLICT
    IN_FILE = "token_error-in_file", HTTPStatus.CONFLICT
    STALE = "token_error-stale", HTTPStatus.PRECONDITION_FAILED
    SCOPE_NOT_ALLOWED = "token_error-scope_not_allowed", HTTPStatus.FORBIDDEN
    OWNER_NOT_ALLOWED = "token_error-owner_not_allowed", HTTPStatus.FORBIDDEN
    LIMITS_NEED_REDIS = "token_error-limits_need_redis", HTTPStatus.CONFLICT


class LimitError(ManagementCode):
    """Limits."""

    UNAVAILABLE = "limit_error-unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class WebhookError(ManagementCode):
    """Webhooks and their deliveries."""

    NOT_FOUND = "webhook_error-not_found", HTTPStatus.NOT_FOUND
    DELIVERY_NOT_FOUND = "webhook_error-delivery_not_found", HTTPStatus.NOT_FOUND
    DISABLED = "webhook_error-disabled", HTTPStatus.CONFLICT
    UNDER_WAY = "webhook_error-under_way", HTTPStatus.CONFLICT


class UsageError(ManagementCode):
    """The ledger of requests."""

    NOT_FOUND = "usage_error-not_found", HTTPStatus.NOT_FOUND
    TOO_LARGE = "usage_error-too_large", HTTPStatus.UNPROCESSABLE_ENTITY
    BUSY = "usage_error-busy", HTTPStatus.SERVICE_UNAVAILABLE


class EventError(ManagementCode):
    """The stream of events."""

    TOO_MANY = "event_error-too_many", HTTPStatus.TOO_MANY_REQUESTS
    STOPPING = "event_error-stopping", HTTPStatus.SERVICE_UNAVAILABLE


class SettingsError(ManagementCode):
    """Settings."""

    UNKNOWN_KEY = "settings_error-unknown_key", HTTPStatus.NOT_FOUND
    READ_ONLY = "settings_error-read_only", HTTPStatus.CONFLICT
    MASKED = "settings_error-masked", HTTPStatus.CONFLICT


class InternalError(ManagementCode):
    """The gateway itself."""

    UNEXPECTED = "internal_error-unexpected", HTTPStatus.INTERNAL_SERVER_ERROR


DOMAINS: tuple[type[ManagementCode], ...] = (
    AccessError,
    RequestError,
    ConfigError,
    ProviderError,
    CredentialError,
    LoginError,
    ModelError,
    JobError,
    AuditError,
    StorageError,
    TokenError,
    LimitError,
    WebhookError,
    UsageError,
    EventError,
    SettingsError,
    InternalError,
)

COMMON: tuple[ManagementCode, ...] = (
    AccessError.UNAUTHENTICATED,
    AccessError.FORBIDDEN,
    AccessError.LOCKED_OUT,
    AccessError.BUSY,
    AccessError.ADDRESS_NOT_ALLOWED,
    AccessError.TOKENS_NOT_LOADED,
    RequestError.MALFORMED,
    RequestError.BODY_TOO_LARGE,
    RequestError.UNSUPPORTED_MEDIA_TYPE,
    RequestError.UNKNOWN_HOST,
    RequestError.FOREIGN_ORIGIN,
    InternalError.UNEXPECTED,
)
"""What every operation may answer that is not open."""

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
        code: ManagementCode,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        faults: tuple[Fault, ...] | None = None,
        etag: str | None = None,
    ) -> None:
        """``etag``: the revision that there is now, where the caller expected another one."""
        super().__init__(message)
        self.status = code.status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.faults = faults
        self.etag = etag

    def body(self) -> ErrorBody:
        """What the client gets."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return ErrorBody(
            ErrorDetail(
                message=self.message,
                type=kind,
                code=self.code,
                param=self.param,
                faults=msgspec.UNSET if self.faults is None else tuple(fault_body(fault) for fault in self.faults),
            )
        )


def fault_body(fault: Fault) -> FaultBody:
    """As answers tell it."""
    return FaultBody(fault.file, fault.line, fault.column, render_path(fault.path), fault.message)
