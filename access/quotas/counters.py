"""The rules of counting, in memory. Times are Unix milliseconds, passed in.

A window starts at the first request after the last one ended, and of what is in it never more than the amount is admitted.
What is used beyond what was reserved counts in the window in which it becomes known; what was reserved and not used goes
back to the window that it was taken from, as long as that lasts.

Names that clients make up could be without number: once there are `most` counters of such names, the further ones share
one counter of each limit (`Limit.spare`), until its window ends. None is forgotten before its time.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from access.quotas.amounts import MOST, NOTHING, Amounts
from access.quotas.limits import Check, Limits
from access.quotas.outcomes import Lease, Refused, refused
from access.quotas.windows import LONGEST_MS, Window, window_end

MOST_MADE_UP = 65_536
# The tables are in the order of the windows' ends: each request pays for clearing what a few before it have left.
_CLEARED_AT_ONCE = 64


class Counter(msgspec.Struct, gc=False):
    """What is used in a window."""

    end: int
    used: int
    made_up: bool = False


class Counters:
    """All counters of a process. For one thread."""

    __slots__ = ("_held", "_made_up", "_most", "_tables")

    def __init__(self, most: int = MOST_MADE_UP) -> None:
        """``most`` counters of names that clients make up."""
        self._tables: dict[Window, OrderedDict[str, Counter]] = {window: OrderedDict() for window in Window}
        self._held: dict[str, int] = {}
        self._most = most
        self._made_up = 0

    def admit(self, limits: Limits, charges: Amounts, now: int) -> Lease | Refused:
        """Charge all of ``limits``, or none where one of them refuses."""
        keys: list[str] = []
        ends: list[int] = []
        useds: list[int] = []
        found: list[Counter | None] = []
        fits = True
        for check in limits.checks:
            key = check.key
            counter = None
            if check.window is None:
                used, end = self._held.get(key, 0), 0
            else:
                key, counter = self._find(check, check.window, now)
                used, end = (counter.used, counter.end) if counter is not None else (0, 0)
            # A request whose charge is not known yet needs that anything is left.
            if used + (charges[check.metric] or 1) > check.enforced:
                fits = False
            keys.append(key)
            ends.append(end)
            useds.append(used)
            found.append(counter)
        if not fits:
            return refused(limits, charges, useds, ends, now)
        for place, check in enumerate(limits.checks):
            used = useds[place] = min(useds[place] + charges[check.metric], MOST)
            counter = found[place]
            if counter is not None:
                counter.used = used
            elif check.window is None:
                self._held[check.key] = used
            else:
                end = ends[place] = window_end(check.window, now)
                self._put(check.window, keys[place], Counter(end, used, made_up(check, keys[place])), now)
        return Lease(limits, charges, keys, ends, useds, now)

    def settle(self, lease: Lease, actual: Amounts, now: int) -> None:
        """End the lease: what was used is counted instead of what was reserved. Only the first end of a lease counts."""
        if not lease.open:
            return
        lease.open = False
        for place, check in enumerate(lease.limits.checks):
            change = actual[check.metric] - lease.reserved[check.metric]
            if check.window is None:
                self.let_go(check.key, lease.reserved[check.metric])
            elif change:
                self.adjust(check, lease.keys[place], lease.ends[place], change, now)

    def release(self, lease: Lease, now: int) -> None:
        """End the lease, and give back all of it."""
        self.settle(lease, NOTHING, now)

    def adjust(self, check: Check, key: str, end: int, change: int, now: int) -> int | None:
        """Change the counter ``key`` of ``check``, whose window was one that ends at ``end``, by ``change``.

        Gives the end of the window that was changed; None: what is given back has no place any more.
        """
        assert check.window is not None
        counter = self._live(check.window, key, now)
        if counter is None:
            if change <= 0:
                return None
            counter = Counter(window_end(check.window, now), 0, made_up(check, key))
            self._put(check.window, key, counter, now)
        elif change <= 0 and counter.end != end:
            return None
        counter.used = min(max(counter.used + change, 0), MOST)
        return counter.end

    def set(self, check: Check, key: str, end: int, used: int, now: int) -> None:
        """Make the counter ``key`` of ``check`` what it is elsewhere."""
        assert check.window is not None
        counter = self._tables[check.window].get(key)
        if counter is not None and counter.end == end:
            counter.used = used
        else:
            self._put(check.window, key, Counter(end, used, made_up(check, key)), now)

    def hold(self, key: str, count: int) -> None:
        """So many requests more are under way."""
        self._held[key] = self._held.get(key, 0) + count

    def let_go(self, key: str, count: int) -> None:
        """So many requests fewer are under way."""
        left = self._held.get(key, 0) - count
        if left > 0:
            self._held[key] = left
        else:
            self._held.pop(key, None)

    def held(self) -> dict[str, int]:
        """How many requests are under way, by counter; those of which there are none are left out."""
        return dict(self._held)

    def live(self, now: int) -> Iterator[tuple[Window, str, Counter]]:
        """All counters whose windows last."""
        for window, table in self._tables.items():
            for key, counter in table.items():
                if counter.end > now:
                    yield window, key, counter

    def __len__(self) -> int:
        return len(self._held) + sum(map(len, self._tables.values()))

    def __repr__(self) -> str:
        return f"<Counters {len(self)}, {self._made_up} of made-up names>"

    def _find(self, check: Check, window: Window, now: int) -> tuple[str, Counter | None]:
        """The counter that ``check`` goes by now, and its key; None: one must begin."""
        counter = self._live(window, check.key, now)
        if counter is not None or check.spare is None:
            return check.key, counter
        # While the spare one lasts, nobody leaves it: whoever is counted there would else begin anew beside it.
        spare = self._live(window, check.spare, now)
        if spare is not None:
            return check.spare, spare
        self._clear(now)
        return (check.spare if self._made_up >= self._most else check.key), None

    def _live(self, window: Window, key: str, now: int) -> Counter | None:
        counter = self._tables[window].get(key)
        if counter is None or counter.end <= now:
            return None
        if counter.end - now > LONGEST_MS[window]:
            # The clock was set back: nobody waits for longer than a window lasts.
            counter.end = window_end(window, now)
        return counter

    def _put(self, window: Window, key: str, counter: Counter, now: int) -> None:
        table = self._tables[window]
        before = table.pop(key, None)
        if before is not None:
            self._made_up -= before.made_up
        self._clear(now)
        table[key] = counter  # at the end: the table is in the order of the ends
        self._made_up += counter.made_up

    def _clear(self, now: int) -> None:
        """Forget windows that have ended."""
        for table in self._tables.values():
            for _ in range(_CLEARED_AT_ONCE):
                if not table or next(iter(table.values())).end > now:
                    break
                _, ended = table.popitem(last=False)
                self._made_up -= ended.made_up


def made_up(check: Check, key: str) -> bool:
    """Whether ``key`` is the counter of a name that a client chose."""
    return check.spare is not None and key != check.spare
