"""An error as an answer. Pure."""

import math

import msgspec

from core.errors import (
    CredentialsRejected,
    GatewayError,
    LimitExceeded,
    MethodNotAllowed,
    Unauthenticated,
    UpgradeRefused,
    UpstreamAnswered,
)
from core.retry_after import retry_after_date
from proxy.dialects.base import Dialect

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Refusal(msgspec.Struct, frozen=True):
    """What the client gets instead of what it asked for."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def refusal_of(error: GatewayError, dialect: Dialect) -> Refusal:
    """``error`` in the caller's dialect, or the provider's own words where they explain it best."""
    headers = [("content-type", "application/json")]
    if error.retry_after_seconds is not None:
        # RFC 9110 section 10.2.3: whole seconds; to ask a little later is safe, earlier is not.
        headers.append(("retry-after", str(math.ceil(error.retry_after_seconds))))
    elif isinstance(error, UpstreamAnswered) and (date := retry_after_date(error.headers.get("retry-after"))):
        # The provider named a time without saying (`Date`) what time it has: the client can read it as well as we.
        headers.append(("retry-after", date))
    match error:
        case MethodNotAllowed():
            headers.append(("allow", ", ".join(error.allowed)))
        case Unauthenticated():
            headers.append(("www-authenticate", "Bearer"))
        case LimitExceeded():
            headers += error.headers
        case UpgradeRefused():
            # RFC 9110 section 15.5.22: it must say what is spoken.
            headers.append(("upgrade", "HTTP/1.1"))
    body = relayed_body(error) or dialect.error_body(error)
    return Refusal(error.client_status, tuple(headers), body)


def relayed_body(error: GatewayError) -> bytes | None:
    """The provider's own error answer where it explains the failure to the client.

    It does when it is a whole JSON object (no more than a part may have come), and not about our credential.
    """
    if not isinstance(error, UpstreamAnswered) or isinstance(error, CredentialsRejected):
        return None
    essence = (error.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if essence != "application/json":
        return None
    try:
        _OBJECT.decode(error.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return error.body
