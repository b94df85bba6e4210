"""What a process has counted while the shared store was away, until the store has it."""

from collections.abc import Iterator

import msgspec

from access.quotas.windows import Window


class Debt(msgspec.Struct):
    """What one counter lacks."""

    window: Window
    end: int
    """Of the window that it was counted in, in Unix milliseconds."""
    change: int
    made_up: bool


class Owed:
    """The debts of a process. What is being paid is kept apart, under one name, until it is known to have arrived."""

    __slots__ = ("_due", "_paying", "name")

    def __init__(self) -> None:
        self._due: dict[str, Debt] = {}
        self._paying: dict[str, Debt] = {}
        self.name = ""
        """Of the payment under way: it is the same for each try of it."""

    def add(self, key: str, debt: Debt) -> None:
        """Owe more. What was owed in a window that has ended is forgotten."""
        known = self._due.get(key)
        if known is not None and known.end == debt.end:
            known.change += debt.change
        else:
            self._due[key] = debt

    def payment(self, name: str) -> dict[str, Debt]:
        """What is to be paid now; ``name`` is its name, unless there is one under way, which is given again."""
        if not self._paying and self._due:
            self._paying, self._due, self.name = self._due, {}, name
        return self._paying

    def paid(self) -> None:
        """The payment under way has arrived."""
        self._paying = {}

    def of(self, key: str, end: int) -> int:
        """What is owed to the window of ``key`` that ends at ``end``."""
        return sum(debt.change for debt in self._debts(key) if debt.end == end)

    def _debts(self, key: str) -> Iterator[Debt]:
        for debts in (self._due, self._paying):
            if key in debts:
                yield debts[key]

    def __bool__(self) -> bool:
        return bool(self._due or self._paying)

    def __len__(self) -> int:
        return len(self._due) + len(self._paying)
