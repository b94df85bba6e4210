"""What operations on the ledger take and answer."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from core.moments import MICROSECONDS, Moment, moment
from management.handler.money import Usd
from management.handler.pages import Cursor, Limit
from storage.ledger_records import LedgerRow
from storage.usage_records import BUCKET_KEYS, KEYS, Percentiles, Usage, UsageGroup

Text = Annotated[str, Meta(max_length=500)]
From = Annotated[datetime, Meta(tz=True, description="ended at that time or later; left out: 24 h before `to`")]
To = Annotated[datetime, Meta(tz=True, description="ended before that time; left out: now")]
Status = Annotated[str, Meta(pattern="^[1-5]([0-9]{2}|xx)$", description="such as `429`, or `4xx` for all of a class")]
GroupBy = Annotated[str, Meta(max_length=500, description=f"some of {', '.join(KEYS)}; with commas between")]


class PlaceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look for one request."""

    from_: Annotated[datetime, Meta(tz=True, description="it ended at that time or later")] | None = msgspec.field(
        default=None, name="from"
    )
    to: Annotated[datetime, Meta(tz=True, description="it ended before that time")] | None = None


class LedgerQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests; what is left out does not matter."""

    from_: From | None = msgspec.field(default=None, name="from")
    to: To | None = None
    token: Annotated[str, Meta(max_length=500, description="the token's name")] | None = None
    token_id: Annotated[str, Meta(max_length=500, description="its id, where the API has made it")] | None = None
    owner: Text | None = None
    model: Annotated[str, Meta(max_length=500, description="as the provider calls it")] | None = None
    requested_model: Annotated[str, Meta(max_length=500, description="as the client called it")] | None = None
    provider: Text | None = None
    credential: Text | None = None
    endpoint: Annotated[str, Meta(max_length=500, description="such as `chat_completions`")] | None = None
    status: Status | None = None
    error_code: Annotated[str, Meta(max_length=500, description="such as `upstream_timeout`")] | None = None
    stream: bool | None = None


class RequestQuery(LedgerQuery, frozen=True, kw_only=True):
    """Which requests, and which page of them."""

    cursor: Cursor | None = None
    limit: Limit = 100


class UsageQuery(RequestQuery, frozen=True, kw_only=True):
    """Which requests, how they are grouped, and which page of groups."""

    group_by: GroupBy | None = None
    percentiles: Annotated[bool, Meta(description="false: a long time is summed up faster without them")] = True


class PercentilesShown(msgspec.Struct, frozen=True):
    """By nearest rank: of n values in their order, the one with the number ⌈p · n⌉."""

    p50: float
    p90: float
    p95: float
    p99: float


class UsageShown(msgspec.Struct, frozen=True, kw_only=True):
    """What requests have come to. Of the first members those are there that they are grouped by."""

    token: str | None | UnsetType = UNSET
    token_id: str | None | UnsetType = UNSET
    owner: str | None | UnsetType = UNSET
    model: str | None | UnsetType = UNSET
    requested_model: str | None | UnsetType = UNSET
    provider: str | None | UnsetType = UNSET
    credential: str | None | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    status: int | UnsetType = UNSET
    error_code: str | None | UnsetType = UNSET
    minute: Moment | UnsetType = UNSET
    """When it begins; so do the others."""
    hour: Moment | UnsetType = UNSET
    day: Moment | UnsetType = UNSET
    month: Moment | UnsetType = UNSET
    requests: int
    failed: int
    """Those with an `error_code`."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """A part of `input_tokens`."""
    reasoning_tokens: int
    """A part of `output_tokens`."""
    cost_usd: Usd
    """Of those whose cost is known."""
    unpriced_requests: int
    """Those that a provider has served, and whose cost is not known; 0: `cost_usd` is all."""
    estimated_requests: int
    """Those whose tokens are estimated."""
    duration_seconds: PercentilesShown | None
    ttft_seconds: PercentilesShown | None
    """Of streams: until the first byte of the answer went out."""


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """Some groups, in the order of what they are grouped by."""

    data: tuple[UsageShown, ...]
    totals: UsageShown | None
    """Of all requests that were asked for; null on pages after the first."""
    from_: Moment = msgspec.field(name="from")
    to: Moment
    next_cursor: str | None


class RequestShown(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended."""

    request_id: str
    at: Moment
    """When it ended."""
    token: str | None
    token_id: str | None
    """Null for a token of the file."""
    owner: str | None
    endpoint: str
    dialect: str
    stream: bool
    requested_model: str | None
    """As the client called it; at most 256 characters of it."""
    route: str | None
    provider: str | None
    model: str | None
    credential: str | None
    input_tokens: int | None
    """Null: nothing is known of what was used."""
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    """Whether the tokens are estimated."""
    cost_usd: Usd | None
    """Null: not known."""
    status: int
    error_code: str | None
    attempts: int
    duration_seconds: float
    ttft_seconds: float | None
    """Of a stream: until the first byte of the answer went out."""
    upstream_seconds: float | None
    overhead_seconds: float
    """The gateway's own share."""
    revision: str
    """Of the configuration that it was served by."""


class RequestList(msgspec.Struct, frozen=True, kw_only=True):
    """Some requests, newest first."""

    data: tuple[RequestShown, ...]
    from_: Moment = msgspec.field(name="from")
    to: Moment
    next_cursor: str | None


def shown_group(group_by: tuple[str, ...], group: UsageGroup) -> UsageShown:
    """As answers have it."""
    named: dict[str, Any] = {
        name: moment(value) if name in BUCKET_KEYS and isinstance(value, int) else value
        for name, value in zip(group_by, group.key, strict=True)
    }
    return shown_usage(group.usage, **named)


def shown_usage(usage: Usage, **named: Any) -> UsageShown:
    """The same without a group."""
    return UsageShown(
        **named,
        requests=usage.requests,
        failed=usage.failed,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=Usd(usage.cost_nano_usd),
        unpriced_requests=usage.unpriced,
        estimated_requests=usage.estimated,
        duration_seconds=_percentiles(usage.duration),
        ttft_seconds=_percentiles(usage.ttft),
    )


def shown_request(row: LedgerRow) -> RequestShown:
    """As answers have it."""
    return RequestShown(
        request_id=row.request_id,
        at=moment(row.at),
        token=row.token,
        token_id=row.token_id,
        owner=row.owner,
        endpoint=row.endpoint,
        dialect=row.dialect,
        stream=row.stream,
        requested_model=row.requested_model,
        route=row.route,
        provider=row.provider,
        model=row.model,
        credential=row.credential,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cached_tokens=row.cached_tokens,
        reasoning_tokens=row.reasoning_tokens,
        estimated=row.estimated,
        cost_usd=None if row.cost_nano_usd is None else Usd(row.cost_nano_usd),
        status=row.status,
        error_code=row.error_code,
        attempts=row.attempts,
        duration_seconds=row.duration_us / MICROSECONDS,
        ttft_seconds=_seconds(row.ttft_us),
        upstream_seconds=_seconds(row.upstream_us),
        overhead_seconds=row.overhead_us / MICROSECONDS,
        revision=row.revision,
    )


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / MICROSECONDS


def _percentiles(found: Percentiles | None) -> PercentilesShown | None:
    if found is None:
        return None
    return PercentilesShown(*(value / MICROSECONDS for value in msgspec.structs.astuple(found)))
