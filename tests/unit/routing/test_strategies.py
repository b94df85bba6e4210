"""Which position each strategy chooses."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from routing.strategies import STRATEGIES


def choose(strategy: str, available: Sequence[int], weights: Sequence[int], last: int = -1, point: float = 0.5) -> int:
    return STRATEGIES[strategy](available, weights, last, lambda: point)


@pytest.mark.parametrize(
    ("strategy", "available", "weights", "last", "point", "expected"),
    [
        ("first", [0, 1, 2], [1, 1, 1], 1, 0.9, 0),
        ("first", [1, 2], [1, 9, 9], 2, 0.9, 1),
        ("round_robin", [0, 1, 2], [1, 1, 1], -1, 0.0, 0),
        ("round_robin", [0, 1, 2], [1, 1, 1], 0, 0.0, 1),
        ("round_robin", [0, 1, 2], [1, 1, 1], 2, 0.0, 0),
        ("round_robin", [0, 2], [1, 1, 1], 0, 0.0, 2),
        ("random", [0, 1, 2], [9, 0, 0], 0, 0.0, 0),
        ("random", [0, 1, 2], [9, 0, 0], 0, 0.34, 1),
        ("random", [0, 2], [9, 0, 0], 0, 0.999, 2),
        ("weighted", [0, 1], [3, 1], 0, 0.0, 0),
        ("weighted", [0, 1], [3, 1], 0, 0.74, 0),
        ("weighted", [0, 1], [3, 1], 0, 0.75, 1),
        ("weighted", [1, 2], [9, 1, 1], 0, 0.5, 2),
        ("weighted", [0, 1], [0, 1], 0, 0.0, 1),
        ("weighted", [0, 1], [1, 0], 0, 0.9999999999999999, 0),
        ("weighted", [0, 1], [0, 0], 0, 0.5, 1),
        ("weighted", [0, 1], [1, 2], 0, 1.0, 1),  # what rounding may come to
    ],
)
def test_a_strategy_chooses(
    strategy: str, available: list[int], weights: list[int], last: int, point: float, expected: int
) -> None:
    assert expected == choose(strategy, available, weights, last, point)


def test_weights_are_shares() -> None:
    random = Random(7)
    counted = Counter(STRATEGIES["weighted"]([0, 1, 2], [6, 3, 1], -1, random.random) for _ in range(2000))
    assert [0.6, 0.3, 0.1] == pytest.approx([counted[position] / 2000 for position in range(3)], abs=0.05)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_chooses_what_is_available(strategy: str) -> None:
    random = Random(7)
    for _ in range(200):
        available = sorted(random.sample(range(5), random.randint(1, 5)))
        weights = [random.randint(0, 3) for _ in range(5)]
        assert STRATEGIES[strategy](available, weights, random.randint(-1, 4), random.random) in available
