"""Brings a database to the newest revision. Imported only when one is not there yet, as Alembic is large."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

_SCRIPTS = Path(__file__).parent


def configuration() -> Config:
    """Alembic's, which for us is in no file."""
    found = Config()
    # `%` begins an interpolation there.
    found.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    found.set_main_option("path_separator", "os")
    return found


def upgrade(connection: Connection) -> None:
    """Run what is missing, in the transaction that ``connection`` is in: all of it counts, or nothing."""
    settings = configuration()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
