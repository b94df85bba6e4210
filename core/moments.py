"""Times between the forms that they have: seconds and microseconds since the Unix epoch, and datetimes in UTC."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, overload

from msgspec import Meta

MICROSECONDS = 1_000_000
"""Of a second; storage keeps times and durations in them."""
Moment = Annotated[datetime, Meta(tz=True)]
"""As it is decoded and encoded: RFC 3339 with a zone."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)


@overload
def moment(at: int) -> datetime: ...
@overload
def moment(at: int | None) -> datetime | None: ...
def moment(at: int | None) -> datetime | None:
    """``at`` is in microseconds since the Unix epoch. What no date can tell is the last one that there is, or the first: a
    zone can put the end of 9999 beyond it, and whatever is kept must not keep a list from being shown."""
    if at is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=at)
    except OverflowError:
        return _LAST if at > 0 else _FIRST


@overload
def moment_of(seconds: float) -> datetime: ...
@overload
def moment_of(seconds: float | None) -> datetime | None: ...
def moment_of(seconds: float | None) -> datetime | None:
    """``seconds`` are since the Unix epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@overload
def microseconds(at: datetime) -> int: ...
@overload
def microseconds(at: datetime | None) -> int | None: ...
def microseconds(at: datetime | None) -> int | None:
    """Since the Unix epoch; ``at`` knows its zone."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)
