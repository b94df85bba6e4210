"""The tables of accounts that sign in to providers; see storage/tables.py for how times and migrations are."""

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from storage.tables import METADATA

accounts = Table(
    "credential_accounts",
    METADATA,
    Column("provider", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    # As bytes: a text that is damaged on the disk may be no text any more, and then no row of the table could be read.
    Column("kept", LargeBinary, nullable=False),
)

logins = Table(
    "credential_logins",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("kept", LargeBinary, nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""Sign-ins under way: of no use to another database."""
