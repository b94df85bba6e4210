"""Several files as one document."""

from collections.abc import Iterable

import msgspec

from config.document import Document, Place, Value
from config.faults import Fault, Path


def merge(root: Document, included: Iterable[Document]) -> Document:
    """The root with its included files: mappings are joined, lists appended in the order of the files.

    A value that two files set is a fault of the later one, and so is an `include` outside the root.
    """
    value: Value = root.value
    place = root.place
    faults = list(root.faults)
    for document in included:
        faults += document.faults
        added = dict(document.value)
        if added.pop("include", None) is not None:
            fault = Fault(("include",), "an included file may not include: name the file in the root")
            faults.append(document.place.locate(fault, at_key=True))
        value, place = _join(value, place, added, document.place, (), faults)
    assert isinstance(value, dict)
    return Document(value, place, tuple(faults))


def _join(
    value: Value, place: Place, added: Value, added_place: Place, path: Path, faults: list[Fault]
) -> tuple[Value, Place]:
    match value, added:
        case dict(), dict():
            values, places = dict(value), dict(place.keys)
            for key, inner in added.items():
                found = inner, added_place.keys[key]
                if key in values:
                    found = _join(values[key], places[key], *found, (*path, key), faults)
                values[key], places[key] = found
            return values, msgspec.structs.replace(place, inner=places)
        case list(), list():
            return [*value, *added], msgspec.structs.replace(place, inner=[*place.items, *added_place.items])
    message = f"set twice: {place.file}:{place.key_line} sets it already; keep it in one file"
    faults.append(Fault(path, message, added_place.file, added_place.key_line, added_place.key_column))
    return value, place
