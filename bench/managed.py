"""A database as of a gateway that is managed by its API: thousands of tokens, the caller's among them."""

import asyncio
import hashlib
from pathlib import Path

from bench.workload import TOKEN
from core.clock import SystemClock
from storage.changes import bump
from storage.database import Database
from storage.tables import tokens
from storage.tokens import TOPIC

TOKENS = 10_000
_SETS_OF_MODELS = (["*"], ["fast", "bench-*"], ["gpt-4*", "o[134]*"], ["claude-*"], ["mock/bench-model"])


def make_database(path: Path) -> None:
    """Write a database to ``path`` with :data:`TOKENS` tokens; the bench's is one from the middle."""
    asyncio.run(_make(path))


async def _make(path: Path) -> None:
    database = Database(f"sqlite:///{path}", SystemClock())
    try:
        async with database.transaction() as connection:
            version = await bump(connection, TOPIC)
            rows = [_row(number, version, database.now()) for number in range(TOKENS)]
            await connection.execute(tokens.insert(), rows)
    finally:
        await database.close()


def _row(number: int, version: int, now: int) -> dict[str, object]:
    text = TOKEN if number == TOKENS // 2 else f"sk-bench-another-{number}"
    return {
        "id": f"tok_{number:024x}",
        "name": f"bench-{number}",
        "sha256": hashlib.sha256(text.encode()).digest(),
        "prefix": text[:14],
        "scope": "scope_token_user",
        "models": ["*"] if text == TOKEN else _SETS_OF_MODELS[number % len(_SETS_OF_MODELS)],
        "endpoints": ["inference"],
        "owner": f"team-{number % 40}",
        "metadata": {"number": str(number)},
        "ip_ranges": [],
        "expires_at": None,
        "created_at": now,
        "created_by": "admin-key",
        "changed": version,
    }
