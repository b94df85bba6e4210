"""The document, loaded as `serve` loads it; and where that fails, as much of it as does load."""

from pathlib import Path as FilePath

import msgspec

from config.document import Document, Place, Value, parse
from config.faults import ConfigFaults, Fault, Notice, Path
from config.load import RejectedConfig
from config.merge import merge
from config.sealing import KeyRing
from config.secret_stores import SecretStores
from config.sources import SourceFile, Sources, read_includes, read_root
from config.vault.settings import VaultSettings
from config.vault.values import VaultValues
from gateway.build import Generation, load_and_build
from gateway.doctor.draft import Draft
from gateway.resources import Resources

_MOST_ROUNDS = 20


class StoresOfOneVault(SecretStores):
    """Signs in to Vault once, however often the document is loaded, and gives that back in the end."""

    def vault(self, settings: VaultSettings, keys: KeyRing | None, directory: FilePath) -> VaultValues:
        """See :meth:`config.secret_stores.SecretStores.vault`."""
        values = super().vault(settings, keys, directory)
        former, self.in_force = self.in_force, values
        if former is not None and former is not values:
            former.close()
        return values


class Examined(msgspec.Struct):
    """What is known of the document."""

    path: FilePath
    sources: Sources
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

    def notices(self) -> tuple[Notice, ...]:
        """Advice, where the document is whole: of a part of it none would be right."""
        return self.generation.loaded.notices if self.generation is not None and self.whole else ()


def examine(path: FilePath, resources: Resources, *, offline: bool) -> Examined:
    """Load the document at ``path``; ``offline``: what Vault has is left out. Waits for files and for Vault."""
    document = _read(path)
    draft = Draft(document.value)
    left_out = _leave_network_out(draft, document.value) if offline else frozenset[Path]()
    try:
        generation = load_and_build(path, resources, (_copy(draft, path),) if left_out else None)
    except RejectedConfig as rejected:
        faults = rejected.faults
        if left_out:
            faults = (*document.faults, *_relocated(faults, draft, document.place, left_out))
        return _examine_rest(path, resources, rejected.sources, faults, document, draft, left_out)
    return Examined(
        path,
        generation.loaded.sources,
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
    sources: Sources,
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
            paths |= set(found)
    return Examined(
        path,
        sources,
        tuple(told),
        generation,
        False,
        document.value,
        document.place,
        draft,
        left_out | {fault.path for fault in told},
    )


def _read(path: FilePath) -> Document:
    """The files as one document; empty where they cannot be read, which loading tells."""
    try:
        root = parse(read_root(path).data, str(path))
    except ConfigFaults:
        return Document({}, Place(str(path), 1, 1))
    patterns = root.value.get("include")
    included, _ = read_includes(
        path, [each for each in patterns if isinstance(each, str)] if isinstance(patterns, list) else []
    )
    return merge(root, [parse(file.data, file.shown) for file in included])


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
