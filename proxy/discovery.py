"""The models of each provider, by its own list: kept for a while, read again when they are asked for after that.

Nobody waits for a provider but who asks for that: an old list is given out while a new one is read. A provider is asked
once at a time, whoever waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from core.clock import Clock
from core.errors import UpstreamError
from core.tasks import Tasks
from proxy.providers.base import ListedModel

AT_ONCE = 8
"""Providers that are asked; others wait."""

_KEEPER_PAUSE_SECONDS = 10.0
# A provider that has failed is asked no sooner again by itself: consoles come back every few seconds.
_FAILED_PAUSE_SECONDS = 30.0


class SeenList(msgspec.Struct, frozen=True):
    """A list of models and when it was read, in seconds since the Unix epoch."""

    models: tuple[ListedModel, ...]
    seen_at: float


class KeeperFailed(Exception):
    """What is kept cannot be reached now."""


class Keeper(Protocol):
    """Where lists outlive the process. Each method raises KeeperFailed."""

    async def load(self) -> Mapping[str, SeenList]:
        """All lists, by the names of their providers."""
        ...

    async def keep(self, provider: str, seen: SeenList) -> None:
        """In place of the list before; one of no models forgets the provider."""
        ...


class Outcome(Protocol):
    """What came of asking; fits :class:`proxy.probe.Probed`."""

    @property
    def models(self) -> tuple[ListedModel, ...]: ...
    @property
    def error(self) -> UpstreamError | None: ...


class Entry(msgspec.Struct, frozen=True):
    """A provider of the configuration, as far as it matters here."""

    address: str
    """Where it is: the list of one address says nothing of another."""
    ttl_seconds: float
    shown: bool = True
    """Whether callers are shown what it lists."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a provider's models."""

    models: tuple[ListedModel, ...]
    seen_at: float | None
    stale: bool
    refreshing: bool
    stored: bool
    error: UpstreamError | None
    """Why the last reading failed."""


class _Known:
    """One provider's list."""

    __slots__ = ("entry", "error", "failed_at", "outdated", "reading", "seen", "stored")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.seen: SeenList | None = None
        self.stored = False
        self.outdated = False
        """Whether it is of an earlier address."""
        self.error: UpstreamError | None = None
        self.failed_at = 0.0
        self.reading: asyncio.Task[None] | None = None


class Discovery:
    """The lists of all providers."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Outcome]],
        keeper: Keeper,
        clock: Clock,
        tasks: Tasks,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``ask`` reads a provider's list; ``tasks`` has what goes on without a caller; ``changed``: some list has."""
        self._ask = ask
        self._keeper = keeper
        self._clock = clock
        self._tasks = tasks
        self._changed = changed
        self._known: dict[str, _Known] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._not_before = 0.0
        """When what is kept may be asked for again after it could not be reached (monotonic seconds)."""

    def follow(self, providers: Mapping[str, Entry]) -> None:
        """These there are now, by their names. Others are forgotten, and of those that have moved the lists are stale."""
        before, self._known = self._known, {}
        for name, entry in providers.items():
            known = before.get(name) or _Known(entry)
            if known.entry.address != entry.address:
                known.outdated, known.error = True, None
            known.entry = entry
            self._known[name] = known
        self._changed()

    def now(self, name: str) -> Listing:
        """What is in memory. Raises KeyError where there is no such provider."""
        return self._listing(self._known[name])

    def lists(self) -> dict[str, tuple[ListedModel, ...]]:
        """The models in memory of every provider, in the order of the file."""
        return {name: known.seen.models for name, known in self._known.items() if known.seen and not known.outdated}

    async def load(self) -> None:
        """Take over what is kept and newer: of an earlier process, or of another one."""
        if self._clock.monotonic() < self._not_before:
            return
        try:
            lists = await self._keeper.load()
        except KeeperFailed:
            self._not_before = self._clock.monotonic() + _KEEPER_PAUSE_SECONDS
            return
        took = False
        for name, seen in lists.items():
            known = self._known.get(name)
            if known is None or known.outdated or (known.seen is not None and known.seen.seen_at >= seen.seen_at):
                continue
            known.seen, known.stored, known.error, took = seen, True, None, True
        if took:
            self._changed()

    async def known(self, name: str) -> Listing:
        """What is known, also by other processes. Where it is stale, it is read again meanwhile. Raises KeyError."""
        known = self._known[name]
        await self.load()
        self._revalidate(name, known)
        return self._listing(known)

    async def all_known(self) -> dict[str, Listing]:
        """The same of every provider, in the order of the file."""
        await self.load()
        for name, known in self._known.items():
            self._revalidate(name, known)
        return {name: self._listing(known) for name, known in self._known.items()}

    def asked_for(self) -> None:
        """A caller is shown the lists: those that are stale are read again meanwhile."""
        for name, known in self._known.items():
            if known.entry.shown:
                self._revalidate(name, known)

    async def refresh(self, name: str) -> Listing:
        """Read the list now, or wait for whom reads it already.

        Raises:
            KeyError: there is no such provider.
            UpstreamError: it could not be read.
        """
        known = self._known[name]
        # Whoever stops waiting does not stop it for the others.
        await asyncio.shield(self._begin(name, known))
        if self._known.get(name) is not known:
            raise KeyError(name)
        if known.error is not None:
            raise known.error
        return self._listing(known)

    def _revalidate(self, name: str, known: _Known) -> None:
        failed = known.error is not None and self._clock.monotonic() < known.failed_at + _FAILED_PAUSE_SECONDS
        if self._is_stale(known) and not failed:
            self._begin(name, known)

    def _begin(self, name: str, known: _Known) -> "asyncio.Task[None]":
        if known.reading is None:
            known.reading = self._tasks.spawn(self._read(name, known), f"models of {name}")
        return known.reading

    async def _read(self, name: str, known: _Known) -> None:
        try:
            while True:
                entry = known.entry
                try:
                    async with self._turns:
                        outcome = await self._ask(name)
                except KeyError:
                    # It has gone from the configuration meanwhile.
                    return
                if known.entry.address == entry.address:
                    break
                # It has moved meanwhile: who knows who has answered.
            known.error, known.failed_at = outcome.error, self._clock.monotonic()
            if outcome.error is None:
                known.seen, known.outdated, known.stored = SeenList(outcome.models, self._clock.time()), False, False
                self._changed()
                await self._keep(name, known, known.seen)
        finally:
            known.reading = None

    async def _keep(self, name: str, known: _Known, seen: SeenList) -> None:
        try:
            await self._keeper.keep(name, seen)
        except KeeperFailed:
            # Told by `stored`; it serves from memory.
            return
        known.stored = known.seen is seen

    def _is_stale(self, known: _Known) -> bool:
        seen = known.seen
        return seen is None or known.outdated or not 0 <= self._clock.time() - seen.seen_at <= known.entry.ttl_seconds

    def _listing(self, known: _Known) -> Listing:
        return Listing(
            models=() if known.seen is None or known.outdated else known.seen.models,
            seen_at=None if known.seen is None or known.outdated else known.seen.seen_at,
            stale=self._is_stale(known),
            refreshing=known.reading is not None,
            stored=known.stored,
            error=known.error,
        )
