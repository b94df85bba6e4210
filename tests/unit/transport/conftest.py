"""What the tests of the server share."""

from collections.abc import AsyncIterator

import pytest

from tests.wire import Wire, wire


@pytest.fixture(name="wire")
async def _wire() -> AsyncIterator[Wire]:
    async with wire() as made:
        yield made
