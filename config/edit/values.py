"""Values compared and told apart."""

from collections import deque
from collections.abc import Sequence

from config.document import Value

_NAMES = ("name", "from", "to")
"""What tells the entries of a list apart, the first that an entry has."""


def is_same(one: Value, other: Value) -> bool:
    """Equal in types too (`1` is neither `1.0` nor `true`); NaN equals NaN; the order of keys does not count."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return repr(one) == repr(other)


def pair(old: Sequence[Value], new: Sequence[Value]) -> list[int | None]:
    """For each entry of ``new`` the number of the entry of ``old`` that it goes on from; None for new ones.

    Entries are the same by name; those without a name when they are equal; what is left, when it stands at the same
    place and is a mapping or list without a name too.
    """
    waiting: dict[object, deque[int]] = {}
    for number, value in enumerate(old):
        waiting.setdefault(_identity(value), deque()).append(number)
    found = [queue.popleft() if (queue := waiting.get(_identity(value))) else None for value in new]
    taken = set(found)
    for number, value in enumerate(new[: len(old)]):
        if found[number] is None and number not in taken and _is_alike(old[number], value):
            found[number] = number
    return found


def name_of(value: Value) -> tuple[str, str] | None:
    """What tells an entry of a list from the others: a field and its text; None where it has none."""
    if isinstance(value, dict):
        for field in _NAMES:
            name = value.get(field)
            if isinstance(name, str):
                return field, name
    return None


def _identity(value: Value) -> object:
    return name_of(value) or (type(value), _canonical(value))


def _canonical(value: Value) -> str:
    if isinstance(value, dict):
        inner = ",".join(f"{key!r}:{_canonical(value[key])}" for key in sorted(value))
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_canonical, value))}]"
    return repr(value)


def _is_alike(old: Value, new: Value) -> bool:
    return isinstance(old, dict | list) and type(old) is type(new) and name_of(old) is None and name_of(new) is None
