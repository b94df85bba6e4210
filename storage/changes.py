"""A counter for each topic, so that other nodes see by one small query whether anything has changed."""

from sqlalchemy import select, text

from storage.connection import Connection
from storage.tables import changes

_BUMP = text(
    "INSERT INTO changes (topic, version) VALUES (:topic, :count) "
    "ON CONFLICT (topic) DO UPDATE SET version = changes.version + :count RETURNING version"
)


async def bump(connection: Connection, topic: str, count: int = 1) -> int:
    """Count a change, or ``count``; gives the number of the last, which counts from 1 without gaps.

    From here to its end the transaction has the topic for itself: changes are seen in the order of their numbers.
    """
    return int(await connection.scalar(_BUMP, {"topic": topic, "count": count}))


async def hold(connection: Connection, topic: str) -> None:
    """Have the topic for oneself from here to the end of the transaction, and count nothing yet."""
    await bump(connection, topic, 0)


async def version(connection: Connection, topic: str) -> int:
    """The number of the last change; 0 where there was none."""
    return int(await connection.scalar(select(changes.c.version).where(changes.c.topic == topic)) or 0)
