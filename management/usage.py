"""What was used: sums by whatever they are asked by, and all requests as a file."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Literal

from tornado.iostream import StreamClosedError

from core.identity import Role
from core.moments import moment
from management.errors import ManagementError, RequestError, StorageError, UsageError
from management.handler.base import ManagementHandler
from management.handler.in_thread import in_thread
from management.handler.operation import operation
from management.handler.pages import bad_cursor
from management.handler.permit import requires
from management.usage_asked import cursor_of, filter_of, keys_of, page_of
from management.usage_bodies import (
    LedgerQuery,
    UsageList,
    UsageQuery,
    shown_group,
    shown_usage,
)
from management.usage_export import CSV, JSON_LINES, csv_header, csv_lines, json_lines
from management.usage_service import UsageBusy
from storage.errors import BadCursor, QueryTooLarge, StorageUnavailable
from storage.ledger_records import LedgerRow
from transport.server import ServerConnection

_log = logging.getLogger("sluice.management")

REFUSALS = (RequestError.INVALID_QUERY, UsageError.TOO_LARGE, UsageError.BUSY, StorageError.UNAVAILABLE)
"""What all that read the ledger may answer."""
_RETRY_SECONDS = 5.0


@asynccontextmanager
async def read_ledger() -> AsyncIterator[None]:
    """The errors of :class:`management.usage_service.UsageService` as answers.

    Raises:
        ManagementError: in their place.
    """
    try:
        yield
    except BadCursor as error:
        raise bad_cursor() from error
    except QueryTooLarge as error:
        raise ManagementError(
            UsageError.TOO_LARGE,
            f"The database was asked for too much: {error}. Ask for a shorter time with `from` and `to`, or for sums with "
            "`percentiles=false`.",
        ) from error
    except UsageBusy as error:
        raise ManagementError(
            UsageError.BUSY,
            "Too many ask for usage at the same time: try again.",
            retry_after_seconds=_RETRY_SECONDS,
        ) from error


class Usage(ManagementHandler):
    """``/api/v1/usage``."""

    @operation(
        requires(Role.USER),
        summary="Sum up requests, by groups; a token sees its own.",
        query=UsageQuery,
        answers={200: UsageList},
        errors=REFUSALS,
    )
    async def get(self) -> None:
        query = self.read_query(UsageQuery)
        group_by = keys_of(query)
        wanted, cursor = page_of(query, self.caller, self.dependencies.clock.time())
        async with read_ledger():
            page = await self.dependencies.usage.usage(
                wanted, group_by, cursor=cursor, limit=query.limit, percentiles=query.percentiles
            )
        self.write_json(
            UsageList(
                data=tuple(shown_group(group_by, group) for group in page.groups),
                totals=None if page.total is None else shown_usage(page.total),
                from_=moment(wanted.since),
                to=moment(wanted.until),
                next_cursor=cursor_of(wanted, page.next_cursor),
            )
        )


class ExportQuery(LedgerQuery, frozen=True, kw_only=True):
    """Which requests, and in which form."""

    format: Literal["csv", "jsonl"] = "csv"


class UsageExport(ManagementHandler):
    """``/api/v1/usage/export``."""

    @operation(
        requires(Role.USER),
        summary="Get requests as a file, oldest first; a token sees its own.",
        query=ExportQuery,
        answers={200: (CSV, JSON_LINES)},
        errors=REFUSALS,
    )
    async def get(self) -> None:
        query = self.read_query(ExportQuery)
        wanted = filter_of(query, self.caller, self.dependencies.clock.time())
        async with aclosing(self._parts(self.dependencies.usage.every(wanted), query.format)) as parts:
            async with read_ledger():
                first, second = await anext(parts), await anext(parts, None)
            media_type = f"{CSV}; charset=utf-8; header=present" if query.format == "csv" else JSON_LINES
            self.set_header("Content-Disposition", f'attachment; filename="requests.{query.format}"')
            if second is None:
                self.write_bytes(first, media_type)
                return
            self.set_header("Content-Type", media_type)
            if self.request.method == "HEAD":
                # Without a length, which nobody knows.
                await self.flush()
            else:
                await self._send(first, second, parts)

    async def _parts(
        self, pages: AsyncGenerator[tuple[LedgerRow, ...], None], form: str
    ) -> AsyncGenerator[bytes, None]:
        header, lines = (csv_header(), csv_lines) if form == "csv" else (b"", json_lines)
        async with aclosing(pages):
            async for rows in pages:
                yield header + await in_thread(lines, rows)
                header = b""

    async def _send(self, first: bytes, second: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        """Each part when the client has taken the one before it."""
        try:
            for part in (first, second):
                await self._send_one(part)
            async for part in rest:
                await self._send_one(part)
        except StreamClosedError:
            _log.debug("the client of an export has gone (%s)", self.request_id)
        except (StorageUnavailable, QueryTooLarge, UsageBusy) as error:
            _log.warning("an export was cut, and shows it (%s): %s", self.request_id, error)
            self._cut()
        except Exception:
            _log.exception("an export was cut, and shows it (%s)", self.request_id)
            self._cut()

    async def _send_one(self, part: bytes) -> None:
        self.write(part)
        await self.flush()

    def _cut(self) -> None:
        """Close the connection without the end of the answer: a part must not be taken for the whole."""
        connection = self.request.connection
        assert isinstance(connection, ServerConnection)
        connection.cut()
