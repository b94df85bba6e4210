"""What handlers ask of the ledger. `gateway/usage_service.py` answers."""

from collections.abc import AsyncGenerator
from typing import Protocol

from storage.ledger_records import LedgerRow
from storage.records import Page
from storage.usage_records import LedgerFilter, UsagePage


class UsageBusy(Exception):
    """So many ask already that this one has to come again."""


class UsageService(Protocol):
    """The ledger, to be read. What has just ended may be written in a moment only.

    Every method may raise :class:`storage.errors.StorageUnavailable`, :class:`storage.errors.QueryTooLarge` and
    :class:`UsageBusy`. A cursor that none of its pages has given raises :class:`storage.errors.BadCursor`.
    """

    async def usage(
        self, wanted: LedgerFilter, group_by: tuple[str, ...], *, cursor: str | None, limit: int, percentiles: bool
    ) -> UsagePage:
        """Sums by group, as :meth:`storage.ledger_queries.LedgerQueries.usage` has them."""
        ...

    async def list(self, wanted: LedgerFilter, *, cursor: str | None, limit: int) -> Page[LedgerRow]:
        """Requests, newest first."""
        ...

    async def get(self, request_id: str, wanted: LedgerFilter) -> LedgerRow | None:
        """One of those that are wanted."""
        ...

    def every(self, wanted: LedgerFilter) -> AsyncGenerator[tuple[LedgerRow, ...], None]:
        """All of them in parts, oldest first, each read when it is asked for. To be closed (`aclosing`)."""
        ...
