"""The ledger for the tests of handlers: rows in memory."""

from collections.abc import AsyncGenerator
from typing import Any

from storage.errors import BadCursor
from storage.ledger_records import LedgerRow
from storage.records import Page
from storage.usage_records import LedgerFilter, Usage, UsagePage

NOTHING = Usage(0, 0, 0, 0, 0, 0, 0, 0, 0)


class UsageInMemory:
    """:class:`management.usage_service.UsageService`; what it is asked for stands in ``asked``."""

    def __init__(self) -> None:
        self.rows: list[LedgerRow] = []
        self.page = UsagePage((), NOTHING)
        self.asked: list[LedgerFilter] = []
        self.grouped: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.part = 500
        self.fails_after = 0
        """So many parts of an export, if there is a failure."""
        self.parts = 0
        """Of exports that were read."""

    async def usage(
        self, wanted: LedgerFilter, group_by: tuple[str, ...], *, cursor: str | None, limit: int, percentiles: bool
    ) -> UsagePage:
        self._ask(wanted)
        self.grouped.append({"group_by": group_by, "cursor": cursor, "limit": limit, "percentiles": percentiles})
        return self.page

    async def list(self, wanted: LedgerFilter, *, cursor: str | None, limit: int) -> Page[LedgerRow]:
        self._ask(wanted)
        if cursor is not None and not cursor.isdecimal():
            raise BadCursor("not a cursor")
        begin = int(cursor or 0)
        following = str(begin + limit) if begin + limit < len(self.rows) else None
        return Page(tuple(self.rows[begin : begin + limit]), following)

    async def get(self, request_id: str, wanted: LedgerFilter) -> LedgerRow | None:
        self._ask(wanted)
        return next((row for row in self.rows if row.request_id == request_id), None)

    async def every(self, wanted: LedgerFilter) -> AsyncGenerator[tuple[LedgerRow, ...], None]:
        self.asked.append(wanted)
        for begin in range(0, len(self.rows) or 1, self.part):
            if self.failure is not None and begin >= self.fails_after * self.part:
                raise self.failure
            self.parts += 1
            yield tuple(self.rows[begin : begin + self.part])

    def _ask(self, wanted: LedgerFilter) -> None:
        self.asked.append(wanted)
        if self.failure is not None:
            raise self.failure
