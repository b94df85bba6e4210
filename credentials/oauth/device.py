"""What a device shows while a person signs in elsewhere (RFC 8628)."""

import math
from collections.abc import Mapping

import msgspec

from core.secret import Secret
from credentials.errors import LoginFailed
from credentials.oauth.http import is_safe, shown

_MAX_URL_CHARS = 2000
_INTERVAL_SECONDS = (1.0, 5.0, 60.0)
_LIFETIME_SECONDS = (10.0, 600.0, 3600.0)
"""The least, what counts where nothing is said, the most."""


class DeviceCode(msgspec.Struct, frozen=True, kw_only=True):
    """What a device shows, and asks with (section 3.2)."""

    device_code: Secret
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in_seconds: float
    interval_seconds: float


class Pending(msgspec.Struct, frozen=True):
    """The person has not answered yet (section 3.5)."""

    slow_down: bool = False
    """Whether the interval has to grow by five seconds, for good."""


def device_code_of(whose: str, document: Mapping[str, object]) -> DeviceCode:
    """What a device authorization endpoint has answered. Raises LoginFailed: it is of no use."""
    code, user_code = document.get("device_code"), shown(document.get("user_code"))
    # Google says `verification_url`.
    address = _url(document.get("verification_uri")) or _url(document.get("verification_url"))
    if not isinstance(code, str) or not code or user_code is None or address is None:
        raise LoginFailed(
            f"{whose}: its device authorization endpoint answers without a code and an https address to enter it at: see that "
            "it is the right address."
        )
    return DeviceCode(
        device_code=Secret.literal(code, "device code"),
        user_code=user_code,
        verification_uri=address,
        verification_uri_complete=_url(document.get("verification_uri_complete")),
        expires_in_seconds=_bounded(document.get("expires_in"), _LIFETIME_SECONDS),
        interval_seconds=_bounded(document.get("interval"), _INTERVAL_SECONDS),
    )


def _url(value: object) -> str | None:
    """Shown to a person, who opens it."""
    fits = isinstance(value, str) and len(value) <= _MAX_URL_CHARS and value.isascii() and value.isprintable()
    return value if fits and isinstance(value, str) and " " not in value and is_safe(value) else None


def _bounded(value: object, bounds: tuple[float, float, float]) -> float:
    least, otherwise, most = bounds
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else otherwise
    except (ValueError, OverflowError):
        seconds = otherwise
    return otherwise if math.isnan(seconds) else min(max(seconds, least), most)
