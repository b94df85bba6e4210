"""How long a slot stays empty: not at all after the first end, longer and longer after those that follow at once."""

import pytest

from gateway.workers import backoff_seconds


@pytest.mark.parametrize(
    ("early_ends", "seconds"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (5000, 30)]
)
def test_the_pause_doubles_up_to_half_a_minute(early_ends: int, seconds: float) -> None:
    assert seconds == backoff_seconds(early_ends)
