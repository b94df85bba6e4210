"""What is worked out of a name once, and then looked up: for names that come from outside."""

from collections.abc import Callable
from typing import TypeVar

MOST_NAMES = 4096
LONGEST_NAME = 64

T = TypeVar("T")


class Remembered(dict[str, T]):
    """``remembered[name]`` is ``of(name)``. Holds a bounded number of names of bounded length; the usual come back soon."""

    def __init__(self, of: Callable[[str], T], longest: int = LONGEST_NAME) -> None:
        """``of`` is pure; what it raises is not remembered. ``longest``: characters of a name that is remembered."""
        super().__init__()
        self._of = of
        self._longest = longest

    def __missing__(self, name: str) -> T:
        value = self._of(name)
        if len(name) <= self._longest:
            if len(self) >= MOST_NAMES:
                self.clear()
            self[name] = value
        return value
