"""The ledger: one row a request."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Said to SQLite alone: see storage/ledger_tables.py.
    options = {"sqlite_with_rowid": False} if op.get_bind().dialect.name == "sqlite" else {}
    op.create_table(
        "ledger",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("token_id", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("requested_model", sa.Text),
        sa.Column("route", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("credential", sa.Text),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger),
        sa.Column("status", sa.BigInteger, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("duration_us", sa.BigInteger, nullable=False),
        sa.Column("ttft_us", sa.BigInteger),
        sa.Column("upstream_us", sa.BigInteger),
        sa.Column("overhead_us", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("at", "request_id", name="pk_ledger"),
        **options,
    )
