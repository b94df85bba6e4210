"""What the ledger of requests keeps, as plain values: to import them costs nothing, as none of SQL comes with them.

Times are whole microseconds since the Unix epoch, UTC; durations are microseconds too.
"""

import msgspec

MAX_TEXT_CHARACTERS = 256
"""Texts of a client's choosing are cut after this many characters."""


class LedgerRow(msgspec.Struct, frozen=True, gc=False):
    """A request that has ended. The fields are in the order of the table's columns."""

    request_id: str
    at: int
    """When it ended."""
    token: str | None
    token_id: str | None
    owner: str | None
    endpoint: str
    dialect: str
    stream: bool
    requested_model: str | None
    """As the client spelled it; see :data:`MAX_TEXT_CHARACTERS`."""
    route: str | None
    provider: str | None
    model: str | None
    """As the last target had it; it may be of the client's choosing too."""
    credential: str | None
    input_tokens: int | None
    """None, as the three below: nothing is known of what was used, nor estimated."""
    output_tokens: int | None
    cached_tokens: int | None
    """Part of ``input_tokens``."""
    reasoning_tokens: int | None
    """Part of ``output_tokens``."""
    estimated: bool
    cost_nano_usd: int | None
    """In 10⁻⁹ US dollars; None: nothing was used that has a known price."""
    status: int
    error_code: str | None
    attempts: int
    duration_us: int
    ttft_us: int | None
    upstream_us: int | None
    overhead_us: int
    revision: str
    """Of the configuration that it was served by."""
