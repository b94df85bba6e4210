"""The life of a configuration: read, validate, build, test, swap. The last good generation stays in force."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from config.edit.errors import EditFault
from config.edit.writer import Writer
from config.faults import ConfigFaults, Fault, render_path
from config.json_schema import changed_restart_keys
from config.last_good import LastGood
from config.load import RejectedConfig
from config.schema import Config
from config.sources import SourceFile, Sources, fingerprint
from config.watch import SecretsChanged, Watcher
from core.events import ConfigApplied, ConfigRejected
from core.identity import Author
from gateway.build import Generation, load_and_build
from gateway.confirmation import ConfirmationFile, roll_back_overdue
from gateway.pauses import brief_pauses, keep_out_of_collections, take_apart
from gateway.resources import Resources
from gateway.revisions import Applied, Origin
from gateway.workers import LAST_GOOD
from management.editing.editor import Refused, Reloaded
from telemetry import logs

_log = logging.getLogger("sluice.config")


class Reloader:
    """Owns the one reference to the generation in force."""

    def __init__(self, path: Path, resources: Resources) -> None:
        self._path = path
        self._resources = resources
        self.writer = Writer(path)
        self.confirmation = ConfirmationFile(path)
        self.exclusive = asyncio.Lock()
        """Held by whoever puts a generation in force, from before the files are read."""
        self.on_applied: Callable[[Applied], None] = lambda _: None
        """Told what was put in force in the place of what."""
        self._current: Generation | None = None
        self._watcher: Watcher | None = None
        self._at_start: Config | None = None
        kept = resources.environment.get(LAST_GOOD)
        self._last_good = LastGood(Path(kept)) if kept else None
        self._read_at = 0.0
        self.last: tuple[float, str, Reloaded | Refused] | None = None
        """Seconds since the epoch, trigger and outcome of the last attempt."""

    def current(self) -> Generation:
        """The generation in force."""
        assert self._current is not None, "start() comes first"
        return self._current

    @property
    def loaded(self) -> bool:
        """Whether a generation is in force."""
        return self._current is not None

    def start(self) -> Generation:
        """Load the first generation; nothing runs yet, so this may block.

        A worker that takes a dead one's place begins with what the others have in force where the document is bad.

        Raises:
            ConfigFaults: the document cannot be put in force.
        """
        began = self._resources.clock.monotonic()
        refused: ConfigFaults | None = None
        roll_back_overdue(self.writer, self.confirmation, self._resources.clock.time(), self.build)
        try:
            generation = self.build()
        except ConfigFaults as error:
            kept = self._build_last_good()
            if kept is None:
                raise
            generation, refused = kept, error
        self._at_start = generation.config
        self._swap(generation, "start", began)
        self._watcher = Watcher(
            generation.loaded.sources, self._resources.secrets.files, lambda: self.current().revision
        )
        if refused is not None:
            if isinstance(refused, RejectedConfig):
                self._follow(refused.sources)
            self._refuse(refused.faults, "start")
        else:
            self._keep(generation)
        return generation

    async def reload(
        self, trigger: str, author: Author | None = None, *, unless_in_force: bool = False
    ) -> Reloaded | Refused:
        """Read the documents again and put them in force, one reload at a time; reading and building have a thread.

        With ``unless_in_force`` nothing is built where what is on the disk is in force already.
        """
        origin = Origin(trigger=trigger, began=self._resources.clock.monotonic(), author=author)
        loop = asyncio.get_running_loop()
        async with self.exclusive:
            if unless_in_force and await loop.run_in_executor(None, self._is_in_force):
                current = self.current()
                restart = self.restart_keys(current.config)
                return Reloaded(current.revision, changed=False, duration_seconds=0.0, restart=restart)
            origin = msgspec.structs.replace(origin, began=self._resources.clock.monotonic())
            try:
                generation = await loop.run_in_executor(None, self.build)
            except ConfigFaults as refused:
                if isinstance(refused, RejectedConfig):
                    self._follow(refused.sources)
                return self._refuse(refused.faults, trigger)
            origin = msgspec.structs.replace(origin, at=round(self._read_at * 1_000_000))
            return await self.put_in_force(generation, origin)

    async def put_in_force(self, generation: Generation, origin: Origin) -> Reloaded:
        """Serve ``generation`` from now on; for who holds :attr:`exclusive`, and has built it of what is on the disk."""
        loop = asyncio.get_running_loop()
        self._follow(generation.loaded.sources)
        before = self.current()
        changed = generation.revision != before.revision
        applied = Applied(
            before=before.revision,
            revision=generation.revision,
            files=generation.loaded.files,
            origin=origin,
        )
        # What requests in flight still hold goes with the last of them instead.
        pieces = before.pieces()
        del before
        outcome = self._swap(generation, origin.trigger, origin.began, changed)
        loop.run_in_executor(None, take_apart, pieces)
        if changed or origin.replaced is not None:
            # An edit is one even where what it was made of has not come here yet.
            self.on_applied(applied)
        if changed:
            await loop.run_in_executor(None, self._keep, generation)
        return outcome

    def restart_keys(self, config: Config) -> tuple[str, ...]:
        """What of ``config`` takes effect only when the gateway is started again."""
        assert self._at_start is not None, "start() comes first"
        return tuple(render_path(path) for path in changed_restart_keys(self._at_start, config))

    async def watch(self) -> None:
        """Reload on every change of the documents and secret files, until cancelled."""
        watcher = self._watcher
        assert watcher is not None, "start() comes first"
        async for change in watcher.changes():
            if isinstance(change, SecretsChanged):
                _log.info("new values are in use of %s", ", ".join(str(path) for path in change.paths))
            else:
                # Edits by the API are in force before they are seen here, on this worker or another.
                await self.reload("watch", unless_in_force=not change.interpolated)

    def build(self, copy: tuple[SourceFile, ...] | None = None) -> Generation:
        """Build the document on the disk, or a ``copy`` of its files; waits for the disk, so call it in a thread.

        Raises:
            ConfigFaults: it cannot be put in force.
        """
        try:
            with brief_pauses():
                if copy is not None:
                    return load_and_build(self._path, self._resources, copy)
                return self._build_from_disk()
        except ConfigFaults:
            raise
        except Exception as error:
            # A fault of ours must not end the watching: the next edit may well be taken.
            _log.exception("a configuration could not be built")
            message = f"the gateway failed to build it ({type(error).__name__}): its log has the details"
            raise ConfigFaults([Fault((), message, str(self._path), 1, 1)]) from None

    def _build_from_disk(self) -> Generation:
        """As the files are while nobody replaces them."""
        for is_last in (False, False, True):
            self._finish_interrupted()
            # What others put in force from here on comes after what is read now.
            self._read_at = self._resources.clock.time()
            try:
                generation = load_and_build(self._path, self._resources)
            except RejectedConfig as refused:
                if is_last or self._is_settled(refused.sources):
                    raise
            else:
                if is_last or self._is_settled(generation.loaded.sources):
                    return generation
        raise AssertionError("unreachable")

    def _finish_interrupted(self) -> None:
        try:
            self.writer.finish_interrupted()
        except EditFault as error:
            message = f"an edit of several files was cut off and cannot be finished: {error}"
            raise ConfigFaults([Fault((), message, str(self._path), 1, 1)]) from None

    def _is_settled(self, sources: Sources) -> bool:
        """Whether what was read is what is there, and no edit of several files is half done."""
        return not self.writer.interrupted and fingerprint(sources) == sources.revision

    def _is_in_force(self) -> bool:
        """Whether the files are those in force, and nobody waits to hear that their undoing was seen."""
        is_refused = self.last is not None and isinstance(self.last[2], Refused)
        return not is_refused and self._is_settled(self.current().loaded.sources)

    def _build_last_good(self) -> Generation | None:
        """What other workers have put in force; None where there are none, or it cannot be built any more."""
        copy = self._last_good.read() if self._last_good is not None else None
        if copy is None:
            return None
        try:
            return load_and_build(self._path, self._resources, copy)
        except ConfigFaults as lost:
            for fault in lost.faults:
                _log.error("the last good configuration is lost: %s", fault)
            return None

    def _keep(self, generation: Generation) -> None:
        if self._last_good is None:
            return
        try:
            self._last_good.keep(generation.loaded.files)
        except OSError as error:
            _log.warning("no copy of the configuration can be kept for workers that start later: %s", error.strerror)

    def _follow(self, sources: Sources) -> None:
        # A refused document's own includes are watched too: its mend will come through them.
        if self._watcher is not None:
            self._watcher.follow(sources)

    def _swap(self, generation: Generation, trigger: str, began: float, changed: bool = True) -> Reloaded:
        before = self._current
        mended = self.last is not None and isinstance(self.last[2], Refused)
        self._current = generation
        self._resources.follow(generation.loaded, generation.webhooks, generation.token_sources)
        seconds = self._resources.clock.monotonic() - began
        pending = self.restart_keys(generation.config)
        outcome = Reloaded(generation.revision, changed, seconds, restart=pending)
        self.last = (self._resources.clock.time(), trigger, outcome)
        logs.set_level(generation.config.telemetry.log_level)
        for notice in generation.loaded.notices:
            _log.info("%s", notice)
        if before is not None:
            # What has been set back to what runs is no news, and what was told before is none either.
            for key in map(render_path, changed_restart_keys(before.config, generation.config)):
                if key in pending:
                    _log.warning("`%s` has changed: it takes effect when the gateway is started again", key)
        self._resources.events.emit(
            ConfigApplied(revision=generation.revision, trigger=trigger, duration_seconds=seconds)
        )
        state = "in force again" if mended and not changed else "in force"
        _log.info("configuration %s is %s (%s, %.3f s)", generation.revision[:12], state, trigger, seconds)
        keep_out_of_collections()
        return outcome

    def _refuse(self, faults: tuple[Fault, ...], trigger: str) -> Refused:
        outcome = Refused(faults)
        self.last = (self._resources.clock.time(), trigger, outcome)
        for fault in faults:
            _log.error("configuration refused: %s", fault)
        _log.error("the configuration in force stays: %s", self.current().revision[:12])
        self._resources.events.emit(ConfigRejected(trigger=trigger, faults=tuple(str(fault) for fault in faults)))
        return outcome
