"""Answers as text for people: tables of lists, lines of objects. Programs take `--json`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

_MOST_CHARACTERS = 48
"""Of a cell, on a terminal."""
_GAP = "  "


def as_json(value: Any) -> str:
    """Indented, its text in ASCII: a terminal obeys none of it."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode().translate(_CONTROLS)


def as_text(value: Any, *, cut: bool = False) -> Iterator[str]:
    """Lines. With ``cut`` long cells of tables are shortened."""
    if isinstance(value, Mapping) and isinstance(value.get("data"), list) and _is_table(value["data"]):
        yield from _table(value["data"], cut=cut)
    elif isinstance(value, Mapping):
        yield from _object(value, cut=cut)
    elif isinstance(value, list) and _is_table(value):
        yield from _table(value, cut=cut)
    else:
        yield _cell(value)


def escaped(text: str) -> str:
    """``text`` with nothing in it that a terminal would obey."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


# What JSON leaves as it is though terminals may obey it: DEL and the controls of Latin-1.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def _is_table(rows: Sequence[Any]) -> bool:
    return all(isinstance(row, Mapping) for row in rows)


def _is_flat(value: Any) -> bool:
    return not isinstance(value, Mapping) and not (
        isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value)
    )


def _fits(value: Any) -> bool:
    """Whether it is short enough for a cell: what is flat, and a mapping of single values."""
    if isinstance(value, Mapping):
        return not any(isinstance(each, Mapping | list) for each in value.values())
    return _is_flat(value)


def _table(rows: Sequence[Mapping[str, Any]], *, cut: bool) -> Iterator[str]:
    """The columns whose values fit into a cell and are not all empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    shown = [
        name
        for name in names
        if all(_fits(row.get(name)) for row in rows) and any(row.get(name) not in (None, [], {}, "") for row in rows)
    ]
    lines = [[name.upper() for name in shown]]
    lines += [[_cell(row.get(name), _MOST_CHARACTERS if cut else None) for name in shown] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(shown))]
    if not rows:
        return
    for line in lines:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _object(value: Mapping[str, Any], *, cut: bool) -> Iterator[str]:
    flat = {name: each for name, each in _flattened(value) if _is_flat(each)}
    width = max((len(name) for name in flat), default=0)
    for name, each in flat.items():
        cell = _cell(each)
        yield f"{escaped(name).ljust(width)}{_GAP}{cell}".rstrip()
    for name, each in _flattened(value):
        if not _is_flat(each):
            yield f"{escaped(name)}"
            inner = _table(each, cut=cut) if _is_table(each) else (_cell(item) for item in each)
            yield from (f"{_GAP}{line}" for line in inner)


def _flattened(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, Mapping) and each:
            yield from _flattened(each, f"{before}{name}.")
        else:
            yield f"{before}{name}", None if each == {} else each


def _cell(value: Any, most: int | None = None) -> str:
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case str():
            text = value
        case list() if all(isinstance(each, str | int | float) for each in value):
            text = ", ".join(str(each) for each in value) or "-"
        case {}:
            told = [f"{name} {_cell(each)}" for name, each in value.items() if each is not None]
            text = ", ".join(told) or "-"
        case _:
            text = msgspec.json.encode(value).decode()
    text = escaped(text)
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"
