"""Rows of the ledger for the tests, random and yet the same each time."""

import random
from typing import Any

import msgspec

from storage.ledger_records import LedgerRow

BEGIN = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""
DAY = 86_400_000_000

ROW = LedgerRow(
    request_id="req_000000000000000000000000",
    at=BEGIN,
    token="team-a",
    token_id=None,
    owner="ann",
    endpoint="chat_completions",
    dialect="openai-chat",
    stream=False,
    requested_model="fast",
    route="gold",
    provider="openai",
    model="gpt-4o-mini",
    credential="main",
    input_tokens=10,
    output_tokens=20,
    cached_tokens=5,
    reasoning_tokens=0,
    estimated=False,
    cost_nano_usd=13_500,
    status=200,
    error_code=None,
    attempts=1,
    duration_us=1_250_000,
    ttft_us=None,
    upstream_us=1_200_000,
    overhead_us=150,
    revision="abc",
)


def row(number: int = 0, **more: Any) -> LedgerRow:
    """:data:`ROW` under another id, with what is given."""
    return msgspec.structs.replace(ROW, request_id=f"req_{number:024x}", **more)


def random_rows(count: int, seed: int = 1, *, begin: int = BEGIN, span: int = 70 * DAY) -> list[LedgerRow]:
    """Of ``span``, in no order, several of one time; with values left out, empty, equal but for their case, and large."""
    chance = random.Random(seed)
    # Numbers that a provider may tell of, and that no sum of 64 bits holds.
    tokens = [None, 0, 1, 7, 1000, 1 << 40, (1 << 63) - 1]
    times = [begin + chance.randrange(span) for _ in range(count // 2 + 1)]
    return [
        row(
            number,
            at=chance.choice(times),
            token=(token := chance.choice([None, "team-a", "team-b", "Team-a", "z", "ä"])),
            token_id=None if token is None else chance.choice([None, f"tok_{token}", "tok_old"]),
            owner=chance.choice([None, "ann", "bob"]),
            endpoint=chance.choice(["chat_completions", "embeddings"]),
            stream=chance.random() < 0.5,
            requested_model=chance.choice([None, "", "fast", "=1+1", 'say "x", y', "模型"]),
            provider=chance.choice([None, "openai", "local"]),
            model=chance.choice([None, "gpt-4o", "llama"]),
            credential=chance.choice([None, "main", "spare"]),
            input_tokens=chance.choice(tokens),
            output_tokens=chance.choice(tokens),
            cached_tokens=chance.choice(tokens),
            reasoning_tokens=chance.choice(tokens),
            estimated=chance.random() < 0.3,
            cost_nano_usd=chance.choice([None, 0, 1, 123_456_789, (1 << 62) + 1]),
            status=chance.choice([200, 201, 400, 404, 429, 499, 500, 502]),
            error_code=chance.choice([None, None, "client_closed", "rate_limit_exceeded"]),
            attempts=chance.randrange(3),
            duration_us=int(chance.lognormvariate(10, 2)),
            ttft_us=chance.choice([None, chance.randrange(5)]),
        )
        for number in range(count)
    ]
