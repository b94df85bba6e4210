"""Lists in pages, as every list of the database is read."""

from typing import Annotated

import msgspec
from msgspec import Meta

from management.errors import ManagementError, RequestError

Cursor = Annotated[str, Meta(max_length=2048, description="`next_cursor` of the page before")]
Limit = Annotated[int, Meta(ge=1, le=1000, description="entries of a page")]


class PageQuery(msgspec.Struct, frozen=True):
    """Which page."""

    cursor: Cursor | None = None
    limit: Limit = 100


def bad_cursor() -> ManagementError:
    """For a cursor that the list never gave."""
    return ManagementError(
        RequestError.INVALID_QUERY, "The cursor is of no page of this list: begin without one.", param="cursor"
    )
