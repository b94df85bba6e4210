"""Any target, all alike; weights do not count."""

from collections.abc import Callable, Sequence


def choose(available: Sequence[int], weights: Sequence[int], last: int, random: Callable[[], float]) -> int:
    return available[int(random() * len(available))]
