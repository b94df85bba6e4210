"""What the rules over edits (:mod:`management.secrets.guard`) share: entries of documents where they stand, values as they
are compared, and what is found to be wrong."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from config.document import Value
from config.faults import Fault, Path
from management.errors import ManagementCode
from management.secrets.allowed_references import AllowedReferences, references_in
from management.secrets.secret_places import EACH, Ground, Place, Spot, whole

Entry = dict[str, Value]
Pattern = tuple[str, ...]
"""The way to mappings of a document, with ``*`` for each entry of a list."""


class GuardRefused(Exception):
    """The API may not make this edit; the file can be edited. ``faults`` is never empty and shows no value."""

    def __init__(self, code: ManagementCode, faults: Iterable[Fault]) -> None:
        self.code = code
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Found(NamedTuple):
    """Something that is wrong with an edit."""

    code: ManagementCode
    fault: Fault


class Standing(NamedTuple):
    """A mapping where it stands."""

    path: Path
    place: Place
    entry: Entry


def standing(document: Value, pattern: Pattern, path: Path = (), place: Place = ()) -> Iterator[Standing]:
    """The mappings of ``document`` at ``pattern``; of lists, those entries that have a name."""
    if not pattern:
        if isinstance(document, dict):
            yield Standing(path, place, document)
        return
    step, *rest = pattern
    if step != EACH:
        if isinstance(document, dict):
            yield from standing(document.get(step), tuple(rest), (*path, step), (*place, step))
        return
    for number, entry in enumerate(document if isinstance(document, list) else []):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str):
            yield from standing(entry, tuple(rest), (*path, number), (*place, ("name", name)))


def by_place(document: Value, pattern: Pattern) -> dict[Place, list[Entry]]:
    """The same by their place, which several may have."""
    found: dict[Place, list[Entry]] = {}
    for each in standing(document, pattern):
        found.setdefault(each.place, []).append(each.entry)
    return found


def ground_of(pattern: Pattern) -> Ground:
    """The ground of what stands at ``pattern``."""
    ground = whole()
    for step in pattern:
        ground = ground.entries if step == EACH else ground.under(step)
    return ground


def at(document: Entry, path: tuple[str, ...]) -> Value:
    """What stands at ``path``; None: nothing."""
    value: Value = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def pruned(value: Value) -> Value:
    """Without what says nothing: null, and mappings with nothing in them."""
    if not isinstance(value, dict):
        return value
    inner = {key: pruned(each) for key, each in value.items()}
    return {key: each for key, each in inner.items() if each is not None} or None


def was_given(spot: Spot, allowed: AllowedReferences, given: frozenset[Place]) -> bool:
    """Whether the caller knows the secret at ``spot``, or may name it wherever it wants."""
    references = references_in(spot.value)
    is_written_out = spot.exact_place in given or bool(references and not spot.ground.is_designated)
    return is_written_out and all(allowed.allows(each) for each in references)
