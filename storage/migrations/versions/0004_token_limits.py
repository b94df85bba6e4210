"""Limits on tokens, and by what their counters are named."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("limits", sa.Text, server_default="[]", nullable=False))
    op.add_column("tokens", sa.Column("counted_as", sa.Text))
