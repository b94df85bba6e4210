"""The files that make a document: the root and what its `include:` globs name; their bytes and the revision."""

import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from config.document import MAX_DOCUMENT_BYTES, Document
from config.faults import ConfigFaults, Fault

MAX_INCLUDED_FILES = 1000


class Sources(msgspec.Struct, frozen=True):
    """What a document was read from: everything that a change of it can come through. All paths are absolute."""

    root: Path
    revision: str | None = None
    """What was read; None where some file could not be."""
    includes: tuple[str, ...] = ()
    """The globs of `include:`, as written; relative ones begin at the root's directory."""
    secret_files: frozenset[Path] = frozenset()
    """Targets of `${file:…}`."""
    interpolated_files: frozenset[Path] = frozenset()
    """Those of them that stand in ordinary fields: their change takes effect by a reload alone."""


class SourceFile(msgspec.Struct, frozen=True):
    """One file of a document, as read at one moment."""

    shown: str
    """The path as an operator would write it: for faults."""
    relative: str
    """The path from the root's directory: for the revision, which must not depend on where the directory is."""
    data: bytes


def revision_of(files: Iterable[SourceFile]) -> str:
    """SHA-256 of (path, bytes) of the root and then its includes in sorted order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        path = file.relative.encode("utf-8", "surrogateescape")
        # Lengths first, so that no two sets of files read as the same run of bytes.
        digest.update(b"%d:%b%d:" % (len(path), path, len(file.data)))
        digest.update(file.data)
    return digest.hexdigest()


def include_patterns(document: Document) -> tuple[str, ...]:
    """The globs of `include` in a root ``document``; whatever else stands there is left for the schema to tell."""
    patterns = document.value.get("include")
    return tuple(each for each in patterns if isinstance(each, str)) if isinstance(patterns, list) else ()


def read_root(path: str | Path) -> SourceFile:
    """The root file.

    Raises:
        ConfigFaults: it cannot be read.
    """
    return SourceFile(str(path), Path(path).name, _read(Path(path), str(path)))


def read_includes(root: str | Path, patterns: Iterable[str]) -> tuple[list[SourceFile], list[Fault]]:
    """The files that the globs of `include:` name, each once, sorted by path; and what could not be read.

    A pattern without wildcards must name a file, one with wildcards need not. The root itself is passed over.
    """
    directory = Path(root).parent
    names: set[str] = set()
    faults: list[Fault] = []
    for index, pattern in enumerate(patterns):
        if "${" in pattern:
            faults.append(Fault(("include", index), "references are not read here: write the path itself"))
            continue
        found = [
            os.path.normpath(name)
            for name in glob.iglob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207 - absolute ones too
            if not (directory / name).is_dir() and not _is_same(directory / name, Path(root))
        ]
        if not found and not glob.has_magic(pattern):
            faults.append(Fault(("include", index), "there is no such file: correct the path, or use a wildcard"))
        names.update(found)
    if len(names) > MAX_INCLUDED_FILES:
        return [], [Fault(("include",), f"names {len(names)} files, more than {MAX_INCLUDED_FILES}: name fewer")]
    files = []
    for name in sorted(names):
        shown = str(directory / name)
        try:
            files.append(SourceFile(shown, name, _read(directory / name, shown)))
        except ConfigFaults as error:
            faults += error.faults
    return files, faults


def fingerprint(sources: Sources) -> str | None:
    """The revision that ``sources`` have on disk now; None where some file cannot be read."""
    try:
        root = read_root(sources.root)
    except ConfigFaults:
        return None
    included, faults = read_includes(sources.root, sources.includes)
    return None if faults else revision_of([root, *included])


def _read(path: Path, shown: str) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device could block for ever
            mend = "is not a file" if path.exists() else "there is no such file"
            raise ConfigFaults([Fault((), f"cannot be read: {mend}", shown, 1, 1)])
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)  # one byte more tells that it is too large
    except OSError as error:
        raise ConfigFaults([Fault((), f"cannot be read: {error.strerror}", shown, 1, 1)]) from None


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
