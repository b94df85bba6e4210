"""The rules of counting, in memory. Times are Unix milliseconds, passed in.

A window starts at the first request after the last one ended, and of what is in it never more than the amount is admitted.
What is used beyond what was reserved counts in the window in which it becomes known; what was reserved and not used goes
back to the window that it was taken from, as long as that lasts.

Names that clients make up could be without number: once there are `most` counters of such names, the further ones share
one counter of each limit (`Limit.spare`), until its window ends. None is forgotten before its time.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from access.quotas.amounts import MOST, NOTHING, Amounts
from access.quotas.limits import Check, Limits
from access.quotas.outcomes import Counter, Lease, Refused, refused
from access.quotas.windows import LONGEST_MS, Window, window_end

MOST_MADE_UP = 65_536
# The tables are in the order of the windows' ends: each request pays for clearing what a few before it have left.
_CLEARED_AT_ONCE = 64
# Beyond so many, those of which nothing is under way are dropped.
_IDLE_KEPT = 1024
# A clock that is set back by less is taken for one that stands still.
_STILL_MS = 1000


class _Era:
    """While it lasts, counters that were found stay those that count, until they end."""

    __slots__ = ()


class _Found:
    """The counters of some limits."""

    __slots__ = ("counters", "end", "era", "steps")

    def __init__(self, era: _Era, counters: Sequence[Counter], checks: Sequence[Check]) -> None:
        self.era = era
        self.counters = counters
        self.end = min((counter.end for counter in counters if counter.end), default=MOST)
        """When the first of them ends."""
        self.steps = tuple(
            # Up to the one count it is admitted without another look; from the other on it is worth telling.
            (counter, check.place, min(check.enforced, MOST), check.notable)
            for counter, check in zip(counters, checks, strict=True)
        )


class Counters:
    """All counters of a process. For one thread."""

    __slots__ = ("_era", "_held", "_latest", "_made_up", "_most", "_tables")

    def __init__(self, most: int = MOST_MADE_UP) -> None:
        """``most`` counters of names that clients make up."""
        self._held: OrderedDict[str, Counter] = OrderedDict()
        """What is under way."""
        self._tables = (self._held, *(OrderedDict[str, Counter]() for _ in Window))
        """By the numbers of the windows (:attr:`access.quotas.limits.Check.table`)."""
        self._most = most
        self._made_up = 0
        self._latest = 0
        self._era = _Era()

    def admit(self, limits: Limits, charges: Amounts, now: int) -> Lease | Refused:
        """Charge all of ``limits``, or none where one of them refuses."""
        if now > self._latest:
            self._latest = now
        elif self._latest - now > _STILL_MS:
            self._set_back(now)
        found = limits.found
        if found is None or found.era is not self._era or now >= found.end:
            return self._admit_slowly(limits, charges, now)
        # Mostly all counters have room: they are charged on the way, and that is undone where it is not so.
        notable = False
        for counter, place, least, high in found.steps:
            charge = charges[place]
            used = counter.used + charge
            if used >= least and (used > least or not charge):
                for charged, spent, _, _ in found.steps:
                    if charged is counter:
                        return self._admit_slowly(limits, charges, now)
                    charged.used -= charges[spent]
            if used >= high:
                notable = True
            counter.used = used
        return Lease(limits, charges, found.counters, now, notable)

    def _admit_slowly(self, limits: Limits, charges: Amounts, now: int) -> Lease | Refused:
        """The same, where a counter must begin, or one has no room."""
        counters: list[Counter] = []
        fits = True
        for check in limits.checks:
            counter = self._find(check, now)
            # A request whose charge is not known yet needs that anything is left.
            if counter.used + (charges[check.place] or 1) > check.enforced:
                fits = False
            counters.append(counter)
        if not fits:
            return refused(limits, charges, counters, now)
        notable = False
        for check, counter in zip(limits.checks, counters, strict=True):
            if check.window is None:
                self._held[check.key] = counter
            elif not counter.end:
                counter.end = window_end(check.window, now)
                self._put(check.table, counter, now)
            counter.used = min(counter.used + charges[check.place], MOST)
            if counter.used >= check.notable:
                notable = True
        limits.found = _Found(self._era, counters, limits.checks)
        return Lease(limits, charges, counters, now, notable)

    def settle(self, lease: Lease, actual: Amounts, now: int) -> None:
        """End the lease: what was used is counted instead of what was reserved. Only the first end of a lease counts."""
        if not lease.open:
            return
        lease.open = False
        reserved, limits, counters = lease.reserved, lease.limits, lease.counters
        for number, place, table in limits.varying if actual[0] == reserved[0] else limits.changing:
            change = actual[place] - reserved[place]
            if not change:
                continue
            counter = counters[number]
            if not table:
                counter.used += change
                if counter.used <= 0 and len(self._held) > _IDLE_KEPT:
                    self._drop_idle()
            elif counter.end > now:
                used = counter.used + change
                counter.used = used if 0 <= used <= MOST else min(max(used, 0), MOST)
            else:
                self.adjust(limits.checks[number], counter.key, counter.end, change, now)

    def release(self, lease: Lease, now: int) -> None:
        """End the lease, and give back all of it."""
        self.settle(lease, NOTHING, now)

    def adjust(self, check: Check, key: str, end: int, change: int, now: int) -> int | None:
        """Change the counter ``key`` of ``check``, whose window was one that ends at ``end``, by ``change``.

        Gives the end of the window that was changed; None: what is given back has no place any more.
        """
        assert check.window is not None
        counter = self._live(check.table, key, now)
        if counter is None:
            if change <= 0:
                return None
            counter = Counter(key, window_end(check.window, now), 0, made_up(check, key))
            self._put(check.table, counter, now)
        elif change <= 0 and counter.end != end:
            return None
        counter.used = min(max(counter.used + change, 0), MOST)
        return counter.end

    def set(self, check: Check, key: str, end: int, used: int, now: int) -> None:
        """Make the counter ``key`` of ``check`` what it is elsewhere."""
        counter = self._tables[check.table].get(key)
        if counter is not None and counter.end == end:
            counter.used = used
        else:
            self._put(check.table, Counter(key, end, used, made_up(check, key)), now)

    def hold(self, key: str, count: int) -> None:
        """So many requests more are under way."""
        counter = self._held.get(key)
        if counter is None:
            counter = self._held[key] = Counter(key, 0, 0)
        counter.used += count

    def let_go(self, key: str, count: int) -> None:
        """So many requests fewer are under way."""
        counter = self._held.get(key)
        if counter is not None:
            counter.used -= count
            if counter.used <= 0 and len(self._held) > _IDLE_KEPT:
                self._drop_idle()

    def held(self) -> dict[str, int]:
        """How many requests are under way, by counter; those of which there are none are left out."""
        return {key: counter.used for key, counter in self._held.items() if counter.used > 0}

    def live(self, now: int) -> Iterator[tuple[Window, str, Counter]]:
        """All counters whose windows last."""
        for window in Window:
            for key, counter in self._tables[window].items():
                if counter.end > now:
                    yield window, key, counter

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def __repr__(self) -> str:
        return f"<Counters {len(self)}, {self._made_up} of made-up names>"

    def _find(self, check: Check, now: int) -> Counter:
        """The counter that ``check`` goes by now; one without an end must begin."""
        known = self._tables[check.table].get(check.key)
        if known is not None and (known.end > now or not check.table):
            return known
        if check.spare is None or not check.table:
            return Counter(check.key, 0, 0)
        # While the spare one lasts, nobody leaves it: whoever is counted there would else begin anew beside it.
        spare = self._live(check.table, check.spare, now)
        if spare is not None:
            return spare
        self._clear(now)
        if self._made_up >= self._most:
            return Counter(check.spare, 0, 0)
        return Counter(check.key, 0, 0, made_up=True)

    def _live(self, table: int, key: str, now: int) -> Counter | None:
        counter = self._tables[table].get(key)
        return counter if counter is not None and counter.end > now else None

    def _set_back(self, now: int) -> None:
        """The clock was set back: nobody waits for longer than a window lasts."""
        self._latest = now
        self._era = _Era()
        for window, longest in LONGEST_MS.items():
            for counter in self._tables[window].values():
                if counter.end - now > longest:
                    counter.end = window_end(window, now)

    def _put(self, table: int, counter: Counter, now: int) -> None:
        before = self._tables[table].pop(counter.key, None)
        if before is not None:
            self._made_up -= before.made_up
            if before.end > now:
                self._era = _Era()
        self._clear(now)
        self._tables[table][counter.key] = counter  # at the end: the table is in the order of the ends
        self._made_up += counter.made_up

    def _drop_idle(self) -> None:
        """Forget counters of which nothing is under way."""
        self._era = _Era()
        for key, counter in [*self._held.items()]:
            if counter.used <= 0:
                del self._held[key]

    def _clear(self, now: int) -> None:
        """Forget windows that have ended."""
        for table in self._tables[1:]:
            for _ in range(_CLEARED_AT_ONCE):
                if not table or next(iter(table.values())).end > now:
                    break
                _, ended = table.popitem(last=False)
                self._made_up -= ended.made_up


def made_up(check: Check, key: str) -> bool:
    """Whether ``key`` is the counter of a name that a client chose."""
    return check.spare is not None and key != check.spare
