"""The store of one process: its counters are in memory and end with it."""

from access.quotas.amounts import Amounts
from access.quotas.counters import MOST_MADE_UP, Counters
from access.quotas.limits import Limits
from access.quotas.outcomes import Admission, Lease
from core.clock import Clock


class MemoryStore:
    """As of :class:`access.quotas.store.QuotaStore`."""

    __slots__ = ("_admit", "_counters", "_settle", "_time")

    def __init__(self, clock: Clock, most_made_up: int = MOST_MADE_UP) -> None:
        """``most_made_up``: so many counters are kept of names that clients make up."""
        self._time = clock.time
        self._counters = Counters(most_made_up)
        self._admit, self._settle = self._counters.admit, self._counters.settle

    async def admit(self, limits: Limits, charges: Amounts) -> Admission:
        return self._counters.admit(limits, charges, int(self._time() * 1000))

    def decide(self, limits: Limits, charges: Amounts) -> Admission:
        return self._admit(limits, charges, int(self._time() * 1000))

    def settle(self, lease: Lease, actual: Amounts) -> None:
        self._settle(lease, actual, int(self._time() * 1000))

    def release(self, lease: Lease) -> None:
        self._counters.release(lease, int(self._time() * 1000))

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def __len__(self) -> int:
        return len(self._counters)

    def __repr__(self) -> str:
        return f"<MemoryStore {self._counters!r}>"
