"""Strategies: which target of a group comes next. One module each, one line each in the table."""

from collections.abc import Callable, Sequence

from routing.strategies import first, random, round_robin, weighted

Strategy = Callable[[Sequence[int], Sequence[int], int, Callable[[], float]], int]
"""``(available, weights, last, random) -> choice``, pure.

``available``: positions in the group that may be chosen, ascending, never empty. ``weights``: of the whole group, by
position. ``last``: the position chosen before by anyone, -1 at the start. ``random`` gives numbers in [0, 1).
"""

STRATEGIES: dict[str, Strategy] = {
    "first": first.choose,
    "round_robin": round_robin.choose,
    "weighted": weighted.choose,
    "random": random.choose,
}
