"""Which error an OpenAI-shaped answer is: by status and machine-readable code, never by wording.

The shape, of OpenAI and of those that speak its format (https://platform.openai.com/docs/guides/error-codes)::

    {"error": {"message": "…", "type": "…", "code": "context_length_exceeded" | 429 | null, "param": …}}

Some vendors leave the envelope out, put numbers into ``code``, or answer with HTML: whatever cannot be read
counts as an answer without a code.
"""

import re
from email.utils import parsedate_to_datetime

import msgspec

from core.errors import (
    ContentRefused,
    ContextExceeded,
    CredentialsRejected,
    UpstreamAnswered,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from core.headers import Headers

# `exceed_context_size_error` is llama.cpp's, in the field `type`.
CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
# `content_filter` is Azure's, `moderation_blocked` that of OpenAI's images.
CONTENT_CODES = frozenset({"content_policy_violation", "content_filter", "moderation_blocked"})

# 402 is about our account (no balance left), so another credential may do; the caller cannot mend it.
_CREDENTIAL_STATUSES = frozenset({401, 402, 403})
_BUSY_STATUSES = frozenset({408, 409, 425})
# A code is shown to the client and logged, so it must look like one.
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")


class _Error(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _Envelope(msgspec.Struct):
    error: _Error


_envelopes = msgspec.json.Decoder(_Envelope, strict=False)


def classify(status: int, headers: Headers, body: bytes) -> UpstreamAnswered:
    """The error that an answer with ``status`` >= 400 is; its message is fit for the client."""
    code, kind = _codes(body)
    named = f"{status}, {code}" if code else str(status)
    retry_after = retry_after_seconds(headers)

    def error(of: type[UpstreamAnswered], message: str) -> UpstreamAnswered:
        return of(
            f"{message} ({named}).",
            upstream_status=status,
            headers=headers,
            body=body,
            retry_after_seconds=retry_after,
        )

    if 400 <= status < 500 and not CONTEXT_CODES.isdisjoint((code, kind)):
        return error(ContextExceeded, "The request is too long for the model")
    if 400 <= status < 500 and not CONTENT_CODES.isdisjoint((code, kind)):
        return error(ContentRefused, "The provider's content policy refused the request")
    if status in _CREDENTIAL_STATUSES:
        return error(CredentialsRejected, "The provider did not accept the gateway's credential")
    if status == 429:
        # `insufficient_quota` too: the account behind another credential may have some left.
        return error(UpstreamRateLimited, "The provider limits the rate of requests")
    if status in _BUSY_STATUSES or status >= 500:
        return error(UpstreamUnavailable, "The provider could not serve the request")
    return error(UpstreamRejected, "The provider rejected the request")


def retry_after_seconds(headers: Headers) -> float | None:
    """How long the provider asks us to stay away, or None.

    ``retry-after-ms`` (OpenAI, Azure) comes first; then ``Retry-After`` in seconds or as a date (RFC 9110
    section 10.2.3). A date is measured against the answer's own ``Date``, so that neither clock matters.
    """
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and _DELTA_SECONDS.match(milliseconds.strip()):
        return float(milliseconds) / 1000
    value = (headers.get("retry-after") or "").strip()
    if _DELTA_SECONDS.match(value):
        return float(value)
    date = headers.get("date")
    if not value or date is None:
        return None
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    # Not dates; a zone out of all bounds; only one of them with a zone.
    except (ValueError, OverflowError, TypeError):
        return None


def _codes(body: bytes) -> tuple[str | None, str | None]:
    """``error.code`` and ``error.type`` of ``body``, where they are there and look like codes."""
    try:
        error = _envelopes.decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, None
    return _code(error.code), _code(error.type)


def _code(value: str | int | None) -> str | None:
    text = str(value)
    return text if value is not None and _CODE.match(text) else None
