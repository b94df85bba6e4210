"""A document less what is wrong with it, so that the rest can be looked at."""

import copy
from collections.abc import Iterable

import msgspec

from config.document import Value
from config.faults import Path
from config.json_schema import Shape, shape
from config.references import Reference, ReferenceFault, parse_template
from config.sources import SourceFile

PLACEHOLDER = "unreadable"
"""Stands for a secret that cannot be had."""
_PLACEHOLDERS = {"proxy_url": "direct"}
"""Where that would be a fault of its own."""


class _Gone:
    """Stands where something was taken out, so that what is behind it in a list keeps its number."""


_GONE = _Gone()


class Draft:
    """Takes a merged document apart, by the paths of its faults."""

    def __init__(self, value: dict[str, Value]) -> None:
        self._value: dict[str, object] = copy.deepcopy(value)  # type: ignore[arg-type]  # a dict of any values
        # The files are merged already.
        self._value.pop("include", None)
        self._placed: set[Path] = set()
        self.entries_gone = False
        """Whether a list has lost an entry, which others may refer to: what is wrong then may be wrong by that."""

    def mend(self, paths: Iterable[Path]) -> bool:
        """Take out what is at fault at ``paths``, or a secret's value alone; whether that changed anything."""
        existing = {(self._existing(path), path) for path in paths}
        nearest = {found for found, _ in existing if found}
        for found, path in existing:
            if any(found[:depth] in nearest for depth in range(1, len(found))):
                continue
            if found == path and path not in self._placed and self._is_secret(path):
                self._placed.add(path)
                _set(self._at(path[:-1]), path[-1], _PLACEHOLDERS.get(str(path[-1]), PLACEHOLDER))
            elif found:
                self.take_out(found)
        return bool(nearest)

    def take_out_references(self, schemes: frozenset[str]) -> set[Path]:
        """Take out what refers to one of ``schemes``; where that is."""
        found = {path for path, text, _ in texts(self._value) if schemes & {each.scheme for each in references(text)}}
        self.mend(found)
        return found

    def take_out(self, path: Path) -> None:
        """Take out the value at ``path``, if there is any."""
        holder = self._at(path[:-1])
        if isinstance(holder, dict):
            holder.pop(path[-1], None)
        elif isinstance(holder, list):
            self.entries_gone = True
            _set(holder, path[-1], _GONE)

    def source(self, shown: str, name: str) -> SourceFile:
        """What is left, as the one file of a document. JSON is YAML."""
        return SourceFile(shown, name, msgspec.json.encode(_compact(self._value)))

    def original(self, path: Path) -> Path:
        """Where the value stood in the document that is at ``path`` in :meth:`source`."""
        value: object = self._value
        found: list[str | int] = []
        for step in path:
            if isinstance(value, list) and isinstance(step, int):
                left = [number for number, entry in enumerate(value) if entry is not _GONE]
                place = left[step] if step < len(left) else step
                found.append(place)
                value = value[place] if place < len(value) else None
            else:
                found.append(step)
                value = value.get(step) if isinstance(value, dict) else None
        return tuple(found)

    def _is_secret(self, path: Path) -> bool:
        return _shape_at(path).secret and isinstance(self._at(path), str)

    def _existing(self, path: Path) -> Path:
        """``path`` as far as there is something."""
        value: object = self._value
        for depth, step in enumerate(path):
            value = _get(value, step)
            if value is _GONE:
                return path[:depth]
        return path

    def _at(self, path: Path) -> object:
        value: object = self._value
        for step in path:
            value = _get(value, step)
        return value


def texts(value: object, below: Shape | None = None, path: Path = ()) -> list[tuple[Path, str, bool]]:
    """Every text of a document with its path, and whether a secret stands there."""
    form = shape() if below is None else below
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in texts(inner, form.at(key), (*path, key))]
    if isinstance(value, list):
        items = form.items or Shape(frozenset())
        return [text for number, inner in enumerate(value) for text in texts(inner, items, (*path, number))]
    return [(path, value, form.secret)] if isinstance(value, str) else []


def references(text: str) -> list[Reference]:
    """Those in a text; none where it cannot be read, which loading tells."""
    try:
        return [piece for piece in parse_template(text) if isinstance(piece, Reference)]
    except ReferenceFault:
        return []


def _shape_at(path: Path) -> Shape:
    found = shape()
    for step in path:
        found = found.at(step) if isinstance(step, str) else found.items or Shape(frozenset())
    return found


def _get(holder: object, step: str | int) -> object:
    """The value, or ``_GONE`` where there is none."""
    if isinstance(holder, dict):
        return holder.get(step, _GONE)
    if isinstance(holder, list) and isinstance(step, int) and step < len(holder):
        return holder[step]
    return _GONE


def _set(holder: object, step: str | int, value: object) -> None:
    assert isinstance(holder, dict | list)
    holder[step] = value  # type: ignore[index]  # a number for a list


def _compact(value: object) -> object:
    if isinstance(value, dict):
        return {key: _compact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_compact(inner) for inner in value if inner is not _GONE]
    return value
