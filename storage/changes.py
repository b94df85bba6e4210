"""A counter for each topic, so that other nodes see by one small query whether anything has changed."""

from sqlalchemy import select, text

from storage.connection import Connection
from storage.tables import changes

_BUMP = text(
    "INSERT INTO changes (topic, version) VALUES (:topic, 1) "
    "ON CONFLICT (topic) DO UPDATE SET version = changes.version + 1 RETURNING version"
)


async def bump(connection: Connection, topic: str) -> int:
    """Count a change; gives its number, which counts from 1 without gaps.

    From here to its end the transaction has the topic for itself: changes are seen in the order of their numbers.
    """
    return int(await connection.scalar(_BUMP, {"topic": topic}))


async def version(connection: Connection, topic: str) -> int:
    """The number of the last change; 0 where there was none."""
    return int(await connection.scalar(select(changes.c.version).where(changes.c.topic == topic)) or 0)
