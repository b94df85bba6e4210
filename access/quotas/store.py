"""What a store of counters does, wherever they are."""

from typing import Protocol

from access.quotas.amounts import Amounts
from access.quotas.limits import Limits
from access.quotas.outcomes import Admission, Lease


class QuotaStore(Protocol):
    """The counters of all limits. For one event loop; outlives generations."""

    async def admit(self, limits: Limits, charges: Amounts) -> Admission:
        """Charge all of ``limits`` with what a request is expected to use, or, where one of them refuses, none.

        Each :class:`Lease` is ended by one of the two below, else it counts as under way for good.
        """
        ...

    def decide(self, limits: Limits, charges: Amounts) -> Admission | None:
        """The same, where nothing has to be waited for; None: it has, and nothing was charged: ask :meth:`admit`."""
        ...

    def settle(self, lease: Lease, actual: Amounts) -> None:
        """End the lease: what the request has used is counted instead of what was reserved. Waits for nothing.

        The first end of a lease counts; a further one does nothing.
        """
        ...

    def release(self, lease: Lease) -> None:
        """End the lease of a request that failed, and give back all of it. Waits for nothing."""
        ...

    async def start(self) -> None:
        """Get ready. A store that is not to be reached is no failure: it heals by itself."""
        ...

    async def close(self) -> None:
        """Give up what is held; there are no requests any more."""
        ...
