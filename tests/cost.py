"""What work costs, beside other work of the same moment: nothing is said of the speed of the machine."""

import math
import time
from collections.abc import Callable


def least_seconds(*works: Callable[[], object], rounds: int = 5) -> list[float]:
    """The least time that each of ``works`` took of ``rounds``; by turns, so that a machine that is slow for a while is so
    for all of them. It is this thread's own time: what other processes, and other threads, take of it is not counted.
    """
    least = [math.inf] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            began = time.thread_time()
            work()
            least[place] = min(least[place], time.thread_time() - began)
    return least
