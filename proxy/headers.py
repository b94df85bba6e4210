"""Which header fields cross the gateway, in each direction."""

import re
from collections.abc import Collection
from urllib.parse import quote

from core.headers import Headers
from proxy.record import Record

# RFC 9110 section 7.6.1 and, for those that no longer stand there, RFC 2616 section 13.5.1.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# Written anew for every hop, or about the client's way to us, which is none of the provider's business.
_REQUEST_DROPPED = HOP_BY_HOP | {
    "host",
    "content-length",
    "expect",
    "cookie",
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "forwarded",
    "via",
    "x-real-ip",
    "x-request-id",
    "origin",
    "referer",
    # Some servers take these for another path or method than the request's own.
    "x-original-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
}
_REQUEST_DROPPED_PREFIXES = ("x-forwarded-", "x-sluice-", "sec-")

_ANSWER_DROPPED = HOP_BY_HOP | {
    "set-cookie",
    "server",
    "via",
    "alt-svc",
    "strict-transport-security",
    "nel",
    "report-to",
    "x-request-id",
    "server-timing",
    "www-authenticate",
}
# Rate limits of our account at the provider, and what its content network adds.
_ANSWER_DROPPED_PREFIXES = ("x-ratelimit-", "x-sluice-", "access-control-", "cf-")
# RFC 9110 section 5.5. Clients of HTTP let more pass than servers of it may send.
_FIELD_VALUE = re.compile(r"(?![\t ])[\t\x20-\x7e\x80-\xff]*(?<![\t ])\Z")


def _named_by_connection(headers: Headers) -> frozenset[str]:
    """The fields that ``Connection`` declares hop-by-hop (RFC 9110 section 7.6.1)."""
    named = headers.get_all("connection")
    if not named:
        return frozenset()
    return frozenset(option.strip().lower() for value in named for option in value.split(","))


def forwarded_request_headers(headers: Headers, *, reads_answer: bool, body_changed_coding: bool) -> Headers:
    """The client's fields that go on to a provider.

    With ``reads_answer`` the client's ``accept-encoding`` is left out, for the adapter to ask for ``identity``:
    a compressed stream can be neither read in passing nor given an error event. With ``body_changed_coding``
    the body was decompressed here, so its ``content-encoding`` no longer holds.
    """
    named = _named_by_connection(headers)
    return Headers(
        (name, value)
        for name, value in headers
        if name not in _REQUEST_DROPPED
        and name not in named
        and not name.startswith(_REQUEST_DROPPED_PREFIXES)
        and not (reads_answer and name == "accept-encoding")
        and not (body_changed_coding and name == "content-encoding")
    )


def forwarded_answer_headers(headers: Headers, drop: Collection[str] = ()) -> list[tuple[str, str]]:
    """The provider's fields that go on to the client; ``drop`` names further ones, such as ``content-length``."""
    named = _named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if name not in _ANSWER_DROPPED
        and name not in named
        and name not in drop
        and not name.startswith(_ANSWER_DROPPED_PREFIXES)
        and _FIELD_VALUE.match(value) is not None
    ]


def gateway_headers(record: Record, now: float) -> list[tuple[str, str]]:
    """The gateway's own fields of an answer that begins at ``now``."""
    headers = [("x-request-id", record.exchange.request_id), ("x-sluice-revision", record.revision)]
    if record.provider is not None:
        target = record.provider if record.model is None else f"{record.provider}/{record.model}"
        # A model's name may be the client's own text: no byte of it may end the field.
        headers.append(("x-sluice-target", quote(target, safe="/:@+,!~*'()")))
        headers.append(("x-sluice-attempts", str(record.attempts)))
    headers.append(("server-timing", f"gateway;dur={record.overhead_seconds(now) * 1000:.3f}"))
    return headers
