"""Values on a fake session, and a pool for them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.config.vault.held import OPENAI, Held


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def held(pool: ThreadPoolExecutor) -> Held:
    held = Held(pool)
    held.vault.secrets[OPENAI] = {"key": "one", "user": "u1"}
    return held
