"""From a path to a frozen :class:`config.schema.Config`, or to every fault of the document at once.

Read → parse → merge includes → put references in place, then what the environment sets → validate → check → convert.
Each step goes on past the faults of the one before where it can, so that one look at the list is enough to mend a file.

Loading waits for files and takes time (some 0.5 s for 1,000 routes): call it in a thread. No step of it holds the
interpreter's lock for more than some 5 ms, so that an event loop beside it goes on; `gateway/pauses.py` sees to the
rest, which is the garbage collector's.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath

import msgspec

from config.checks import check
from config.document import Document, Place, parse
from config.faults import AnyRemark, ConfigFaults, Fault, Notice, Path
from config.merge import merge
from config.references import Reference
from config.resolution import resolve
from config.schema import Config
from config.secret_stores import SecretStores
from config.settings import named, with_environment
from config.sources import SourceFile, Sources, include_patterns, read_includes, read_root, revision_of
from config.substitute import Resolved, Substituted, typed
from config.validation import validate
from config.vault.values import VaultValues

_EMPTY = "the file is empty: write at least `providers:` and `tokens:`, or `{}` to serve nothing on purpose"


class LoadedConfig(msgspec.Struct, frozen=True):
    """A document that may be put in force."""

    config: Config
    revision: str
    """SHA-256 of the files, before references."""
    sources: Sources
    files: tuple[SourceFile, ...]
    """What was read, the root first."""
    notices: tuple[Notice, ...]
    place: Place
    vault: VaultValues | None = None
    """Where its `${vault:…}` values come from; None without a server."""
    vault_references: tuple[Reference, ...] = ()

    def with_notices(self, notices: Iterable[Notice]) -> "LoadedConfig":
        """The same with further ``notices``, which know their paths alone."""
        added = [self.place.locate(notice) for notice in notices]
        return msgspec.structs.replace(self, notices=_sorted(self.place, [*self.notices, *added]))

    def locate(self, faults: Iterable[Fault]) -> tuple[Fault, ...]:
        """``faults`` with file, line and column by their paths, in the order of the files.

        For what later steps find (they know paths alone). What is not in the document, such as a default, is
        placed at its nearest ancestor.
        """
        return _sorted(self.place, [self.place.locate(fault) for fault in faults])


class RejectedConfig(ConfigFaults):
    """A document that cannot be put in force. Its ``sources`` are worth watching: the mend will come through them."""

    def __init__(self, faults: Iterable[Fault], sources: Sources, draft: LoadedConfig | None = None) -> None:
        """``draft``: what the document would be without its unknown keys, for whoever looks for further faults."""
        super().__init__(faults)
        self.sources = sources
        self.draft = draft

    def joined_with(self, faults: Iterable[Fault]) -> "RejectedConfig":
        """The same with further ``faults``, in the order of the files."""
        assert self.draft is not None, "there is nothing to look for further faults in"
        # What is told of a value already is not told a second time.
        told = {fault.path for fault in self.faults}
        further = [fault for fault in faults if fault.path not in told]
        return RejectedConfig(_sorted(self.draft.place, [*self.faults, *further]), self.sources)


def load(
    path: str | FilePath,
    env: Mapping[str, str],
    stores: SecretStores | None = None,
    copy: tuple[SourceFile, ...] | None = None,
) -> LoadedConfig:
    """Load the document at ``path``.

    Args:
        path: the root file.
        env: where `${env:…}` is read from; see :func:`config.environment.environment`.
        stores: what handles of the result read at each use; kept fresh by whoever owns them.
        copy: the :attr:`LoadedConfig.files` of an earlier load, to be read instead of what is on disk now.

    Raises:
        RejectedConfig: every fault, each with file, line and column, in the order of the files.
    """
    root = FilePath(path).absolute()
    try:
        root_file = copy[0] if copy else read_root(path)
    except ConfigFaults as error:
        raise RejectedConfig(error.faults, Sources(root)) from None
    document = parse(root_file.data, root_file.shown)
    if document.empty:
        # What a full disk or a copy that was cut leaves behind: it must not take everybody's access away.
        raise RejectedConfig([Fault((), _EMPTY, root_file.shown, 1, 1)], Sources(root, revision_of([root_file])))
    patterns = include_patterns(document)
    included, unread = (list(copy[1:]), []) if copy else read_includes(path, patterns)
    revision = None if unread else revision_of([root_file, *included])
    document = merge(document, [parse(file.data, file.shown) for file in included])
    stores = stores if stores is not None else SecretStores()
    resolution = resolve(document.value, env, stores, root.parent)
    substituted, variables = with_environment(resolution.substituted, env)
    sources = Sources(
        root,
        revision,
        patterns,
        secret_files=resolution.files,
        interpolated_files=resolution.interpolated_files,
    )
    faults = _faults(document, unread, substituted, variables)
    config = _convert(_without_unknown_keys(substituted.value, faults))
    loaded = None
    if config is not None:
        notices = _notices(document.place, substituted)
        loaded = LoadedConfig(
            config,
            revision or "",
            sources,
            (root_file, *included),
            notices,
            document.place,
            resolution.vault,
            resolution.vault_references,
        )
    if faults or revision is None or loaded is None:
        raise RejectedConfig(faults, sources, loaded)
    return loaded


def _faults(
    document: Document, unread: list[Fault], substituted: Substituted, variables: Mapping[Path, str]
) -> tuple[Fault, ...]:
    place = document.place
    broken = validate(substituted.value, place, substituted.referenced)
    # What the reader has told of a value, or the schema, is not told a second time by whoever looks after them.
    unread_places = {(fault.file, fault.line, fault.column) for fault in document.faults}
    broken = [fault for fault in broken if (fault.file, fault.line, fault.column) not in unread_places]
    told = {fault.path for fault in broken}
    finer = [named(fault, variables) for fault in check(substituted.value) if fault.path not in told]
    unplaced = [*substituted.faults, *finer, *unread]
    placed = [fault if fault.file else place.locate(fault) for fault in unplaced]
    return _sorted(place, [*document.faults, *broken, *placed])


def _sorted(place: Place, remarks: Iterable[AnyRemark]) -> tuple[AnyRemark, ...]:
    """In the order of the files (the root first) and of their lines; each once."""
    return tuple(
        dict.fromkeys(sorted(remarks, key=lambda each: (each.file != place.file, each.file, each.line, each.column)))
    )


def _without_unknown_keys(value: Resolved, faults: tuple[Fault, ...]) -> Resolved:
    for fault in faults:
        if fault.message.startswith("unknown key"):
            value = _without(value, fault.path)
    return value


def _without(value: Resolved, path: Path) -> Resolved:
    """``value`` less what stands at ``path``; values on the way are copied."""
    if not path:
        return value
    step, *rest = path
    if isinstance(value, dict) and isinstance(step, str) and step in value:
        kept = {key: inner for key, inner in value.items() if key != step}
        return {**kept, step: _without(value[step], tuple(rest))} if rest else kept
    if isinstance(value, list) and isinstance(step, int) and step < len(value) and rest:
        return [*value[:step], _without(value[step], tuple(rest)), *value[step + 1 :]]
    return value


def _convert(value: Resolved) -> Config | None:
    """The frozen values; None where faults stand in the way."""
    try:
        return typed(value, Config)
    except msgspec.ValidationError:
        return None


def _notices(place: Place, substituted: Substituted) -> tuple[Notice, ...]:
    notices = list(substituted.notices)
    document = substituted.value
    assert isinstance(document, dict)
    if not document.get("providers"):
        notices.append(Notice(("providers",), "there are none: no request can be answered"))
    if not document.get("tokens"):
        notices.append(
            Notice(("tokens",), "there are none here: nobody may call but with tokens that the API has made")
        )
    return _sorted(place, [place.locate(notice) for notice in notices])
