"""The ledger: a row for each request of the data plane whose caller is known.

There is none for a request without a token that we know: whoever can reach the gateway could fill the disk with them. They
are in the metrics and in the access log.

Rows are made a few at a time on the event loop, as the lines of the access log are, and written many at a time
(telemetry/ledger_writer.py). So a process that is killed loses the rows that were gathering for `usage.flush_seconds`, and
the batch that was being written, which had gathered for as long: with a database that keeps up the last 2 s. A write takes at
most :data:`telemetry.ledger_writer.PATIENCE_SECONDS`, and rows wait for one before theirs at most: then the disk is asked.
Together that is the last 3 s.

They gather for so long because each write wakes a thread that takes the interpreter from the event loop: a second instead of
a fifth takes a quarter off what the ledger costs a busy core.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

from config.schema import Usage
from core.clock import Clock
from core.events import Event, Events, RequestCompleted, RequestFailed
from storage.ledger_records import MAX_TEXT_CHARACTERS, LedgerRow
from storage.spool import Spool
from telemetry.ledger_writer import LedgerWriter, Observer, Store

NAME = "ledger"
ROWS_AT_ONCE = 16
"""So many rows are made in a row; it delays the event loop by some 20 µs."""
MOST_ROWS = 5000
"""So many gather at most, however long they might: some 2.5 MB."""
_MOST = (1 << 63) - 1


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger does, as far as this process knows."""

    status: Literal["ok", "off", "unavailable"]
    reason: str | None = None
    """One of :class:`storage.errors.Reason`."""
    since: float | None = None
    """Seconds since the Unix epoch."""
    waiting: int = 0
    """Rows that are in memory alone."""
    spooled: int = 0
    """Rows on the disk, to be written to the database."""
    lost: int = 0
    """Rows for which there was no room, since the start."""


class Ledger:
    """The ledger of one process, for its event loop. Before :meth:`start` nothing is written."""

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        clock: Clock,
        emit: Callable[[Event], object],
        observer: Observer | None = None,
    ) -> None:
        """``store`` gives what rows are written by, and is asked when there are some."""
        self._store = store
        self._clock = clock
        self._emit = emit
        self._observer = observer or Observer()
        self._writer: LedgerWriter | None = None
        self._usage = Usage()
        self._ended: list[tuple[float, RequestCompleted | RequestFailed]] = []
        self._rows: list[LedgerRow] = []
        self._flushing: asyncio.TimerHandle | None = None

    def follow(self, usage: Usage) -> None:
        """Keep to a configuration that is put in force."""
        self._usage = usage

    def start(self, events: Events, spool: Path) -> None:
        """Have a row for each request whose end ``events`` tells of. ``spool`` is a directory for what waits for the
        database; it is made when it is needed."""
        on_disk = Spool(spool, NAME, LedgerRow, self._usage.max_spool_bytes)
        self._writer = LedgerWriter(self._store, on_disk, self._clock, self._emit, self._observer)
        self._writer.start()
        events.subscribe(self.ended, RequestCompleted)
        events.subscribe(self.ended, RequestFailed)

    def ended(self, event: RequestCompleted | RequestFailed) -> None:
        """Have a row for a request that has ended now."""
        if event.token is None or not self._usage.ledger:
            return
        self._ended.append((self._clock.time(), event))
        if len(self._ended) >= ROWS_AT_ONCE:
            self._make_rows()
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(self._usage.flush_seconds, self._flush)

    def state(self) -> LedgerState:
        """Asks nothing of the database: tells how the last use of it ended."""
        writer = self._writer
        if writer is None:
            return LedgerState(status="off")
        state = LedgerState(
            status="ok" if self._usage.ledger else "off",
            waiting=writer.waiting_rows + len(self._rows) + len(self._ended),
            spooled=writer.spooled_rows,
            lost=writer.lost,
        )
        if writer.outage is not None and self._usage.ledger:
            state = msgspec.structs.replace(
                state, status="unavailable", reason=writer.outage.reason, since=writer.outage.since
            )
        return state

    async def close(self) -> None:
        """Keep the rows of all requests that have ended, and end; takes a few seconds at most."""
        if self._writer is not None:
            if self._flushing is not None:
                self._flushing.cancel()
                self._flush()
            await self._writer.close()

    def _make_rows(self) -> None:
        self._rows += [row(event, time) for time, event in self._ended]
        self._ended.clear()
        if len(self._rows) >= MOST_ROWS:
            self._put_rows()

    def _flush(self) -> None:
        self._flushing = None
        self._make_rows()
        self._put_rows()

    def _put_rows(self) -> None:
        rows, self._rows = self._rows, []
        if rows and self._writer is not None:
            self._writer.put(rows)


def row(event: RequestCompleted | RequestFailed, time: float) -> LedgerRow:
    """The row for a request that ended at ``time``."""
    usage, cost = event.usage, event.cost_nano_usd
    ttft, upstream = event.ttft_seconds, event.upstream_seconds
    # By position: names would double the cost.
    return LedgerRow(
        event.request_id,
        int(time * 1e6),
        event.token,
        event.token_id,
        event.owner,
        event.endpoint,
        event.dialect,
        event.stream,
        event.requested_model and _text(event.requested_model),
        event.route,
        event.provider,
        event.model and _text(event.model),
        event.credential,
        None if usage is None else usage.input_tokens,
        None if usage is None else usage.output_tokens,
        None if usage is None else usage.cached_tokens,
        None if usage is None else usage.reasoning_tokens,
        usage is not None and usage.estimated,
        None if cost is None else min(cost, _MOST),
        event.status,
        event.error_code,
        event.attempts,
        int(event.duration_seconds * 1e6 + 0.5),
        None if ttft is None else int(ttft * 1e6 + 0.5),
        None if upstream is None else int(upstream * 1e6 + 0.5),
        int(event.overhead_seconds * 1e6 + 0.5),
        event.revision,
    )


def _text(text: str) -> str:
    """``text`` of a client's choosing, as any database takes it."""
    if len(text) > MAX_TEXT_CHARACTERS:
        text = text[: MAX_TEXT_CHARACTERS - 1] + "…"
    if text.isascii() and "\0" not in text:
        return text
    # PostgreSQL takes no NUL, and nothing takes half of a pair of surrogates.
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
