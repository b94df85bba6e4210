"""Sees that a document or a secret file has changed.

Watched are directories, not files: an editor's atomic rename, and the swap of a symbolic link by which Kubernetes
updates a ConfigMap, replace the file that a watch would hang on
(https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically).

The system's notifications (inotify, FSEvents, …) only wake the watcher early. Besides, it looks by itself every
:data:`LOOK_SECONDS`, because notifications do not tell of writes by other machines on NFS and similar mounts, nor of
a watched directory that was removed and made anew. Where notifications do not work at all, watchfiles falls back to
polling by itself, or is told to by its own variable `WATCHFILES_FORCE_POLLING`.
"""

import asyncio
import glob
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from watchfiles import awatch

from config.secret_files import SecretFiles
from config.sources import Sources, fingerprint

_log = logging.getLogger("sluice.config")

STABLE_SECONDS = 0.1
"""Content that is the same after this long is taken for whole."""
UNSTABLE_SECONDS = 1.0
"""Content that keeps changing is taken as it is after this long."""
LOOK_SECONDS = 0.5

_MAX_LINKS = 40  # as Linux resolves at most: path_resolution(7)


class DocumentChanged(msgspec.Struct, frozen=True):
    """The document differs from the one loaded last, or a file that it interpolates has changed: load it."""

    interpolated: bool = False
    """It must be loaded though its own files may be in force: what they refer to has changed."""


class SecretsChanged(msgspec.Struct, frozen=True):
    """Handles give new values from now on; nothing needs to be loaded."""

    paths: tuple[Path, ...]


Change = DocumentChanged | SecretsChanged


class Watcher:
    """Watches what one document is made of. One :meth:`changes` at a time."""

    def __init__(self, sources: Sources, files: SecretFiles, revision: Callable[[], str]) -> None:
        """``sources`` as they were loaded; ``revision`` gives that in force."""
        self._sources = msgspec.structs.replace(sources, revision=None)
        self._loaded = sources.revision
        self._files = files
        self._revision = revision
        self._seen: _Snapshot | None = None
        self._stopped = False
        self._interrupt = asyncio.Event()

    def follow(self, sources: Sources) -> None:
        """Watch ``sources`` from now on; what they were loaded as need not be told.

        To be called after each load; after a refused one too, for its mend will come through its own sources.
        """
        self._loaded = sources.revision
        places = msgspec.structs.replace(sources, revision=None)
        if places != self._sources:
            self._sources = places
            self._seen = None
            self._interrupt.set()

    def stop(self) -> None:
        """End :meth:`changes`, at once or when it is begun."""
        self._stopped = True
        self._interrupt.set()

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Every change, when its content has come to rest, until :meth:`stop`. Secrets are told before the document."""
        while not self._stopped:
            # A new event each round: what set the last one has been heard.
            interrupt = self._interrupt = asyncio.Event()
            sources = self._sources
            watched = await asyncio.to_thread(_watched, sources)
            # Looked at before waiting: something may have changed while nothing was watched.
            for change in await self._look():
                yield change
            try:
                async with aclosing(_wake_ups(watched, interrupt)) as wake_ups:
                    async for _ in wake_ups:
                        for change in await self._look():
                            yield change
                        # A link was swapped or a directory made: watch what is there now.
                        if interrupt.is_set() or await asyncio.to_thread(_watched, sources) != watched:
                            break
            except OSError as error:
                # The limit on inotify watches, or a directory that went in this moment.
                _log.warning("cannot watch %s (%s): looking every %g s", sources.root, error, LOOK_SECONDS)
                await _pause(interrupt, LOOK_SECONDS)

    async def _look(self) -> list[Change]:
        """What has changed since the last look."""
        sources = self._sources
        snapshot = await asyncio.to_thread(_snapshot, sources)
        # What a load has read since need not be what is there: an edit that was refused and undone at once.
        if snapshot == self._seen and snapshot.revision == self._loaded:
            return []
        for _ in range(round(UNSTABLE_SECONDS / STABLE_SECONDS)):
            await asyncio.sleep(STABLE_SECONDS)
            before, snapshot = snapshot, await asyncio.to_thread(_snapshot, sources)
            if snapshot == before or self._stopped:
                break
        if self._stopped:
            return []
        self._seen = snapshot

        changes: list[Change] = []
        rotated = await asyncio.to_thread(self._files.refresh)
        if rotated:
            changes.append(SecretsChanged(rotated))
        if snapshot.revision == self._revision():
            needed = not sources.interpolated_files.isdisjoint(rotated)
        else:
            # A refused document may lack nothing but a secret file, which is there now.
            needed = any(path not in self._files for path in snapshot.secrets)
        # The content in force is told too where another was loaded, and refused, in between.
        if needed or snapshot.revision != self._loaded:
            self._loaded = snapshot.revision
            changes.append(DocumentChanged(interpolated=needed))
        return changes


class _Snapshot(msgspec.Struct, frozen=True):
    """What is on disk: two that are equal a while apart are taken for content at rest."""

    revision: str | None
    secrets: dict[Path, tuple[int, int, int]]
    """Inode, time of change and size of every secret file that exists."""


def _snapshot(sources: Sources) -> _Snapshot:
    secrets = {}
    for path in sources.secret_files:
        try:
            status = path.stat()
        except OSError:
            continue
        secrets[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return _Snapshot(fingerprint(sources), secrets)


class _Watched(msgspec.Struct, frozen=True):
    directories: frozenset[Path]
    names: frozenset[str]
    """Names in these directories that matter; a directory may hold much else that is written to all the time."""
    patterns: tuple[str, ...]
    """Globs over further such names."""

    def matters(self, _change: object, path: str) -> bool:
        """Whether a change of ``path`` is worth a look. By its name alone: some systems report resolved paths."""
        name = Path(path).name
        return name in self.names or any(fnmatchcase(name, pattern) for pattern in self.patterns)


async def _wake_ups(watched: _Watched, interrupt: asyncio.Event) -> AsyncGenerator[None, None]:
    """Comes whenever it is worth looking, until ``interrupt`` is set."""
    loop = asyncio.get_running_loop()
    due = loop.time() + LOOK_SECONDS

    def matters(change: object, path: str) -> bool:
        # Where something is written in a directory all the time, such as a log, there is no time-out.
        return loop.time() >= due or watched.matters(change, path)

    changes = awatch(
        *watched.directories,
        watch_filter=matters,
        debounce=50,
        step=20,
        rust_timeout=int(LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
        stop_event=interrupt,
    )
    async with aclosing(changes):
        async for _ in changes:
            yield
            due = loop.time() + LOOK_SECONDS


async def _pause(interrupt: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(interrupt.wait(), seconds)
    except TimeoutError:
        pass


def _watched(sources: Sources) -> _Watched:
    """Where changes of ``sources`` show.

    Of an include glob with wildcards in its directories only those directories are watched that hold a file now;
    a file in another one is seen at the next look.
    """
    base = sources.root.parent
    points = set(_points(sources.root))
    for path in sources.secret_files:
        points.update(_points(path))
    for pattern in sources.includes:
        points.update(_points(base / _static_part(pattern)))
        for name in glob.iglob(pattern, root_dir=base, recursive=True):  # noqa: PTH207 - absolute ones too
            points.update(_points(base / name))
    return _Watched(
        directories=frozenset(point.parent for point in points),
        names=frozenset(point.name for point in points),
        patterns=tuple(Path(pattern).name for pattern in sources.includes),
    )


def _static_part(pattern: str) -> Path:
    """A glob up to its first part with a wildcard, which is kept so that the directory above it is watched."""
    part = Path(pattern)
    while glob.has_magic(str(part.parent)):
        part = part.parent
    return part


def _points(path: Path) -> Iterator[Path]:
    """The places whose replacement changes what ``path`` leads to: links on the way, and the end.

    The end is a real file, or the first part that is missing. The parent of each is a real directory.
    """
    parts = list(reversed(path.parts[1:]))
    here = Path(path.anchor)
    links = 0
    while parts:
        part = parts.pop()
        if part == "..":
            here = here.parent
            continue
        there = here / part
        if there.is_symlink() and links < _MAX_LINKS:
            yield there
            links += 1
            target = there.readlink()
            if target.is_absolute():
                here = Path(target.anchor)
            parts += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        elif parts and there.is_dir():
            here = there
        else:
            yield there
            return
