"""What Redis is asked, and what its answers say: the arguments of the scripts (access/quotas/scripts.py). Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from access.quotas.alone import Change
from access.quotas.amounts import Amounts
from access.quotas.limits import Limits
from access.quotas.outcomes import Counter, Lease, Refused, refused
from access.quotas.owed import Debt
from access.quotas.scripts import Script, Scripts
from access.quotas.windows import Window

T = TypeVar("T")

# So many counters are asked for at most at a time: while a script runs, Redis does nothing else.
_CHUNK = 250
_Word = str | int


class Call(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[_Word]


class Calls:
    """Makes calls, for keys of one prefix. ``name`` is what the process is called in Redis."""

    __slots__ = ("_life", "_living", "_most", "_names", "_prefix", "_scripts")

    def __init__(self, scripts: Scripts, prefix: str, lease_ms: int, most_made_up: int) -> None:
        self._scripts = scripts
        self._prefix = prefix
        self._living, self._names = f"{prefix}living", f"{prefix}names"
        self._life = (lease_ms, 2 * lease_ms)  # of a process, and of what it has under way
        self._most = most_made_up

    def admit(self, name: str, limits: Limits, charges: Amounts) -> Call:
        """A decision; :func:`decision` reads the answer."""
        keys = [self._living, self._names]
        words: list[_Word] = [name, self._most, self._life[1]]
        for check in limits.checks:
            keys.append(self._prefix + check.key)
            if check.spare is not None:
                keys.append(self._prefix + check.spare)
            window = check.window.value if check.window is not None else 0
            words += (window, charges[check.metric], check.enforced, int(check.spare is not None))
        return Call(self._scripts.admit, keys, words)

    def change(self, name: str, changes: Iterable[Change], held: Mapping[str, int]) -> Iterator[Call]:
        """What leases have changed that have ended, and by how much more is ``held``; :func:`changed` reads the answers."""
        entries = [(each.key, each.window.value, each.amount, each.end, int(each.made_up)) for each in changes]
        entries += [(key, 0, difference, 0, 0) for key, difference in held.items()]
        for chunk in _chunks(entries):
            yield Call(
                self._scripts.change,
                [self._names, *(self._prefix + entry[0] for entry in chunk)],
                [name, *(word for entry in chunk for word in entry[1:])],
            )

    def beat(self, name: str, held: Iterable[str]) -> Call:
        """The process is alive; the answer ``0`` says that it was not."""
        return Call(self._scripts.beat, [self._living, *(self._prefix + key for key in held)], [name, *self._life])

    def join(self, name: str, held: Mapping[str, int], former: Iterable[str]) -> Iterator[Call]:
        """The process is alive, has this under way, and had the ``former`` names before."""
        gone = [*former]
        for chunk in _chunks([*held.items()]) or [[]]:
            yield Call(
                self._scripts.join,
                [self._living, *(self._prefix + key for key, _ in chunk)],
                [name, *self._life, *(count for _, count in chunk), *gone],
            )

    def restore(self, run_id: str | None, seen: Iterable[tuple[Window, str, Counter]]) -> Iterator[Call]:
        """Counters as they were last seen, before Redis's present run."""
        for chunk in _chunks([*seen]):
            words: list[_Word] = [(run_id or "")[:16]]
            for window, _, counter in chunk:
                words += (window.value, counter.end, counter.used, int(counter.made_up))
            yield Call(self._scripts.restore, [self._names, *(self._prefix + key for _, key, _ in chunk)], words)

    def pay(self, payment: str, debts: Mapping[str, Debt]) -> Iterator[Call]:
        """What was counted elsewhere; each call has its mark, so that it may be repeated."""
        for number, chunk in enumerate(_chunks([*debts.items()])):
            words: list[_Word] = []
            for _, debt in chunk:
                words += (debt.window.value, debt.end, debt.change, int(debt.made_up))
            mark = f"{self._prefix}paid:{payment}:{number}"
            yield Call(self._scripts.owe, [self._names, mark, *(self._prefix + key for key, _ in chunk)], words)

    def leave(self, name: str) -> Call:
        """The process ends."""
        return Call(self._scripts.leave, [self._living], [name])


class Decision(NamedTuple):
    """What became of a decision."""

    fits: bool
    now: int
    counters: Sequence[Counter]

    def outcome(self, limits: Limits, charges: Amounts) -> Lease | Refused:
        """As the one who has asked is told."""
        if self.fits:
            pairs = zip(self.counters, limits.checks, strict=True)
            notable = any(counter.used >= check.notable for counter, check in pairs)
            return Lease(limits, charges, self.counters, self.now, notable)
        return refused(limits, charges, self.counters, self.now)


def decision(limits: Limits, answer: bytes) -> Decision | None:
    """What Redis says of ``limits``; None: it does not know the process."""
    if answer == b"unknown":
        return None
    fits, now, *words = map(int, answer.split())
    counters = [
        Counter(check.spare if spare and check.spare is not None else check.key, end, used)
        for check, used, end, spare in zip(limits.checks, words[::3], words[1::3], words[2::3], strict=True)
    ]
    return Decision(fits == 1, now, counters)


def changed(answers: Iterable[bytes]) -> Iterator[tuple[int, int, int]]:
    """How each counter stands that was changed: used, the end of its window (0: there is none), and now."""
    for answer in answers:
        now, *words = map(int, answer.split())
        for used, end in zip(words[::2], words[1::2], strict=True):
            yield used, end, now


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
