"""Tells those who listen to the management API of the events of all workers.

The place in such a stream is one place for each process that tells (:mod:`gateway.event_ring`), and an event's id is the
place after it: `evt_` and, for each process, the eight digits that it has drawn at its start and its number, joined by `-`.
So whichever worker a client comes back to knows what to ask of each of the others.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from pathlib import Path

from core.clock import Clock
from core.events import (
    EVENTS,
    AttemptFailed,
    ConfigApplied,
    Event,
    Events,
    GatewayStopping,
    RequestStarted,
    TokenRevoked,
)
from core.ids import EVENT_ID_PREFIX
from core.tasks import Tasks
from gateway.control import ForwardEvents, Others
from gateway.event_links import EventsDoor, Forwarder, Hello
from gateway.event_ring import EventRing, Part
from gateway.teller import Teller
from management.event_feed import GAP, FeedEnds, Told, TooManyListeners, Wanted
from webhooks.payload import render_payload

_log = logging.getLogger("sluice.events")

MOST_LISTENERS = 32
"""Of one process."""
MOST_OF_ONE = 8
"""Of one caller."""
LINK_SECONDS = 5.0
"""So often workers that have come meanwhile are looked for."""

_ASK_SECONDS = 2.0
_MOST_PARTS = 16
"""Of other workers, that wait for a listener to take them."""
_MOST_GAPS = 64
_MOST_GONE = 64
_PROCESS_DIGITS = 8
_ID = re.compile(rf"{EVENT_ID_PREFIX}[0-9a-f]{{9,20}}(?:-[0-9a-f]{{9,20}})*")
_MOST_ID_CHARACTERS = 4096


class StreamGap(Event, frozen=True, kw_only=True):
    """Events are missing here. Told to listeners alone."""

    name = GAP
    reason: str
    """`unknown_id`, `too_old`, `too_slow`, `other_workers` or `worker_lost`."""
    events: int | None
    """At most so many; None: nobody knows."""


def render_places(places: dict[str, int]) -> str:
    """As an id."""
    return EVENT_ID_PREFIX + "-".join(f"{process}{place:x}" for process, place in places.items())


def parse_places(text: str) -> dict[str, int] | None:
    """What :func:`render_places` has written; None: it has not."""
    if len(text) > _MOST_ID_CHARACTERS or not _ID.fullmatch(text):
        return None
    parts = text.removeprefix(EVENT_ID_PREFIX).split("-")
    # More than any event's number; the JSON of the task that carries it has no more digits, either.
    return {part[:_PROCESS_DIGITS]: min(int(part[_PROCESS_DIGITS:], 16), 2**62) for part in parts}


class GatewayEvents:
    """Fits :class:`management.event_feed.EventFeed`."""

    def __init__(self, events: Events, clock: Clock, tasks: Tasks, teller: Teller) -> None:
        """``tasks`` owns what runs for listeners; ``teller`` knows which worker tells of what."""
        self.process = secrets.token_hex(_PROCESS_DIGITS // 2)
        self.clock = clock
        self.tasks = tasks
        self.ring = EventRing(events, clock.time, teller.tells)
        self.others: Others | None = None
        """None: there are none."""
        self.door: EventsDoor | None = None
        self._stopping = False
        self._forwarder = Forwarder(self.ring, self.process, clock, tasks)
        self._listening: dict[str, _Listening] = {}
        # Before the ring does: who is woken finds that it ends, and reads the event.
        events.subscribe(self._stop, GatewayStopping)
        # Callers may have lost what they may: the handler looks whenever it is woken.
        events.subscribe(self._wake, ConfigApplied, TokenRevoked)

    def link(self, others: Others, folder: Path, worker: str) -> None:
        """There are ``others``: called before they can ask for anything. ``folder`` is theirs alone, ``worker`` is
        `SLOT.EPOCH` of this one."""
        self.others = others
        self.door = EventsDoor(str(folder / f"events-{worker}"), self.tasks, self._listening.get)
        others.on(ForwardEvents, self._forwarder.forward)
        if not worker.endswith(".0"):
            # Listeners of the others missed this one's predecessor, and find this one in a moment.
            asked = (RequestStarted, AttemptFailed)
            self.ring.keep_from_start([kind.name for kind in EVENTS if kind not in asked])

    async def listen(self, wanted: Wanted, last_id: str | None, caller: str) -> "_Listening":
        if self.is_stopping():
            raise FeedEnds
        if len(self._listening) >= MOST_LISTENERS:
            raise TooManyListeners(f"{MOST_LISTENERS} listen to this process already: try again, or end one of them.")
        if sum(each.caller == caller for each in self._listening.values()) >= MOST_OF_ONE:
            raise TooManyListeners(f"You have {MOST_OF_ONE} streams of events already: end one of them.")
        key = secrets.token_hex(16)
        listening = self._listening[key] = _Listening(self, key, wanted, caller)
        try:
            await listening.begin(last_id)
        except BaseException:
            await listening.close()
            raise
        return listening

    def is_stopping(self) -> bool:
        """Whether this process is about to end."""
        return self._stopping

    def forget(self, key: str) -> None:
        """That listener has ended."""
        self._listening.pop(key, None)

    def close(self) -> None:
        """Keep and take nothing more."""
        if self.door is not None:
            self.door.close()
        self.ring.close()

    def _stop(self, _event: Event) -> None:
        self._stopping = True
        self._wake(_event)

    def _wake(self, _event: Event) -> None:
        for each in self._listening.values():
            each.end()


class _Listening:
    """Fits :class:`management.event_feed.Listening` and :class:`gateway.event_links.Listener`."""

    def __init__(self, feed: GatewayEvents, key: str, wanted: Wanted, caller: str) -> None:
        self.caller = caller
        self._feed = feed
        self._key = key
        self._wanted = wanted
        self._wake = asyncio.Event()
        self._places: dict[str, int] = {}
        self._left: list[tuple[str, bool]] = []
        """Processes that tell no more, once what they have sent has been told; and whether they have said so."""
        self._gone: dict[str, int] = {}
        """Their places: only their connection may have gone."""
        self._gaps: deque[tuple[str, int | None]] = deque(maxlen=_MOST_GAPS)
        self._parts: asyncio.Queue[tuple[str, Part]] = asyncio.Queue(_MOST_PARTS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_for: dict[str, int] | None = None
        """The places that the client came with."""
        self._begun = False
        feed.ring.attend(wanted.names, self._wake.set)

    @property
    def place(self) -> str:
        return render_places(self._places)

    async def begin(self, last_id: str | None) -> None:
        """Find out from where on each process is to tell."""
        feed, ring = self._feed, self._feed.ring
        self._asked_for = None if last_id is None else parse_places(last_id)
        asked_for, has_all = self._asked_for, True
        if last_id is not None and asked_for is None:
            self._gaps.append(("unknown_id", None))
        if asked_for is None:
            self._places[feed.process] = ring.place
        else:
            place, has_all = ring.place_after(self._wanted.names, asked_for.get(feed.process, 0))
            self._places[feed.process] = place
            if feed.process in asked_for and not has_all:
                self._gaps.append(("too_old", None))
        if feed.others is not None and not await self._link():
            self._gaps.append(("other_workers", None))
        if asked_for is not None and not asked_for.keys() <= self._places.keys():
            self._gaps.append(("unknown_id", None))
        elif asked_for is not None and feed.process not in asked_for and not has_all:
            self._gaps.append(("too_old", None))
        self._begun = True
        if feed.others is not None:
            self._tasks.add(feed.tasks.spawn(self._keep_linked(), "workers of a listener"))

    async def next(self, timeout_seconds: float) -> tuple[Told, ...] | None:
        told = self._take()
        if told or self._feed.is_stopping():
            return told or None
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._wake.wait()
        except TimeoutError:
            return ()
        return self._take() or (None if self._feed.is_stopping() else ())

    def end(self) -> None:
        self._wake.set()

    async def close(self) -> None:
        self._feed.forget(self._key)
        self._feed.ring.release(self._wanted.names, self._wake.set)
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def joined(self, hello: Hello, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        known = hello.process in self._gone or (not self._begun and hello.process in (self._asked_for or {}))
        self._gone.pop(hello.process, None)
        self._places[hello.process] = hello.place
        if not hello.has_all:
            self._gaps.append(("too_old" if known else "other_workers", None))
            self._wake.set()

    async def put(self, process: str, part: Part) -> None:
        await self._parts.put((process, part))
        self._wake.set()

    def left(self, process: str, *, orderly: bool) -> None:
        self._left.append((process, orderly))
        self._wake.set()

    async def _link(self) -> bool:
        """Have all other workers tell, who do not yet; whether all do."""
        feed = self._feed
        assert feed.others is not None
        assert feed.door is not None
        try:
            await feed.door.open()
        except OSError as error:
            _log.warning("events of other workers cannot be told: %s", error)
            return False
        places = {**(self._asked_for or {}), **self._gone, **self._places}
        fresh = not self._begun and self._asked_for is None
        asked = ForwardEvents(feed.door.path, self._key, self._wanted, places, fresh)
        return (await feed.others.ask(asked, _ASK_SECONDS)).by_all

    async def _keep_linked(self) -> None:
        while True:
            await asyncio.sleep(LINK_SECONDS)
            if not self._left:
                await self._link()

    def _take(self) -> tuple[Told, ...]:
        self._wake.clear()
        told: list[Told] = []
        while self._gaps:
            told.append(self._gap(*self._gaps.popleft()))
        part = self._feed.ring.read(self._wanted, self._places[self._feed.process])
        self._tell(told, self._feed.process, part)
        if part.more:
            self._wake.set()
        while not self._parts.empty():
            self._tell(told, *self._parts.get_nowait())
        for process, orderly in self._left:
            self._gone[process] = self._places.pop(process, 0)
            if not orderly:
                told.append(self._gap("worker_lost", None))
        self._left.clear()
        while len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]
        return tuple(told)

    def _tell(self, told: list[Told], process: str, part: Part) -> None:
        if part.missed:
            told.append(self._gap("too_slow", part.missed))
        for place, name, data in part.events:
            self._places[process] = place
            told.append(Told(self.place, name, data))
        self._places[process] = part.place

    def _gap(self, reason: str, events: int | None) -> Told:
        at = round(self._feed.clock.time() * 1_000_000)
        return Told(self.place, GAP, render_payload(StreamGap(reason=reason, events=events), at))
