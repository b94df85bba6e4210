"""What is shown of the configuration: its values, where each stands, its files, and how two states of it differ.

Nothing here shows a secret. Pure, but slow for large documents: call it in a thread.
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from config.defaults import with_defaults
from config.document import Document, Place, parse
from config.edit.errors import Unreadable
from config.faults import ConfigFaults
from config.merge import merge
from management.editing.editor import Files
from management.handler.json_text import encode
from management.secrets.entry_values import shown_document
from management.secrets.secret_values import masked_document

MOST_COMPARED_LINES = 10_000
"""Of each side, without what is equal before and behind: what takes longest grows with their product."""
HIDDEN = "a secret, which is not shown, differs"
UNSHOWN = "it cannot be read, so nothing of it is shown"

_CONTEXT_LINES = 3

PlainFiles = Iterable[tuple[str, bytes]]
"""Names, relative to the root's directory, and contents; the root first."""


class ValueSource(msgspec.Struct, frozen=True):
    """Where a value stands. ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int


class ConfigShown(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration on the disk, without its secrets."""

    revision: str
    in_force: str
    """The revision that answers requests; another one where the files were refused."""
    files: tuple[str, ...]
    """Relative to the root's directory; the root first, then what it includes."""
    config: dict[str, Any]
    """As it is written, before references."""
    effective: dict[str, Any]
    """The same with the defaults of what is left out."""
    sources: dict[str, ValueSource]
    """By JSON pointer (RFC 6901) into ``config``."""


class FileShown(msgspec.Struct, frozen=True):
    """A file of a configuration."""

    file: str
    text: str | None
    """With `${kept}` in the place of each secret; null where it cannot be read, so that nobody knows what is one."""


def read_document(files: Files) -> Document:
    """The files as one document.

    Raises:
        config.edit.errors.Unreadable: one of them cannot be parsed.
    """
    root, *included = (parse(file.data, file.shown) for file in files)
    document = merge(root, included)
    if document.faults:
        raise Unreadable(document.faults)
    return document


def shown_config(files: Files, revision: str, in_force: str) -> bytes:
    """The JSON of a :class:`ConfigShown`.

    Raises:
        config.edit.errors.Unreadable: a file cannot be parsed.
    """
    document = read_document(files)
    names = {file.shown: shown_name(file.relative) for file in files}
    shown = ConfigShown(
        revision=revision,
        in_force=in_force,
        files=tuple(names.values()),
        config=shown_document(document.value),
        effective=shown_document(with_defaults(document.value)),
        sources=dict(_sources(document.place, names)),
    )
    return encode(shown)


def shown_files(files: PlainFiles) -> tuple[FileShown, ...]:
    """Each with its secrets masked."""
    return tuple(FileShown(shown_name(name), _masked_text(name, data)) for name, data in files)


def shown_name(relative: str) -> str:
    """The name of a file as JSON can hold it: names on the disk need not be UTF-8."""
    return os.fsencode(relative).decode(errors="replace")


def difference(before: PlainFiles, after: PlainFiles) -> str:
    """A unified diff of two states of a configuration, with the secrets masked; empty where they are equal."""
    old, new = dict(before), dict(after)
    return "".join(
        chain.from_iterable(
            _file_difference(name, old.get(name), new.get(name))
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        )
    )


def _file_difference(name: str, old: bytes | None, new: bytes | None) -> Iterator[str]:
    shown = shown_name(name)
    yield f"--- {'/dev/null' if old is None else shown}\n+++ {'/dev/null' if new is None else shown}\n"
    texts = [b"" if data is None else data for data in (old, new)]
    masked = [_masked_text(name, data) for data in texts]
    if masked[0] is None or masked[1] is None:
        yield f"# {UNSHOWN}\n"
    elif masked[0] == masked[1]:
        yield f"# {HIDDEN}\n"
    else:
        yield from _hunks(*(text.splitlines() for text in masked if text is not None))


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    most = min(len(old), len(new))
    head = next((number for number in range(most) if old[number] != new[number]), most)
    tail = next(
        (number for number in range(most - head) if old[-1 - number] != new[-1 - number]),
        most - head,
    )
    head, tail = max(head - _CONTEXT_LINES, 0), max(tail - _CONTEXT_LINES, 0)
    old, new = old[head : len(old) - tail], new[head : len(new) - tail]
    if max(len(old), len(new)) > MOST_COMPARED_LINES:
        yield f"# {len(old)} lines from line {head + 1} on become {len(new)}: too many to be compared here\n"
        return
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(_CONTEXT_LINES):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(head, first[1], last[2])} +{_range(head, first[3], last[4])} @@\n"
        for kind, old_start, old_end, new_start, new_end in group:
            if kind == "equal":
                yield from (f" {line}\n" for line in old[old_start:old_end])
                continue
            yield from (f"-{line}\n" for line in old[old_start:old_end])
            yield from (f"+{line}\n" for line in new[new_start:new_end])


def _range(head: int, start: int, end: int) -> str:
    """As GNU diff writes it: where there is no line, the number of the one before."""
    length = end - start
    begin = head + start + (1 if length else 0)
    return str(begin) if length == 1 else f"{begin},{length}"


def _masked_text(name: str, data: bytes) -> str | None:
    try:
        return masked_document(data, name).decode()
    except ConfigFaults:
        return None


def _sources(place: Place, names: dict[str, str], pointer: str = "") -> Iterator[tuple[str, ValueSource]]:
    inner: Iterable[tuple[str, Place]]
    if isinstance(place.inner, dict):
        inner = place.inner.items()
    else:
        inner = ((str(number), each) for number, each in enumerate(place.inner or ()))
    for step, each in inner:
        below = f"{pointer}/{step.replace('~', '~0').replace('/', '~1')}"
        yield below, ValueSource(names.get(each.file, each.file), each.line, each.column)
        yield from _sources(each, names, below)
