"""What happens, as it happens: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import logging
from typing import Annotated

import msgspec
from tornado.iostream import StreamClosedError

from core.events import EVENTS, AttemptFailed, RequestCompleted, RequestFailed, RequestStarted
from core.globs import GlobSet
from core.headers import Headers
from core.identity import AuthContext, Role, author_of, effective_role
from management.errors import AccessError, EventError, ManagementError, RequestError
from management.event_feed import FeedEnds, Listening, Told, TooManyListeners, Wanted
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.usage_asked import own
from storage.usage_records import LedgerFilter
from transport.server import ServerConnection

_log = logging.getLogger("sluice.management")

EVENT_STREAM = "text/event-stream"

CHECK_SECONDS = 5.0
"""So often, at least, it is looked whether the caller may still listen."""
KEEP_ALIVE_SECONDS = 15.0
_RETRY_MILLISECONDS = 2000
_RETRY_SECONDS = 5.0

_NAMES = tuple(kind.name for kind in EVENTS)
_UNASKED = tuple(name for name in _NAMES if name not in (RequestStarted.name, AttemptFailed.name))
_OWN = frozenset({RequestCompleted.name, RequestFailed.name})
"""Of what a token may see of its own."""

_Text = Annotated[str, msgspec.Meta(max_length=256)]


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events."""

    events: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    """Globs over the names of events, with commas between, such as `request.*,config.*`. Left out: all but
    `request.started` and `attempt.failed`."""
    token: _Text | None = None
    provider: _Text | None = None
    model: _Text | None = None
    """The provider's; of events that have none, the one as the configuration calls it."""


def wanted_of(query: EventQuery, caller: AuthContext) -> Wanted:
    """What ``query`` asks for, of what ``caller`` may see: from a manager on all, others their own requests.

    Raises:
        ManagementError: 400: no event has such a name; 403: others' events.
    """
    names = _UNASKED if query.events is None else _named(query.events)
    mine = own(LedgerFilter(since=0, until=0, token=query.token), caller)
    role = effective_role(caller)
    if role is None or role < Role.MANAGER:
        names = tuple(name for name in names if name in _OWN)
        if not names:
            raise ManagementError(
                AccessError.FORBIDDEN,
                "Only a manager may see these events: you see your own `request.completed` and `request.failed`.",
                param="events",
            )
    return Wanted(
        names=names,
        token=mine.token,
        token_id=mine.token_id,
        owner=mine.owner,
        provider=query.provider,
        model=query.model,
        declared=mine.declared,
    )


def _named(written: str) -> tuple[str, ...]:
    found: set[str] = set()
    for pattern in written.split(","):
        try:
            named = set(filter(GlobSet((pattern,)).matches, _NAMES))
        except ValueError as error:
            raise ManagementError(RequestError.INVALID_QUERY, f"`events`: {error}", param="events") from None
        if not named:
            raise ManagementError(
                RequestError.INVALID_QUERY,
                f"No event has a name like `{pattern[:64]}`: docs/webhooks.md lists them.",
                param="events",
            )
        found |= named
    return tuple(name for name in _NAMES if name in found)


class Events(ManagementHandler):
    """``/api/v1/events``."""

    _listening: Listening | None = None
    _gone = False

    @operation(
        requires(Role.USER),
        summary="Follow what happens, as server-sent events that resume by `Last-Event-ID`; a token sees its own requests.",
        query=EventQuery,
        answers={200: EVENT_STREAM},
        errors=(RequestError.INVALID_QUERY, EventError.TOO_MANY, EventError.STOPPING),
    )
    async def get(self) -> None:
        query = self.read_query(EventQuery)
        wanted = wanted_of(query, self.caller)
        self.set_header("Content-Type", EVENT_STREAM)
        # Proxies that gather answers, as nginx does, must pass this on as it comes.
        self.set_header("X-Accel-Buffering", "no")
        if self.request.method == "HEAD":
            await self.flush()
            return
        author = author_of(self.caller, None)
        self._listening = listening = await self._listen(wanted, f"{author.kind} {author.name}")
        try:
            await self._tell(listening, query, wanted)
        except StreamClosedError:
            _log.debug("the listener has gone (%s)", self.request_id)
        except Exception:
            _log.exception("a stream of events was cut (%s)", self.request_id)
            connection = self.request.connection
            assert isinstance(connection, ServerConnection)
            connection.cut()
        finally:
            await listening.close()

    def on_connection_close(self) -> None:
        """Called by Tornado when the client has gone."""
        super().on_connection_close()
        self._gone = True
        if self._listening is not None:
            self._listening.end()

    async def _listen(self, wanted: Wanted, caller: str) -> Listening:
        try:
            return await self.dependencies.events.listen(wanted, self.request.headers.get("Last-Event-ID"), caller)
        except TooManyListeners as error:
            raise ManagementError(EventError.TOO_MANY, str(error), retry_after_seconds=_RETRY_SECONDS) from error
        except FeedEnds as error:
            raise ManagementError(
                EventError.STOPPING, "This gateway is about to end: try again.", retry_after_seconds=_RETRY_SECONDS
            ) from error

    async def _tell(self, listening: Listening, query: EventQuery, wanted: Wanted) -> None:
        """Until the process ends, the client has gone, or may listen no more."""
        clock = self.dependencies.clock
        # At once, so that a client which is cut before anything has happened misses nothing either.
        place = listening.place
        await self._send(f"retry: {_RETRY_MILLISECONDS}\nid: {place}\n\n")
        sent_at = clock.monotonic()
        while True:
            told = await listening.next(CHECK_SECONDS)
            if told is None or self._gone or not self._is_still(query, wanted):
                return
            if told:
                place = told[-1].id
                await self._send("".join(map(_rendered, told)))
            elif clock.monotonic() - sent_at >= KEEP_ALIVE_SECONDS - CHECK_SECONDS / 2:
                # With the place: what others are told of makes the last event's too old, though nothing is missing.
                moved, place = listening.place != place, listening.place
                await self._send(": keep-alive\n" + (f"id: {place}\n" if moved else "") + "\n")
            else:
                continue
            sent_at = clock.monotonic()

    def _is_still(self, query: EventQuery, wanted: Wanted) -> bool:
        """Whether the caller may listen, as of now, to all of this."""
        headers = Headers.parse(self.request.headers.get_all())
        caller = self.dependencies.view().identifier.still(headers, self.address)
        if caller is None or self.operation is None or not self.operation.permit.admits(caller):
            return False
        try:
            return wanted_of(query, caller) == wanted
        except ManagementError:
            return False

    async def _send(self, text: str) -> None:
        """Gives back when the client has taken enough for more to be written."""
        self.write(text)
        await self.flush()


def _rendered(told: Told) -> str:
    return f"id: {told.id}\nevent: {told.name}\ndata: {told.data}\n\n"
