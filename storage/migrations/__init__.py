"""The schema's revisions, as Alembic's scripts; there is no way back but a backup."""

from sqlalchemy import Connection, text

import storage.account_tables
import storage.ledger_tables
import storage.webhook_tables  # noqa: F401  puts its tables among the others
from storage.tables import METADATA

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""Oldest first. Kept here too, so that an up-to-date database is seen to be one without Alembic."""


def revision_of(connection: Connection) -> str | None:
    """Which revision the database has; None where it is empty. Plain SQL."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def create(connection: Connection) -> None:
    """Make the tables in an empty database, and note there that it has the newest revision, as Alembic does."""
    METADATA.create_all(connection, checkfirst=False)
    connection.execute(
        text(
            "CREATE TABLE alembic_version "
            "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": REVISIONS[-1]})
