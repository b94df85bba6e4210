"""Which header fields cross the gateway, in each direction."""

import re
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import quote

from access.quotas.headers import rate_limit_headers
from config.schema import TokenPlacement
from core.headers import Headers
from core.remembered import Remembered
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
    # Some front ends send back what they were sent: our credential is nobody else's business.
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
}
# Rate limits of our account at the provider, and what its content network adds.
_ANSWER_DROPPED_PREFIXES = ("x-ratelimit-", "x-sluice-", "access-control-", "cf-")
# RFC 9110 section 5.5. Clients of HTTP let more pass than servers of it may send.
_FIELD_VALUE = re.compile(r"(?![\t ])[\t\x20-\x7e\x80-\xff]*(?<![\t ])\Z")


SHORTEST_SECRET = 10
"""Shorter values of ours, such as `identity`, are words that an answer may well hold."""

_IDENTITY = ("accept-encoding", "identity")


_NONE: frozenset[str] = frozenset()


def _passes(name: str, dropped: frozenset[str], prefixes: tuple[str, ...]) -> bool:
    return name not in dropped and not name.startswith(prefixes)


# Whether a field of a name crosses the gateway.
_REQUEST_PASSES = Remembered(lambda name: _passes(name, _REQUEST_DROPPED, _REQUEST_DROPPED_PREFIXES))
_ANSWER_PASSES = Remembered(lambda name: _passes(name, _ANSWER_DROPPED, _ANSWER_DROPPED_PREFIXES))


def _may_be_sent(value: str) -> bool:
    # The first two say it of nearly every value; what they do not tell, the pattern does.
    if value.isascii() and value.isprintable() and value[:1] != " " and value[-1:] != " ":
        return True
    return _FIELD_VALUE.match(value) is not None


def _named_by_connection(headers: Headers) -> frozenset[str]:
    """The fields that ``Connection`` declares hop-by-hop (RFC 9110 section 7.6.1)."""
    if "connection" not in headers:
        return _NONE
    named = headers.get_all("connection")
    return frozenset(option.strip().lower() for value in named for option in value.split(","))


def forwarded_request_headers(headers: Headers, *, reads_answer: bool, body_changed_coding: bool) -> Headers:
    """The client's fields that go on to a provider.

    With ``reads_answer`` ``identity`` is asked for whatever the client accepts: a compressed stream can be neither read in
    passing nor given an error event. With ``body_changed_coding`` the body was decompressed here, so its
    ``content-encoding`` no longer holds.
    """
    passes = _REQUEST_PASSES
    fields = [field for field in headers if passes[field[0]]]
    drop = set(_named_by_connection(headers))
    encoded = "accept-encoding" in headers
    if reads_answer and encoded:
        drop.add("accept-encoding")
    if body_changed_coding:
        drop.add("content-encoding")
    if drop:
        fields = [field for field in fields if field[0] not in drop]
    if reads_answer or not encoded:
        # Without the field any coding would be welcome (RFC 9110 section 12.5.3), and the answer may be looked at.
        fields.append(_IDENTITY)
    return Headers(fields)


# In no value: a field ends with its line.
_NO_SECRET = "\n"


def forwarded_answer_headers(
    headers: Headers, drop: Collection[str] = (), secret: str | None = None
) -> list[tuple[str, str]]:
    """The provider's fields that go on to the client.

    ``drop`` names further ones that do not, such as ``content-length``; and none does whose value holds the ``secret``.
    """
    named = _named_by_connection(headers)
    secret = secret or _NO_SECRET
    return [
        field
        for field in headers
        if _ANSWER_PASSES[field[0]]
        and field[0] not in named
        and field[0] not in drop
        and secret not in field[1]
        and _may_be_sent(field[1])
    ]


def sent_secret(headers: Headers, placement: TokenPlacement | None = None) -> str | None:
    """The credential in the fields that a provider was sent, where ``placement`` has it; None where there is none, or it
    may well be a word."""
    field = "authorization" if placement is None else placement.header.lower()
    text = (headers.get(field) or "").rpartition(" ")[2]
    return text if len(text) >= SHORTEST_SECRET else None


@lru_cache(maxsize=1024)
def _shown_target(provider: str, model: str | None) -> str:
    target = provider if model is None else f"{provider}/{model}"
    # A model's name may be the client's own text: no byte of it may end the field.
    return quote(target, safe="/:@+,!~*'()")


def gateway_headers(record: Record, now: float) -> list[tuple[str, str]]:
    """The gateway's own fields of an answer that begins at ``now``."""
    headers = [("x-request-id", record.exchange.request_id), ("x-sluice-revision", record.revision)]
    if record.provider is not None:
        headers.append(("x-sluice-target", _shown_target(record.provider, record.model)))
        headers.append(("x-sluice-attempts", str(record.attempts)))
    if record.lease is not None:
        headers += rate_limit_headers(record.lease)
    headers.append(("server-timing", f"gateway;dur={record.overhead_seconds(now) * 1000:.3f}"))
    return headers
