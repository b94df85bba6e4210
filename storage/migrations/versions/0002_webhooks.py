"""Webhooks: what is to be delivered, what became of it, and who wants nothing more."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "webhook_outbox",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_outbox"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_at", sa.BigInteger, nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("attempted_at", sa.BigInteger),
        sa.Column("status", sa.BigInteger),
        sa.Column("failure", sa.Text),
        sa.Column("took", sa.BigInteger),
        sa.PrimaryKeyConstraint("event_id", "webhook", name="pk_webhook_deliveries"),
    )
    op.create_index(
        "ix_webhook_deliveries_state_webhook_state_at", "webhook_deliveries", ["state", "webhook", "state_at"]
    )
    op.create_index("ix_webhook_deliveries_webhook_at_event_id", "webhook_deliveries", ["webhook", "at", "event_id"])
    op.create_table(
        "webhook_disabled",
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("webhook", name="pk_webhook_disabled"),
    )
