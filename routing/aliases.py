"""Public model names: ``from`` → ``to``, until a target or a name that no alias takes.

Exact entries come before globs, globs by specificity. Each entry applies at most once in a chain, so a chain ends
whatever the entries say; a cycle of exact names is a slip and refused at load.
"""

from collections.abc import Collection, Sequence

import msgspec

from config.faults import ConfigFaults, Fault
from config.schema import ModelAlias
from core.globs import MAX_PATTERN, Glob, GlobIndex
from routing.plan import split_target

MAX_STEPS = 100
"""Entries that one name goes through at most: each request follows them."""
_SHOWN = 10
"""Entries of a cycle that a fault names."""


class AliasStep(msgspec.Struct, frozen=True):
    """One entry applied."""

    from_: str = msgspec.field(name="from")
    to: str
    result: str


class AliasChain(msgspec.Struct, frozen=True):
    """A name, resolved."""

    name: str
    """What the name has become: ``provider/model`` or a plain model name."""
    steps: tuple[AliasStep, ...] = ()

    @property
    def pattern(self) -> str | None:
        """The configured text that the name was made from: the last entry's ``to``; None where no entry applied."""
        return self.steps[-1].to if self.steps else None


class Aliases:
    """The entries of `model_aliases`, compiled."""

    __slots__ = ("_entries", "_index", "_providers", "names")

    def __init__(self, entries: Sequence[ModelAlias], providers: Collection[str]) -> None:
        """
        Raises:
            ConfigFaults: bad globs, captures that do not fit, cycles and endless chains of exact names.
        """
        self._providers = frozenset(providers)
        faults: list[Fault] = []
        compiled: list[tuple[Glob, str, int]] = []
        for place, entry in enumerate(entries):
            try:
                glob = Glob(entry.from_)
            except ValueError as error:
                faults.append(Fault(("model_aliases", place, "from"), str(error)))
                continue
            if fault := _captures_fault(glob, entry.to, place):
                faults.append(fault)
            compiled.append((glob, entry.to, place))
        self.names = tuple(name for glob, _, _ in compiled for name in glob.names)
        """Every name that an exact entry stands for, in file order."""
        # Positions in the index are ranks, so that the most specific entry is found first.
        compiled.sort(key=lambda entry: (entry[0].specificity, entry[2]))
        self._entries = tuple(compiled)
        self._index = GlobIndex((glob, rank) for rank, (glob, _, _) in enumerate(compiled))
        faults += self._chain_faults()
        if faults:
            raise ConfigFaults(faults)

    def resolve(self, name: str) -> AliasChain:
        """Follow ``name`` through the entries. The client's own spelling may be aliased even where it names a target."""
        steps: list[AliasStep] = []
        applied: set[int] = set()
        while len(steps) < MAX_STEPS and (rank := self._next(name, applied)) is not None:
            applied.add(rank)
            glob, to, _ = self._entries[rank]
            name = _fill(to, glob.captures(name) or ())
            steps.append(AliasStep(glob.pattern, to, name))
            if split_target(name)[0] in self._providers and "/" in name:
                break  # a target is never aliased again
        return AliasChain(name, tuple(steps))

    def takes(self, name: str, besides: int) -> bool:
        """Whether any entry but the one at place ``besides`` applies to ``name``."""
        return any(self._entries[rank][2] != besides for rank in self._index.matching(name))

    def _next(self, name: str, applied: Collection[int]) -> int | None:
        for rank in self._index.matching(name):
            if rank not in applied:
                return rank
        return None

    def _chain_faults(self) -> list[Fault]:
        """A fault for each cycle among exact entries, told at the entry of the cycle that stands first in the file;
        and one for each entry from which the way on first exceeds :data:`MAX_STEPS`."""
        faults: list[Fault] = []
        lengths: dict[int, int] = {}
        exact = [rank for rank, (glob, _, _) in enumerate(self._entries) if glob.exact]
        for start in sorted(exact, key=lambda rank: self._entries[rank][2]):
            trail: dict[int, None] = {}  # in the order of the way
            at: int | None = start
            while at is not None and at not in trail and at not in lengths and self._entries[at][0].exact:
                trail[at] = None
                to = self._entries[at][1]
                is_target = "/" in to and split_target(to)[0] in self._providers
                at = None if is_target else self._next(to, ())
            if at in trail:
                way = list(trail)
                cycle = way[way.index(at) :]
                first = min(cycle, key=lambda rank: self._entries[rank][2])
                turned = cycle[cycle.index(first) :] + cycle[: cycle.index(first)]
                chain = " → ".join(f"`{self._entries[rank][0].pattern}`" for rank in (*turned[:_SHOWN], first))
                place = self._entries[first][2]
                faults.append(
                    Fault(
                        ("model_aliases", place, "to"),
                        f"the aliases go in a circle: {chain}; let one end in provider/model",
                    )
                )
            length = 0 if at is None else lengths.get(at, 0)
            for rank in reversed(trail):
                length += 1
                lengths[rank] = length
                if length == MAX_STEPS + 1 and at not in trail:
                    faults.append(
                        Fault(
                            ("model_aliases", self._entries[rank][2], "to"),
                            f"more than {MAX_STEPS} aliases one after the other: let it name the end of the chain",
                        )
                    )
        return faults


def _captures_fault(glob: Glob, to: str, place: int) -> Fault | None:
    path = ("model_aliases", place, "to")
    if len(to) > MAX_PATTERN:
        return Fault(path, f"a name of {len(to)} characters is too long: keep it within {MAX_PATTERN}")
    wanted = to.count("*")
    if wanted in (0, glob.captures_count):
        return None
    if glob.captures_count is None:
        return Fault(
            path, f"`{to}` takes captures, but the alternatives of `{glob.pattern}` have different numbers of `*`"
        )
    return Fault(
        path,
        f"`{to}` has {wanted} `*` where `{glob.pattern}` captures {glob.captures_count}: use as many, or none",
    )


def _fill(to: str, captures: Sequence[str]) -> str:
    if "*" not in to:
        return to
    head, *rest = to.split("*")
    return head + "".join(capture + text for capture, text in zip(captures, rest, strict=True))
