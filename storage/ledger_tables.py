"""The table of the ledger; see storage/tables.py for how times and migrations are."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, PrimaryKeyConstraint, Table, Text, event

from storage.tables import METADATA

ledger = Table(
    "ledger",
    METADATA,
    # In the order of storage.ledger_records.LedgerRow, by which rows are written.
    Column("request_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("token", Text),
    Column("token_id", Text),
    Column("owner", Text),
    Column("endpoint", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("requested_model", Text),
    Column("route", Text),
    Column("provider", Text),
    Column("model", Text),
    Column("credential", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("cost_nano_usd", BigInteger),
    Column("status", BigInteger, nullable=False),
    Column("error_code", Text),
    Column("attempts", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("ttft_us", BigInteger),
    Column("upstream_us", BigInteger),
    Column("overhead_us", BigInteger, nullable=False),
    Column("revision", Text, nullable=False),
    # The time comes first: rows are added at the end, a range of time is read in a row, and the oldest are deleted from the
    # front. A request has one time, so a row that is written again is found by this key. There is no other index: thousands
    # of rows a second would pay for it, and queries are over a range of time first.
    PrimaryKeyConstraint("at", "request_id"),
)
"""One row a request."""


def _keep_rows_in_their_key(table: Table, connection: Connection, **_: Any) -> None:
    # Then SQLite needs no second tree for the key (https://www.sqlite.org/withoutrowid.html). Said only to SQLite: to say it
    # at all imports SQLAlchemy's part for it, 1 MB.
    if connection.dialect.name == "sqlite":
        table.dialect_kwargs["sqlite_with_rowid"] = False


event.listen(ledger, "before_create", _keep_rows_in_their_key)
