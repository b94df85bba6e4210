"""API tokens as the management API takes and shows them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from access.token_rules import MAX_OWNER_CHARACTERS, parse_time
from access.tokens import FILE_PREFIX
from config.schema import Name, Token
from core.identity import Grant, Scope
from core.moments import MICROSECONDS, Moment, microseconds, moment, moment_of
from management.handler.pages import Cursor, Limit
from management.limit_bodies import Limits, TokenLimit, entries_of, shown_limits
from storage.errors import BadCursor
from storage.pages import decode_cursor
from storage.records import StoredToken

MAX_GRACE_SECONDS = 2_592_000
SHOWN_CHARACTERS = 14
"""Of a token's text, to tell it by."""
LAST_MOMENT = 253_402_300_799_000_000
"""The last second that can be written, in microseconds."""
MAX_METADATA = 32

Models = Annotated[tuple[str, ...], Meta(max_length=256, description="globs over the names that clients ask for")]
Endpoints = Annotated[tuple[Grant, ...], Meta(max_length=16, description="groups of endpoints that it opens")]
IpRanges = Annotated[
    tuple[str, ...],
    Meta(max_length=256, description="addresses and networks that it may be used from; none: everywhere"),
]
Owner = Annotated[str, Meta(min_length=1, max_length=MAX_OWNER_CHARACTERS, description="whose it is")]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MAX_METADATA, description="notes of your own")]
MetadataPatch = Annotated[dict[MetadataKey, MetadataValue | None], Meta(max_length=64)]


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token to make. What it does not name it does not open."""

    name: Name
    scope: Scope = Scope.USER
    models: Models = ()
    endpoints: Endpoints = (Grant.INFERENCE,)
    owner: Owner | None = None
    expires_at: Moment | None = None
    """Null: never."""
    ip_ranges: IpRanges = ()
    metadata: Metadata = {}
    limits: Limits = ()


class TokenPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be changed, as a merge patch (RFC 7396): what is left out stays, lists are replaced."""

    name: Name | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    models: Models | UnsetType = UNSET
    endpoints: Endpoints | UnsetType = UNSET
    owner: Owner | None | UnsetType = UNSET
    expires_at: Moment | None | UnsetType = UNSET
    ip_ranges: IpRanges | UnsetType = UNSET
    metadata: MetadataPatch | UnsetType = UNSET
    """By key; null removes one."""
    limits: Limits | UnsetType = UNSET
    """What is used so far stays counted."""


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a token is replaced."""

    grace_seconds: Annotated[
        float,
        Meta(ge=0, le=MAX_GRACE_SECONDS, description="how long the old one lives on beside the new; 0: it is revoked"),
    ]


class TokenShown(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its text, which nobody has but its holder."""

    id: str
    name: str
    source: Literal["api", "file"]
    """Those of the file are changed there."""
    state: Literal["active", "expired", "replaced", "revoked"]
    """`replaced`: it has a successor, and counts until ``grace_until``."""
    prefix: str | None
    """The first characters of its text, to tell it by; null: the file does not know them."""
    scope: str
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    owner: str | None
    expires_at: datetime | None
    ip_ranges: tuple[str, ...]
    metadata: dict[str, Any]
    limits: tuple[TokenLimit, ...]
    created_at: datetime | None = None
    created_by: str | None = None
    rotated_from: str | None = None
    """The id of the token that it has taken the place of."""
    grace_until: datetime | None = None
    revoked_at: datetime | None = None


class TokenIssued(TokenShown, frozen=True, kw_only=True):
    """A token that was just made."""

    token: str
    """Its text: shown this once."""


class TokenList(msgspec.Struct, frozen=True):
    """Those of the API, newest first, and after them those of the file."""

    data: tuple[TokenShown, ...]
    next_cursor: str | None


class TokenQuery(msgspec.Struct, frozen=True):
    """Which of them."""

    owner: str | None = None
    include_revoked: bool = False
    cursor: Cursor | None = None
    limit: Limit = 100


def shown_token(token: StoredToken, now: float) -> TokenShown:
    """One of the database, for answers and the audit. ``now`` is in seconds since the Unix epoch."""
    at = round(now * MICROSECONDS)
    state: Literal["active", "expired", "replaced", "revoked"] = "active"
    if not token.living(at):
        state = "revoked"
    elif token.expires_at is not None and token.expires_at <= at:
        state = "expired"
    elif token.grace_until is not None:
        state = "replaced"
    return TokenShown(
        id=token.id,
        name=token.name,
        source="api",
        state=state,
        prefix=token.prefix,
        scope=token.scope,
        models=token.models,
        endpoints=token.endpoints,
        owner=token.owner,
        expires_at=moment(token.expires_at),
        ip_ranges=token.ip_ranges,
        metadata=token.metadata,
        limits=shown_limits(token.limits),
        created_at=moment(token.created_at),
        created_by=token.created_by,
        rotated_from=token.rotated_from,
        grace_until=moment(token.grace_until),
        revoked_at=moment(token.revoked_at),
    )


def declared_token(token: Token, now: float) -> TokenShown:
    """One of the file."""
    expires_at = None if token.expires_at is None else parse_time(token.expires_at)
    return TokenShown(
        id=FILE_PREFIX + token.name,
        name=token.name,
        source="file",
        state="expired" if expires_at is not None and expires_at <= now else "active",
        prefix=None,
        scope=token.scope,
        models=token.models,
        endpoints=token.endpoints,
        owner=token.owner,
        expires_at=moment_of(expires_at),
        ip_ranges=token.ip_ranges,
        metadata=dict(token.metadata),
        limits=tuple(TokenLimit(**msgspec.structs.asdict(each)) for each in token.limits),
    )


def changes(found: StoredToken, asked: TokenPatch) -> Iterator[tuple[str, Any]]:
    """What differs from ``found``, as columns."""
    for name, value in msgspec.structs.asdict(asked).items():
        if value is UNSET:
            continue
        match name:
            case "scope":
                yield name, value.value
            case "endpoints":
                yield name, tuple(each.value for each in value)
            case "expires_at":
                yield name, microseconds(value)
            case "limits":
                yield name, entries_of(value)
            case "metadata":
                merged = {**found.metadata, **value}
                yield name, {key: each for key, each in merged.items() if each is not None}
            case _:
                yield name, value


def read_cursor(cursor: str | None) -> tuple[str, str]:
    """The part of the list that a page begins in, and where in it.

    Raises:
        storage.errors.BadCursor: it is of no page.
    """
    if cursor is None:
        return "api", ""
    part, inner = decode_cursor(cursor, tuple[Literal["api", "file"], str])
    if part == "file" and not (inner.isascii() and inner.isdecimal() and len(inner) < 10):
        raise BadCursor("not a cursor of this list")
    return part, inner
