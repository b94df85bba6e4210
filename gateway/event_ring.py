"""The last events of this process, kept while somebody listens, and for a while after, so that they may come again.

Nobody listens: nothing is kept, and no request pays for it. Somebody does: an event costs the request that it is of an
entry in a list; it is measured, looked through and rendered in parts, by a timer, and rendered only if it is wanted.

A place is the number of the last event that was kept before it. Every listener has a place of its own and nothing else,
so the ring is the bounded queue of all of them: one that is slower than the ring is long has missed something.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

import msgspec

from core.events import EVENTS, Event, Events
from core.moments import MICROSECONDS
from management.event_feed import Wanted
from webhooks.payload import render_payload

MOST_EVENTS = 4096
MOST_BYTES = 8 << 20
SETTLE_SECONDS = 0.1
"""So often listeners are woken."""
LINGER_SECONDS = 60.0
"""So long events are kept after the last who wanted them has gone."""

_OVERHEAD_BYTES = 512
_KINDS = {kind.name: kind for kind in EVENTS}


class _Entry:
    __slots__ = ("at", "event", "size", "text")

    def __init__(self, event: Event | None, at: float) -> None:
        self.event = event
        """None: from here on another kind is kept, too."""
        self.at = at
        self.size = 0
        self.text: str | None = None


class Part(msgspec.Struct, frozen=True, tag="part"):
    """What a listener gets at once."""

    place: int
    """The one after it."""
    events: tuple[tuple[int, str, str], ...]
    """The place after each, its name and its payload."""
    missed: int = 0
    """So many, before the first of these, were not kept; some of them may not have been wanted."""
    more: bool = False
    """Whether there is more already."""


class EventRing:
    """Lives on one event loop."""

    def __init__(self, events: Events, time: Callable[[], float], is_told: Callable[[Event], bool]) -> None:
        """
        Args:
            events: what happens.
            time: seconds since the Unix epoch.
            is_told: whether this is the worker that tells of an event; asked when it happens, of those that are not of
                requests.
        """
        self.place = 0
        """The newest."""
        self._events = events
        self._time = time
        self._is_told = is_told
        self._entries: deque[_Entry] = deque()
        self._unmeasured = 0
        self._bytes = 0
        self._wanted_by: dict[str, int] = {}
        self._kept_after: dict[str, int] = {}
        """From which place on events of a name have been kept without a break."""
        self._leaving: set[asyncio.TimerHandle] = set()
        self._settling: asyncio.TimerHandle | None = None
        self._wakes: set[Callable[[], None]] = set()
        self._closed = False

    def attend(self, names: Collection[str], wake: Callable[[], None]) -> None:
        """Keep events of these ``names`` from now on, and call ``wake`` soon after there are some."""
        self._wakes.add(wake)
        self._attend(names)

    def release(self, names: Collection[str], wake: Callable[[], None], linger_seconds: float = LINGER_SECONDS) -> None:
        """The end of :meth:`attend`; they are kept for ``linger_seconds`` still."""
        self._wakes.discard(wake)
        self._release_later(tuple(names), linger_seconds)

    def keep_from_start(self, names: Collection[str]) -> None:
        """Called first of all: somebody may be listening already, who finds this process in a moment."""
        assert not self.place
        self._attend(names, from_start=True)
        self._release_later(tuple(names), LINGER_SECONDS)

    def place_after(self, names: Collection[str], place: int) -> tuple[int, bool]:
        """Where to read on after ``place``, and whether all of ``names`` that has happened since is there."""
        oldest = self._first - 1
        if place > self.place:
            return self.place, False
        kept = all(name in self._kept_after and self._kept_after[name] <= place for name in names)
        return max(place, oldest), kept and oldest <= place

    def read(self, wanted: Wanted, place: int, most_bytes: int = 64 << 10) -> Part:
        """What follows ``place``; the events together have not much more than ``most_bytes``."""
        missed = max(self._first - 1 - place, 0)
        place += missed
        found: list[tuple[int, str, str]] = []
        size = 0
        newest = self.place
        while place < newest and size < most_bytes:
            place += 1
            entry = self._entries[place - newest - 1]
            event = entry.event
            if event is not None and is_wanted(event, wanted):
                if entry.text is None:
                    entry.text = render_payload(event, round(entry.at * MICROSECONDS))
                    if entry.size:
                        # It has been measured; now it is known better.
                        entry.size += len(entry.text)
                        self._bytes += len(entry.text)
                found.append((place, event.name, entry.text))
                size += len(entry.text)
        return Part(place, tuple(found), missed, more=place < newest)

    def settle(self) -> None:
        """Forget what is too much, and wake listeners."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        entries = self._entries
        for index in range(-self._unmeasured, 0):
            entry = entries[index]
            entry.size = _size(entry)
            self._bytes += entry.size
        self._unmeasured = 0
        while len(entries) > MOST_EVENTS or self._bytes > MOST_BYTES:
            self._bytes -= entries.popleft().size
        for wake in tuple(self._wakes):
            wake()

    def close(self) -> None:
        """Keep nothing more."""
        self._closed = True
        for timer in (*self._leaving, *(() if self._settling is None else (self._settling,))):
            timer.cancel()
        self._leaving.clear()
        self._settling = None
        self._release(tuple(self._wanted_by), all_of_it=True)

    @property
    def _first(self) -> int:
        """The number of the oldest that is kept."""
        return self.place - len(self._entries) + 1

    def _observe(self, event: Event) -> None:
        self._entries.append(_Entry(event, self._time()))
        self.place += 1
        self._unmeasured += 1
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self.settle)

    def _observe_if_told(self, event: Event) -> None:
        if self._is_told(event):
            self._observe(event)

    def _observer(self, name: str) -> Callable[[Event], None]:
        return self._observe if name.startswith(("request.", "attempt.")) else self._observe_if_told

    def _attend(self, names: Collection[str], *, from_start: bool = False) -> None:
        fresh = [name for name in names if name not in self._wanted_by]
        if fresh and not from_start:
            # Nobody knows what has happened of them before: the place up to here is none from which all is there.
            self._entries.append(_Entry(None, 0.0))
            self.place += 1
            self._unmeasured += 1
        for name in fresh:
            self._kept_after[name] = self.place
            self._events.subscribe(self._observer(name), _KINDS[name])
        for name in names:
            self._wanted_by[name] = self._wanted_by.get(name, 0) + 1

    def _release_later(self, names: tuple[str, ...], seconds: float) -> None:
        def leave() -> None:
            self._leaving.discard(timer)
            self._release(names)

        if self._closed:
            return
        timer = asyncio.get_running_loop().call_later(seconds, leave)
        self._leaving.add(timer)

    def _release(self, names: Collection[str], *, all_of_it: bool = False) -> None:
        for name in names:
            self._wanted_by[name] -= 1
            if all_of_it or not self._wanted_by[name]:
                del self._wanted_by[name], self._kept_after[name]
                self._events.unsubscribe(self._observer(name), _KINDS[name])
        if not self._wanted_by:
            self._entries.clear()
            self._bytes = self._unmeasured = 0


def is_wanted(event: Event, wanted: Wanted) -> bool:
    """Whether ``event`` is as ``wanted`` says."""
    if event.name not in wanted.names:
        return False
    if wanted.declared and getattr(event, "token_id", "") is not None:
        return False
    if wanted.model is not None and wanted.model != (
        getattr(event, "model", None) or getattr(event, "model_label", None)
    ):
        return False
    return all(
        asked is None or asked == getattr(event, field, None)
        for field, asked in (
            ("token", wanted.token),
            ("token_id", wanted.token_id),
            ("owner", wanted.owner),
            ("provider", wanted.provider),
        )
    )


def _size(entry: _Entry) -> int:
    texts = 0
    if entry.event is not None:
        for name in entry.event.__struct_fields__:
            value = getattr(entry.event, name)
            if type(value) is str:
                texts += len(value)
            elif type(value) is tuple:
                texts += sum(map(len, value))
    return _OVERHEAD_BYTES + texts + len(entry.text or "")
