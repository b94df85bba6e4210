"""The tables. A change here needs a migration (storage/migrations/versions), which a test compares with this.

Times are whole microseconds since the Unix epoch, UTC. What is JSON is text that msgspec wrote.
"""

from typing import Any

import msgspec
from sqlalchemy import DDL, BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, event
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class Json(TypeDecorator[Any]):
    """A value as JSON text. Never queried by: so both databases store it alike, and PostgreSQL changes no byte of it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value)


# SQLite gives numbers by itself to a column of exactly this type.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

tokens = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("models", Json, nullable=False),
    Column("endpoints", Json, nullable=False),
    Column("owner", Text),
    Column("metadata", Json, nullable=False),
    Column("ip_ranges", Json, nullable=False),
    Column("expires_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("rotated_from", Text, ForeignKey("tokens.id")),
    Column("grace_until", BigInteger),
    Column("revoked_at", BigInteger),
    Column("changed", BigInteger, nullable=False),
    # A version of the program that knows nothing of limits may still be writing beside this one.
    Column("limits", Json, nullable=False, server_default="[]"),
    Column("counted_as", Text),
)
# A token that was rotated keeps its name through its grace, while its successor has it already. As SQL, since an Index
# with a condition for each database imports SQLAlchemy's parts for both (3 MB).
event.listen(
    tokens,
    "after_create",
    DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy has left its types out
        "CREATE UNIQUE INDEX uq_tokens_name_living ON tokens (name) WHERE revoked_at IS NULL AND grace_until IS NULL"
    ),
)
Index(None, tokens.c.changed)
Index(None, tokens.c.created_at, tokens.c.id)
Index(None, tokens.c.owner)

audit = Table(
    "audit",
    METADATA,
    # Given by who appends, under a lock: no gaps, so that a missing row shows.
    Column("seq", _Sequence, primary_key=True, autoincrement=False),
    # Given by who writes: an entry that is written twice counts once.
    Column("id", Text, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("address", Text),
    Column("action", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("resource_id", Text),
    # JSON, but as text: the hash is over these very bytes.
    Column("before", Text),
    Column("after", Text),
    Column("outcome", Text, nullable=False),
    Column("request_id", Text),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
Index(None, audit.c.at)
Index(None, audit.c.actor, audit.c.seq)
Index(None, audit.c.resource, audit.c.resource_id, audit.c.seq)

config_revisions = Table(
    "config_revisions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("revision", Text, nullable=False),
    # Another's `revision`, which need not be kept.
    Column("before", Text),
    # When it was put in force: rows may come in another order.
    Column("at", BigInteger, nullable=False),
    Column("author", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("comment", Text),
    Column("files", LargeBinary, nullable=False),
)
Index(None, config_revisions.c.at, config_revisions.c.seq)

provider_models = Table(
    "provider_models",
    METADATA,
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    # As the provider wrote it, byte for byte.
    Column("raw", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    # The process that runs it (gateway/owner.py).
    Column("owner", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("result", Json),
)

changes = Table(
    "changes",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
