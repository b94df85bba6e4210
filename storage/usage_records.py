"""What is asked of the ledger, and what it answers, as plain values: to import them costs nothing, as none of SQL comes
with them.

Times are whole microseconds since the Unix epoch, UTC; durations are microseconds too.
"""

from typing import Final

import msgspec

COLUMN_KEYS: Final = (
    "token",
    "token_id",
    "owner",
    "model",
    "requested_model",
    "provider",
    "credential",
    "endpoint",
    "status",
    "error_code",
)
BUCKET_KEYS: Final = ("minute", "hour", "day", "month")
"""The UTC time that each begins at."""
KEYS: Final = (*COLUMN_KEYS, *BUCKET_KEYS)
"""What requests can be grouped by."""

Key = int | str | None
"""A group's value of one of :data:`KEYS`."""


class LedgerFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests: those that ended at ``since`` or later and before ``until``, and have all that is not None."""

    since: int
    until: int
    token: str | None = None
    token_id: str | None = None
    declared: bool = False
    """Only those by tokens that the file declares, which have no id."""
    owner: str | None = None
    model: str | None = None
    requested_model: str | None = None
    provider: str | None = None
    credential: str | None = None
    endpoint: str | None = None
    status: int | None = None
    status_class: int | None = None
    """The first digit."""
    error_code: str | None = None
    stream: bool | None = None


class Percentiles(msgspec.Struct, frozen=True):
    """By nearest rank: of n values in their order, the one with the number ⌈p · n⌉."""

    p50: int
    p90: int
    p95: int
    p99: int


class Usage(msgspec.Struct, frozen=True):
    """What several requests have come to."""

    requests: int
    failed: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_nano_usd: int
    """Of those whose cost is known."""
    unpriced: int
    """Those that a provider has served, and whose cost is not known."""
    estimated: int
    duration: Percentiles | None = None
    """None: not asked for, or of no request; so is ``ttft``."""
    ttft: Percentiles | None = None


class UsageGroup(msgspec.Struct, frozen=True):
    """One group: its values of what was grouped by, in that order."""

    key: tuple[Key, ...]
    usage: Usage


class UsagePage(msgspec.Struct, frozen=True):
    """Some groups, in the order of their keys, without a value first."""

    groups: tuple[UsageGroup, ...]
    total: Usage | None
    """Of all that was asked for; on the first page alone."""
    next_cursor: str | None = None
