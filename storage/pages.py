"""Lists in pages: each gives the cursor that the next begins at, which to whoever holds it is any text."""

import base64
import binascii
from typing import TypeVar

import msgspec

from storage.errors import BadCursor

T = TypeVar("T")

_MEND = "this is no cursor of this list: take `next_cursor` as the last page gave it"


def encode_cursor(*place: int | str | None) -> str:
    """Where a list goes on: after the entry with these values of what it is sorted by."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def decode_cursor(cursor: str, form: type[T]) -> T:
    """The values, as a tuple of the type ``form``.

    Raises:
        BadCursor: :func:`encode_cursor` did not make it, or for another list.
    """
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(text, type=form)
    except (UnicodeEncodeError, binascii.Error, msgspec.DecodeError):
        raise BadCursor(_MEND) from None
    if isinstance(place, tuple) and not all(map(_comparable, place)):
        raise BadCursor(_MEND)
    return place


def _comparable(value: object) -> bool:
    """Whether a database can compare it with its own: what none can hold is in none."""
    return "\0" not in value if isinstance(value, str) else not isinstance(value, int) or abs(value) < 1 << 63
