"""The tables of webhooks; see storage/tables.py for how times and migrations are."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from storage.tables import METADATA

outbox = Table(
    "webhook_outbox",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    # As it is sent, byte for byte.
    Column("payload", Text, nullable=False),
)
"""Events, as long as there is a delivery of any."""

# No foreign key: an import fills the tables in the order of their names, and both are always written together.
deliveries = Table(
    "webhook_deliveries",
    METADATA,
    Column("event_id", Text, primary_key=True),
    Column("webhook", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    # Of a pending one, from when on it may be taken: whoever takes it puts this off, so that nobody else does until then.
    # Of another, since when it has its state.
    Column("state_at", BigInteger, nullable=False),
    # Who has taken it; what became of it counts only if nobody else has it meanwhile.
    Column("claim", Text),
    Column("attempts", BigInteger, nullable=False),
    Column("attempted_at", BigInteger),
    Column("status", BigInteger),
    Column("failure", Text),
    Column("took", BigInteger),
)
Index(None, deliveries.c.state, deliveries.c.webhook, deliveries.c.state_at)
Index(None, deliveries.c.webhook, deliveries.c.at, deliveries.c.event_id)

disabled = Table(
    "webhook_disabled",
    METADATA,
    Column("webhook", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("address", LargeBinary, nullable=False),
)
