"""The document, loaded as `serve` loads it; and where that fails, as much of it as does load."""

from pathlib import Path as FilePath

import msgspec

from config.document import Document, Place, Value, parse
from config.faults import ConfigFaults, Fault, Notice, Path
from config.load import RejectedConfig
from config.merge import merge
from config.sources import SourceFile, include_patterns, read_includes, read_root
from gateway.build import Generation, load_and_build
from gateway.doctor.draft import Draft
from gateway.resources import Resources

_MOST_ROUNDS = 20


class Examined(msgspec.Struct):
    """What is known of the document."""

    path: FilePath
    files: dict[str, FilePath]
    """All that it is made of, by the names that findings have for them."""
    faults: tuple[Fault, ...]
    """Every one that `./sluice check` tells, and those behind them. Located."""
    generation: Generation | None
    """All of the document that loads, without what is at fault; None: nothing does."""
    whole: bool
    """Whether that is all."""
    value: dict[str, Value]
    """The document as written: references are not resolved."""
    place: Place
    draft: Draft
    unread: frozenset[Path]
    """Where the values are that could not be had, by the document as written."""

    def original(self, path: Path) -> Path:
        """Where in the document the value of the configuration at ``path`` is written."""
        return self.draft.original(path)

    def is_damaged(self, path: Path, but: str | None = None) -> bool:
        """Whether something at ``path`` of the document as written, above or beneath it could not be had.

        What is beneath its key ``but`` does not count.
        """
        return any(
            each[: len(path)] == path[: len(each)] and (but is None or each[len(path) : len(path) + 1] != (but,))
            for each in self.unread
        )

    def notices(self) -> tuple[Notice, ...]:
        """Advice, where the document is whole: of a part of it none would be right."""
        return self.generation.loaded.notices if self.generation is not None and self.whole else ()


def examine(path: FilePath, resources: Resources, *, offline: bool) -> Examined:
    """Load the document at ``path``; ``offline``: what Vault has is left out. Waits for files and for Vault."""
    document, files = _read(path)
    draft = Draft(document.value)
    left_out = _leave_network_out(draft, document.value) if offline else frozenset[Path]()
    try:
        generation = load_and_build(path, resources, (_copy(draft, path),) if left_out else None)
    except RejectedConfig as rejected:
        faults = rejected.faults
        if left_out:
            faults = (*document.faults, *_relocated(faults, draft, document.place, left_out))
        return _examine_rest(path, resources, files, faults, document, draft, left_out)
    return Examined(
        path,
        files,
        document.faults if left_out else (),
        generation,
        not left_out,
        document.value,
        document.place,
        draft,
        left_out,
    )


def _examine_rest(
    path: FilePath,
    resources: Resources,
    files: dict[str, FilePath],
    first: tuple[Fault, ...],
    document: Document,
    draft: Draft,
    left_out: frozenset[Path],
) -> Examined:
    """Take out what is at fault until the rest loads."""
    told = list(first)
    # What the reader tells has no path.
    paths = {fault.path for fault in first if fault.path}
    generation = None
    found = tuple(fault.path for fault in first)
    for _ in range(_MOST_ROUNDS):
        changed = draft.mend(found)
        if not document.value or not (changed or document.faults):
            break
        trusted = not draft.entries_gone
        try:
            generation = load_and_build(path, resources, (_copy(draft, path),))
            break
        except RejectedConfig as rejected:
            further = _relocated(rejected.faults, draft, document.place, left_out)
            found = tuple(fault.path for fault in further)
            told += [fault for fault in further if trusted and not _touches(fault.path, paths)]
            paths |= {each for each in found if each}
    return Examined(
        path,
        files,
        tuple(told),
        generation,
        False,
        document.value,
        document.place,
        draft,
        left_out | paths,
    )


def _read(path: FilePath) -> tuple[Document, dict[str, FilePath]]:
    """The files as one document, which is empty where they cannot be read, as loading tells; and their paths."""
    try:
        root = parse(read_root(path).data, str(path))
    except ConfigFaults:
        return Document({}, Place(str(path), 1, 1)), {}
    included, _ = read_includes(path, include_patterns(root))
    paths = {file.shown: path.absolute().parent / file.relative for file in included}
    return merge(root, [parse(file.data, file.shown) for file in included]), {str(path): path.absolute(), **paths}


def _leave_network_out(draft: Draft, value: dict[str, Value]) -> frozenset[Path]:
    """Leave out what only Vault has; where that was written."""
    own = value.get("secrets")
    if not isinstance(own, dict) or not isinstance(own.get("vault"), dict):
        return frozenset()
    schemes = {"vault"}
    paths: set[Path] = {("secrets", "vault")}
    keys = own.get("master_key")
    if isinstance(keys, dict) and keys.get("transit") is not None:
        schemes.add("sealed")
        paths |= {("secrets", "master_key"), ("secrets", "persist")}
    for path in paths:
        draft.take_out(path)
    return frozenset(paths | draft.take_out_references(frozenset(schemes)))


def _copy(draft: Draft, path: FilePath) -> SourceFile:
    return draft.source(str(path), path.name)


def _relocated(faults: tuple[Fault, ...], draft: Draft, place: Place, left_out: frozenset[Path]) -> tuple[Fault, ...]:
    """Faults of a copy, by their places in the document; without those that are due to what was left out."""
    moved = [msgspec.structs.replace(fault, path=draft.original(fault.path)) for fault in faults]
    return tuple(
        place.locate(fault, at_key=fault.message.startswith("unknown key"))
        for fault in moved
        if not _touches(fault.path, left_out)
    )


def _touches(path: Path, others: set[Path] | frozenset[Path]) -> bool:
    """Whether one of ``others`` is at ``path``, above it or beneath it."""
    return any(path[: len(other)] == other[: len(path)] for other in others)
