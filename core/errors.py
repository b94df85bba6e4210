"""Every failure that a caller or an operator can meet on the request path, as one tree.

::

    GatewayError
    ├── CallerError                       the caller's fault: 4xx, never sent on, never retried
    │   ├── InvalidRequest            400 malformed body, wrong types, no model
    │   ├── ProviderRequired          400 a request without a model that names no provider
    │   ├── Unauthenticated           401 invalid_api_key
    │   ├── PermissionDenied          403 known, but not allowed
    │   │   ├── ModelNotAllowed           the token's `models` do not name the model
    │   │   ├── EndpointNotAllowed        the token's `endpoints` or scope do not open the endpoint
    │   │   └── AddressNotAllowed         the token's `ip_ranges` do not hold the caller's address
    │   ├── ModelNotFound             404 model_not_found
    │   ├── UnknownPath               404 nothing is served there
    │   ├── MethodNotAllowed          405
    │   ├── BodyTimeout               408 the caller stopped sending
    │   ├── BodyTooLarge              413 the body, as sent or decompressed, is over its limit
    │   ├── UnsupportedMediaType      415
    │   ├── UpgradeRefused            426 the path speaks plain HTTP only
    │   └── TooManyFailures           429 lock-out after failed admin-key tries
    ├── UpstreamError                     a provider or the way to it failed
    │   ├── ConnectFailed             502 no connection; nothing was delivered
    │   ├── ConnectTimeout            504 the same, by the clock
    │   ├── PrivateAddressRefused     502 the provider's `allow_private` forbids the address
    │   ├── UpstreamTimeout           504 connected, but no (further) byte in time
    │   ├── UpstreamCut               502 the answer ended before it was complete
    │   ├── UpstreamMalformed         502 the answer is not what the wire format allows
    │   ├── UpstreamErrorEvent        502 an error event stood where the first output belongs
    │   ├── CredentialNotReady        502 no valid token can be had for *our* credential; nothing was sent
    │   ├── TargetLimited             429 a limit of ours holds the target back; nothing was sent
    │   │   └── CredentialLimited         the same of the credential alone
    │   └── UpstreamAnswered              an HTTP answer with an error status
    │       ├── UpstreamRejected          400, 404, 422 …: the request itself is at fault
    │       │   ├── ContextExceeded       too long for the model
    │       │   └── ContentRefused        the provider's content policy
    │       ├── CredentialsRejected   502 the provider answered 401 or 403 to *our* credential
    │       ├── UpstreamRateLimited   429
    │       └── UpstreamUnavailable       408, 409, 425, 5xx
    ├── NoTargetAvailable             503 no target has a credential that can be used
    │   └── TargetsRateLimited        429 each until a time that its provider named
    ├── LimitExceeded                 429 a limit of the caller's, or of what it asks for, is used up
    ├── QuotasUnavailable             503 nobody can tell how much of a limit is left
    ├── Draining                      503 the gateway is shutting down
    ├── TokensNotLoaded               503 the database of API tokens has not answered since the start
    ├── AdminKeyBusy                  503 too many admin keys wait for their check
    └── InternalError                 500 a fault of the gateway itself

Each class states the client's status, the wire code, the retry scope, whether it cools its target down,
and whether the request may have been delivered. How an error is worded on the wire is the dialect's matter.
"""

from enum import Enum
from typing import ClassVar

from core.headers import Headers


class RetryScope(Enum):
    """Where another attempt may go."""

    NEVER = "never"
    SAME_TARGET = "same_target"
    OTHER_CREDENTIAL = "other_credential"
    OTHER_TARGET = "other_target"


class Delivered(Enum):
    """Whether the provider may have begun to work on (and to bill) the request."""

    NO = "no"
    MAYBE = "maybe"


class GatewayError(Exception):
    """Base of the tree. ``message`` is fit for the caller: no secret, no address of ours."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    # The field's broad classes of errors (OpenAI's ``type``); each dialect maps them to its own.
    kind: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    @property
    def client_status(self) -> int:
        """The status that the client gets."""
        return self.status

    @property
    def client_code(self) -> str:
        """The wire code that the client gets."""
        return self.code


class CallerError(GatewayError):
    """The caller's fault."""

    status = 400
    code = "invalid_request"
    kind = "invalid_request_error"


class InvalidRequest(CallerError):
    """The request cannot be understood; ``code`` says in which way."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message, param=param)
        self._code = code

    @property
    def client_code(self) -> str:
        return self._code


class ProviderRequired(CallerError):
    """A request without a model must say which provider it is for."""

    code = "provider_required"


class Unauthenticated(CallerError):
    """No credentials, or none that is known."""

    status = 401
    code = "invalid_api_key"


class PermissionDenied(CallerError):
    """Known, but not allowed."""

    status = 403
    code = "permission_denied"


class ModelNotAllowed(PermissionDenied):
    """The token's `models` do not match the name that the client asked for."""

    code = "model_not_allowed"


class EndpointNotAllowed(PermissionDenied):
    """The token's `endpoints`, or its scope, do not open the endpoint."""

    code = "endpoint_not_allowed"


class AddressNotAllowed(PermissionDenied):
    """The token's `ip_ranges` do not hold the address that it is used from."""

    code = "address_not_allowed"


class ModelNotFound(CallerError):
    """No alias, route or provider serves the model for this caller."""

    status = 404
    code = "model_not_found"


class UnknownPath(CallerError):
    """Nothing is served at this path."""

    status = 404
    code = "unknown_url"


class MethodNotAllowed(CallerError):
    """The path exists, the method does not; ``allowed`` goes into ``Allow`` (RFC 9110 section 15.5.6)."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class BodyTimeout(CallerError):
    """The caller stopped sending its body."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(CallerError):
    """The body is over `server.max_body_bytes`, as sent or after decompression."""

    status = 413
    code = "request_too_large"


class UnsupportedMediaType(CallerError):
    """The content type or content coding is not one that the path takes."""

    status = 415
    code = "unsupported_media_type"


class UpgradeRefused(CallerError):
    """An upgrade was asked for where only plain HTTP is spoken."""

    status = 426
    code = "upgrade_required"


class TooManyFailures(CallerError):
    """Locked out for a while after failed tries with the admin key."""

    status = 429
    code = "too_many_failed_attempts"
    kind = "rate_limit_error"


class UpstreamError(GatewayError):
    """A provider, or the way to it, failed in an attempt."""

    status = 502
    code = "upstream_error"
    retry: ClassVar[RetryScope] = RetryScope.SAME_TARGET
    cools_down: ClassVar[bool] = True
    delivery: ClassVar[Delivered] = Delivered.MAYBE
    # Which list of `fallbacks: {error, context, content}` is for it.
    fallback: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        delivered: Delivered | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """``delivered``: where more is known of this failure than its class says."""
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.delivered = delivered if delivered is not None else self.delivery


class ConnectFailed(UpstreamError):
    """No connection could be made (name, route, refusal, TLS)."""

    delivery = Delivered.NO
    code = "upstream_unreachable"


class ConnectTimeout(UpstreamError):
    """No connection within `connect_seconds`."""

    status = 504
    delivery = Delivered.NO
    code = "upstream_timeout"


class PrivateAddressRefused(UpstreamError):
    """The provider, or its proxy, is in a private network, where `allow_private: false` forbids it to be."""

    retry = RetryScope.OTHER_TARGET
    delivery = Delivered.NO
    code = "upstream_address_refused"


class UpstreamTimeout(UpstreamError):
    """The provider was silent for longer than a timeout allows."""

    status = 504
    code = "upstream_timeout"


class UpstreamCut(UpstreamError):
    """The connection ended before the answer was complete."""

    code = "upstream_disconnected"


class UpstreamMalformed(UpstreamError):
    """The answer breaks its own wire format."""

    code = "upstream_malformed"


class UpstreamErrorEvent(UpstreamError):
    """A stream began with an error event; ``event`` is that event, whole."""

    code = "upstream_error"

    def __init__(self, message: str, event: bytes) -> None:
        super().__init__(message)
        self.event = event


class CredentialNotReady(UpstreamError):
    """Our credential has no token that is valid now, or is gone meanwhile. Nothing was sent."""

    delivery = Delivered.NO
    retry = RetryScope.OTHER_CREDENTIAL
    code = "upstream_credentials_unavailable"


class TargetLimited(UpstreamError):
    """A limit of ours on the target does not allow the attempt, or nobody can tell. Nothing was sent.

    Where no other target is left the client gets :class:`LimitExceeded` or :class:`QuotasUnavailable` instead.
    """

    status = 429
    delivery = Delivered.NO
    retry = RetryScope.OTHER_TARGET
    cools_down = False
    code = "target_limited"


class CredentialLimited(TargetLimited):
    """The same of the credential alone: another may serve."""

    retry = RetryScope.OTHER_CREDENTIAL


class UpstreamAnswered(UpstreamError):
    """The provider answered with an error status; ``body`` is its answer as received."""

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int,
        headers: Headers | None = None,
        body: bytes = b"",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.upstream_status = upstream_status
        self.headers = headers if headers is not None else Headers()
        self.body = body

    @property
    def client_status(self) -> int:
        return self.upstream_status


class UpstreamRejected(UpstreamAnswered):
    """The request itself is at fault: another try would fail alike."""

    retry = RetryScope.NEVER
    cools_down = False
    code = "upstream_rejected"
    kind = "invalid_request_error"


class ContextExceeded(UpstreamRejected):
    """The prompt is too long for the model."""

    code = "context_length_exceeded"
    fallback = "context"


class ContentRefused(UpstreamRejected):
    """The provider's content policy refused the request."""

    code = "content_policy_violation"
    fallback = "content"


class CredentialsRejected(UpstreamAnswered):
    """The provider refused our credential. Never shown as the caller's own 401."""

    delivery = Delivered.NO  # refused before any work
    retry = RetryScope.OTHER_CREDENTIAL
    status = 502
    code = "upstream_credentials_rejected"

    @property
    def client_status(self) -> int:
        return self.status


class UpstreamRateLimited(UpstreamAnswered):
    """The provider limits the rate of this credential."""

    delivery = Delivered.NO  # refused before any work
    retry = RetryScope.OTHER_CREDENTIAL
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"


class UpstreamUnavailable(UpstreamAnswered):
    """The provider is in trouble or busy."""

    code = "upstream_unavailable"


class NoTargetAvailable(GatewayError):
    """No target has a credential that can be used: they need a login, or there is none for what is asked."""

    status = 503
    code = "no_target_available"


class TargetsRateLimited(NoTargetAvailable):
    """Every target is rate-limited until a time that its provider named: none is asked before."""

    status = 429
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"


class LimitExceeded(GatewayError):
    """A limit does not allow the request. Money that is spent is told apart, as the field does: waiting is no use soon."""

    status = 429
    code = "rate_limit_exceeded"
    kind = "rate_limit_error"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        spent: bool = False,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """``spent``: it is money that has come to an end. ``headers`` tell how the limits stand."""
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.spent = spent
        self.headers = headers

    @property
    def client_code(self) -> str:
        return "insufficient_quota" if self.spent else self.code


class QuotasUnavailable(GatewayError):
    """The store of the counters does not answer, and the configuration says to refuse then."""

    status = 503
    code = "quotas_unavailable"


class Draining(GatewayError):
    """The gateway is shutting down and takes no new requests."""

    status = 503
    code = "gateway_draining"


class TokensNotLoaded(GatewayError):
    """The API token is not known, but the database that may have it has not answered since the start."""

    status = 503
    code = "tokens_not_loaded"


class AdminKeyBusy(GatewayError):
    """More admin keys wait for their check than the one thread that does it will take."""

    status = 503
    code = "admin_key_check_busy"


class InternalError(GatewayError):
    """A fault of the gateway; details are in its log under the request id."""
