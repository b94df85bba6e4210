"""Accounts that sign in to providers, and sign-ins under way."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "credential_accounts",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kept", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("provider", "name", name="pk_credential_accounts"),
    )
    op.create_table(
        "credential_logins",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kept", sa.LargeBinary, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_credential_logins"),
    )
