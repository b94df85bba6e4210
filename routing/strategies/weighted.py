"""At random, by weight. A target of weight 0 is used only while no other can be.

Drawn by lot and not by a smooth rota: a rota is state that every worker has for itself, that a reload loses, and that
must be settled again whenever a target cools down; a lot needs none of it, and its shares are right after a few requests.
"""

from collections.abc import Callable, Sequence


def choose(available: Sequence[int], weights: Sequence[int], last: int, random: Callable[[], float]) -> int:
    total = sum(weights[position] for position in available)
    if total == 0:
        return available[int(random() * len(available))]
    point = random() * total
    chosen = available[0]
    for position in available:
        if weights[position] == 0:
            continue
        chosen = position  # the last one with a weight takes what rounding may leave over
        point -= weights[position]
        if point < 0:
            break
    return chosen
