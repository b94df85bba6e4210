"""Times, as storage keeps them, for answers."""

from datetime import UTC, datetime

MICROSECONDS = 1_000_000
"""Of a second."""


def moment(at: int | None) -> datetime | None:
    """``at`` is in microseconds since the Unix epoch."""
    return None if at is None else datetime.fromtimestamp(at / MICROSECONDS, UTC)
