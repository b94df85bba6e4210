"""When to come back, as a server says it."""

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds from ``now`` (of the Unix epoch) that `Retry-After` says: a number or a date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Not int() of any number of digits: Python refuses thousands of them.
        return float(value[:12])
    date = _date(value)
    return None if date is None else max(0.0, date.timestamp() - now)


def retry_after_date(value: str | None) -> str | None:
    """`Retry-After` as the date that it is, in the one form that is sent (RFC 9110 section 5.6.7); None where it is none."""
    date = None if value is None else _date(value.strip())
    if date is None:
        return None
    try:
        return format_datetime(date.astimezone(UTC), usegmt=True)
    except OverflowError:  # in UTC it is before the first year, or after the last
        return None


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # not a date; one whose zone is out of all bounds
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
