"""Each target in turn."""

from collections.abc import Callable, Sequence


def choose(available: Sequence[int], weights: Sequence[int], last: int, random: Callable[[], float]) -> int:
    for position in available:
        if position > last:
            return position
    return available[0]
