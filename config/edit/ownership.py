"""Which file of a document an intended value belongs to."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from config.document import Value
from config.edit.values import pair


def distribute(files: Sequence[dict[str, Value]], intended: dict[str, Value]) -> list[dict[str, Value]]:
    """What each file shall hold so that all together hold ``intended``: the inverse of :func:`config.merge.merge`.

    What is there already stays in its file, and what is new goes to the root (the first), or to the file of the mapping
    that it is new in. Entries of lists stay in theirs as far as the order of ``intended`` allows.
    """
    found = _mapping(dict(enumerate(files)), intended, 0)
    return [found.get(number, {}) for number in range(len(files))]


def _mapping(
    parts: Mapping[int, dict[str, Value]], intended: dict[str, Value], home: int
) -> dict[int, dict[str, Value]]:
    """By file; ``home`` is where new keys go."""
    given: dict[str, dict[int, Value]] = {
        key: _value({number: part[key] for number, part in parts.items() if key in part}, value, home)
        for key, value in intended.items()
    }
    found: dict[int, dict[str, Value]] = {}
    for number, part in parts.items():
        # In the order of the file, then what is new in it.
        keys = [*part, *(key for key in given if key not in part)]
        found[number] = {key: given[key][number] for key in keys if key in given and number in given[key]}
    return found


def _value(parts: dict[int, Value], intended: Value, home: int) -> dict[int, Value]:
    if not parts:
        return {home: intended}
    mappings = {number: part for number, part in parts.items() if isinstance(part, dict)}
    if isinstance(intended, dict) and len(mappings) == len(parts):
        return dict(_mapping(mappings, intended, min(parts)))
    lists = {number: part for number, part in parts.items() if isinstance(part, list)}
    if isinstance(intended, list) and len(lists) == len(parts):
        return dict(_list(lists, intended))
    return {min(parts): intended}


def _list(parts: dict[int, list[Value]], intended: list[Value]) -> dict[int, list[Value]]:
    files = [number for number, part in parts.items() for _ in part]
    old = [value for part in parts.values() for value in part]
    owners = [None if number is None else files[number] for number in pair(old, intended)]
    staying = _longest_ascent(owners)
    found: dict[int, list[Value]] = {number: [] for number in parts}
    present = min(parts)
    for place, value in enumerate(intended):
        owner = owners[place]
        if place in staying and owner is not None:
            present = owner
        found[present].append(value)
    return found


def _longest_ascent(owners: Sequence[int | None]) -> set[int]:
    """Places whose owners, in this order, never fall; as many as can be."""
    ends: list[int] = []
    places: list[int] = []
    before: dict[int, int | None] = {}
    for place, owner in enumerate(owners):
        if owner is None:
            continue
        length = bisect_right(ends, owner)
        before[place] = places[length - 1] if length else None
        ends[length : length + 1] = [owner]
        places[length : length + 1] = [place]
    staying: set[int] = set()
    step = places[-1] if places else None
    while step is not None:
        staying.add(step)
        step = before[step]
    return staying
