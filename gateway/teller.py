"""Which worker tells webhooks of what: each fact is told once, whoever of several workers comes to know of it.

======================================================  ==========================================================
What                                                    Who tells
======================================================  ==========================================================
an edit, reload or rollback by the API                  the worker that was asked, or that has taken it back
a configuration that came by a file or a signal         the first worker; 2 seconds later, as an edit by the API
                                                        may be what it has found in the file
`gateway.*`                                             the first worker; of the first start alone
`secret.*`                                              the first worker: all read the same
`token.*`, `auth.lockout`                               the worker that was asked
all else                                                each worker what it has seen itself
======================================================  ==========================================================

The first worker is that of slot 0. A gateway of one process tells all, and at once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from core.events import (
    ConfigApplied,
    ConfigRejected,
    Event,
    Events,
    GatewayStarted,
    GatewayStopping,
    SecretFresh,
    SecretRotated,
    SecretStale,
)
from webhooks.delivery import Limits
from webhooks.endpoint import Endpoint
from webhooks.service import Webhooks

SETTLE_SECONDS = 2.0
"""So long after a file has changed, the worker that has written it must have told the others (gateway/revisions.py)."""

MOST_SECONDS = 5.0
"""No answer waits longer for events to be kept."""

_FOUND = frozenset({"start", "watch", "signal"})
"""Triggers of what every worker comes upon by itself."""
_OF_FIRST = (GatewayStarted, GatewayStopping, SecretRotated, SecretStale, SecretFresh)

_following: ContextVar[bool] = ContextVar("following", default=False)


class Teller:
    """Offers :class:`Webhooks` the events of this process; before :meth:`begin` nothing is offered."""

    def __init__(self, events: Events, worker: str | None, webhooks: Callable[[], Webhooks]) -> None:
        """
        Args:
            worker: `SLOT.EPOCH` of this worker; None: there are no others.
            webhooks: asked for from :meth:`begin` on.
        """
        self._events = events
        self._alone = worker is None
        slot, _, epoch = (worker or "0.0").partition(".")
        self._is_first = slot == "0"
        self._starts_gateway = self._is_first and epoch == "0"
        self._webhooks = webhooks
        self._begun = False
        self._endpoints: Sequence[Endpoint] = ()
        self._limits = Limits()
        self._subscribed: frozenset[type[Event]] = frozenset()
        self._before: list[Event] = []
        """Of the configuration, from before the beginning."""
        self._held: dict[str, tuple[ConfigApplied, asyncio.TimerHandle]] = {}
        """By revision: what may turn out to be an edit by the API."""
        self._special: dict[type[Event], Callable[[Any], None]] = {
            ConfigApplied: self._config_applied,
            ConfigRejected: self._config_rejected,
            **dict.fromkeys(_OF_FIRST, self._first_tells),
        }
        events.subscribe(self._keep, ConfigApplied, ConfigRejected)

    def tells(self, event: Event) -> bool:
        """Whether, of several workers, this one tells of ``event``, which happens now: the table above, without its delay."""
        if self._alone:
            return True
        if isinstance(event, ConfigApplied | ConfigRejected):
            return not _following.get() and (self._is_first or event.trigger not in _FOUND)
        if isinstance(event, GatewayStarted):
            return self._starts_gateway
        return self._is_first or not isinstance(event, _OF_FIRST)

    def follow(self, endpoints: Sequence[Endpoint], limits: Limits) -> None:
        """These count from now on, or from the beginning on."""
        self._endpoints, self._limits = endpoints, limits
        if self._begun:
            self._subscribe(self._webhooks().follow(endpoints, limits))

    def begin(self) -> None:
        """This process serves from now on, so it tells."""
        self._begun = True
        self._events.unsubscribe(self._keep, ConfigApplied, ConfigRejected)
        self._webhooks().start()
        self.follow(self._endpoints, self._limits)
        before, self._before = self._before, []
        if self._starts_gateway:
            for event in before:
                self._webhooks().offer(event)

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Inside, a configuration is put in force that another worker tells of. For one task."""
        token = _following.set(True)
        try:
            yield
        finally:
            _following.reset(token)

    def known(self, revision: str) -> None:
        """Another worker tells that ``revision`` is in force."""
        if (held := self._held.pop(revision, None)) is not None:
            held[1].cancel()

    async def settle(self) -> bool:
        """Wait until what must be kept before an API answers is kept, be it on the disk; False: it could not be, or not
        in time."""
        if not self._begun:
            return True
        try:
            async with asyncio.timeout(MOST_SECONDS):
                return await self._webhooks().commit_now()
        except TimeoutError:
            return False

    def close(self) -> None:
        """Offer what is still held, and nothing more."""
        for revision in tuple(self._held):
            self._tell_held(revision)
        self._subscribe(frozenset())

    def _keep(self, event: Event) -> None:
        self._before.append(event)

    def _subscribe(self, kinds: frozenset[type[Event]]) -> None:
        """To these alone: others, such as those of each request, cost nothing."""
        for kind in self._subscribed - kinds:
            self._events.unsubscribe(self._observer(kind), kind)
        for kind in kinds - self._subscribed:
            self._events.subscribe(self._observer(kind), kind)
        self._subscribed = kinds

    def _observer(self, kind: type[Event]) -> Callable[[Any], None]:
        return self._special.get(kind) or self._webhooks().offer

    def _config_applied(self, event: ConfigApplied) -> None:
        if self._alone:
            self._webhooks().offer(event)
        elif _following.get():
            self.known(event.revision)
        elif event.trigger not in _FOUND:
            self._webhooks().offer(event)
        elif self._is_first:
            self._tell_held(event.revision)
            timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._tell_held, event.revision)
            self._held[event.revision] = event, timer

    def _config_rejected(self, event: ConfigRejected) -> None:
        if self._alone or (not _following.get() and (self._is_first or event.trigger not in _FOUND)):
            self._webhooks().offer(event)

    def _first_tells(self, event: Event) -> None:
        if self._starts_gateway or (self._is_first and not isinstance(event, GatewayStarted)):
            self._webhooks().offer(event)

    def _tell_held(self, revision: str) -> None:
        if (held := self._held.pop(revision, None)) is not None:
            held[1].cancel()
            self._webhooks().offer(held[0])
