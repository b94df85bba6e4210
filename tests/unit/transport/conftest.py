"""What the tests of the server share."""

from collections.abc import AsyncIterator

import pytest

from tests.clock_by_hand import ClockByHand, connections_by_hand
from tests.wire import Wire, wire


@pytest.fixture(name="wire")
async def _wire() -> AsyncIterator[Wire]:
    async with wire() as made:
        yield made


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> ClockByHand:
    """What the clocks of the connections go by."""
    return connections_by_hand(monkeypatch)
