"""What a process knows of shared counters, and how it goes on by itself while they are out of reach."""

from collections.abc import Iterator

import msgspec

from access.quotas.amounts import Amounts
from access.quotas.counters import Counters, made_up
from access.quotas.limits import Check, Limits
from access.quotas.outcomes import Counter, Lease, Refused
from access.quotas.owed import Debt, Owed
from access.quotas.windows import Window
from core.clock import Clock


class Change(msgspec.Struct, frozen=True):
    """What a lease that has ended changes in one window."""

    check: Check
    window: Window
    key: str
    end: int
    amount: int

    @property
    def made_up(self) -> bool:
        """Whether the counter is of a name that a client chose."""
        return made_up(self.check, self.key)


class Alone:
    """Counters as they were last seen, counted on from there. Of what is under way it has this process's share alone."""

    __slots__ = ("_ahead_ms", "_counters", "_time", "owed")

    def __init__(self, clock: Clock, most_made_up: int) -> None:
        self._time = clock.time
        self._ahead_ms = 0  # so much the shared store's clock is ahead of ours
        self._counters = Counters(most_made_up)
        self.owed = Owed()
        """What the shared store has to be told."""

    # While the store is there

    def synchronise(self, now: int) -> None:
        """It is ``now`` by the shared store's clock."""
        self._ahead_ms = now - int(self._time() * 1000)

    def saw(self, check: Check, key: str, end: int, used: int, now: int) -> None:
        """The counter ``key`` of ``check`` stands at ``used``, in the window that ends at ``end`` (0: there is none)."""
        if end:
            self._counters.set(check, key, end, used, now)

    def hold(self, key: str, count: int) -> None:
        """So many requests more are under way."""
        self._counters.hold(key, count)

    def let_go(self, key: str, count: int) -> None:
        """So many requests fewer are under way."""
        self._counters.let_go(key, count)

    def held(self) -> dict[str, int]:
        """How many requests of this process are under way, by counter."""
        return self._counters.held()

    # While it is away

    def admit(self, limits: Limits, charges: Amounts) -> Lease | Refused:
        outcome = self._counters.admit(limits, charges, self._now())
        if isinstance(outcome, Lease):
            for check, counter in zip(limits.checks, outcome.counters, strict=True):
                if check.window is not None:
                    debt = Debt(check.window, counter.end, charges[check.place], counter.made_up)
                    self.owed.add(counter.key, debt)
        return outcome

    def change(self, change: Change) -> None:
        end = self._counters.adjust(change.check, change.key, change.end, change.amount, self._now())
        if end is not None:
            self.owed.add(change.key, Debt(change.window, end, change.amount, change.made_up))

    def seen(self) -> Iterator[tuple[Window, str, Counter]]:
        """The counters as the shared store had them, as far as this process has seen."""
        for window, key, counter in self._counters.live(self._now()):
            used = counter.used - self.owed.of(key, counter.end)
            if used > 0:
                yield window, key, Counter(key, counter.end, used, counter.made_up)

    def _now(self) -> int:
        return int(self._time() * 1000) + self._ahead_ms

    def __repr__(self) -> str:
        return f"{self._counters!r}, {len(self.owed)} owed"
