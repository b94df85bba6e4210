"""Which connection a request gets: one that is idle, a new one, or a place in the queue. Plain decisions, no IO.

The connection used last is used first, so that those beyond the need of the moment grow old and are closed.
"""

import asyncio
import contextlib
import weakref
from collections import deque

import msgspec

from core.errors import ConnectFailed, Delivered
from transport.messages import ConnectionOptions
from transport.provider_connection import ProviderConnection


class PoolLimits(msgspec.Struct, frozen=True):
    """Bounds of the connection pool."""

    connections: int = 10_000
    """Open connections to all providers; a request beyond them waits, on its connect clock."""
    connections_per_origin: int = 10_000
    """Open connections to one scheme, host and port with the same options."""
    waiting: int = 1000
    """Requests that wait for a connection; those beyond fail."""
    keep_alive_seconds: float = 15.0
    """An idle connection is closed after this. Below the limit of most providers' front ends, so that they seldom
    close first, which costs the request that is just on its way."""
    dns_cache_seconds: float = 5.0
    """How long an address that was looked up is used."""
    max_decoded_bytes: int = 256 * 1024 * 1024
    """Of an answer that is encoded unasked, decoded."""


class Origin:
    """Connections to one scheme, host and port with the same options, which any request there may use."""

    __slots__ = ("__weakref__", "_pool", "host", "idle", "open", "options", "port", "tls")

    def __init__(self, pool: "Pool", tls: bool, host: str, port: int, options: ConnectionOptions) -> None:
        self._pool = pool
        self.tls = tls
        self.host = host
        self.port = port
        self.options = options
        self.idle: list[ProviderConnection] = []
        """Used longest ago first."""
        self.open = 0
        """Connections there are or that are being made."""

    def __repr__(self) -> str:
        return f"<origin {self.open} open, {len(self.idle)} idle>"

    @property
    def keep_alive_seconds(self) -> float:
        """See :class:`transport.provider_connection.Keeper`."""
        return self._pool.limits.keep_alive_seconds

    def take(self) -> ProviderConnection | None:
        """The idle connection that was used last."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def came_back(self, connection: ProviderConnection) -> None:
        """See :class:`transport.provider_connection.Keeper`."""
        self.idle.append(connection)
        if self._pool.waiting:
            self._pool.wake()

    def gone(self, connection: ProviderConnection) -> None:
        """See :class:`transport.provider_connection.Keeper`."""
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)
        self._pool.forget(self, connection)


class Pool:
    """All connections to providers."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self._origins: weakref.WeakValueDictionary[tuple[bool, str, int, ConnectionOptions], Origin]
        self._origins = weakref.WeakValueDictionary()
        self._connections: set[ProviderConnection] = set()
        self._places = 0
        self.waiting: deque[_Waiting] = deque()
        self._waking = False

    def __repr__(self) -> str:
        idle = sum(len(origin.idle) for origin in self._origins.values())
        return f"<pool {self._places} open, {idle} idle, {len(self.waiting)} waiting>"

    def origin(self, tls: bool, host: str, port: int, options: ConnectionOptions) -> Origin:
        """The one there is, or a new one. It lasts as long as somebody has it: requests, connections."""
        key = (tls, host, port, options)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = Origin(self, *key)
        return origin

    async def place(self, origin: Origin) -> ProviderConnection | None:
        """A connection that came back, or None: one may be made, and is counted already (see :meth:`leave`).

        Raises:
            core.errors.ConnectFailed: too many wait.
        """
        if self._has_room(origin):
            self._occupy(origin)
            return None
        if len(self.waiting) >= self.limits.waiting:
            raise ConnectFailed("Too many requests wait for a connection to the provider.", delivered=Delivered.NO)
        turn: asyncio.Future[ProviderConnection | None] = asyncio.get_running_loop().create_future()
        entry = (origin, turn)
        self.waiting.append(entry)
        try:
            return await turn
        except asyncio.CancelledError:
            if entry in self.waiting:
                self.waiting.remove(entry)
            elif not turn.cancelled():
                # Its turn had come, and nobody is there to take it.
                connection = turn.result()
                if connection is None:
                    self.leave(origin)
                elif connection.usable:
                    origin.came_back(connection)
            raise

    def add(self, connection: ProviderConnection) -> None:
        """A place has been filled."""
        self._connections.add(connection)

    def leave(self, origin: Origin) -> None:
        """A place was not filled, or is free again."""
        origin.open -= 1
        self._places -= 1
        self.wake()

    def forget(self, origin: Origin, connection: ProviderConnection) -> None:
        """``connection`` is closed."""
        if connection in self._connections:
            self._connections.remove(connection)
            self.leave(origin)

    def wake(self) -> None:
        """Let those that wait have what is free, in their order: idle connections of their origin, or places."""
        if self._waking or not self.waiting:
            return
        self._waking = True
        try:
            left: deque[_Waiting] = deque()
            while self.waiting:
                entry = self.waiting.popleft()
                if not self._serve(entry):
                    left.append(entry)
            self.waiting.extend(left)
        finally:
            self._waking = False

    def cut(self) -> None:
        """Close all that is open."""
        for connection in list(self._connections):
            connection.cut()

    def _serve(self, entry: "_Waiting") -> bool:
        """Whether this one needs to wait no longer."""
        origin, turn = entry
        if turn.done():
            return True
        connection = origin.take()
        if connection is None:
            if not self._has_room(origin):
                return False
            self._occupy(origin)
        turn.set_result(connection)
        return True

    def _occupy(self, origin: Origin) -> None:
        origin.open += 1
        self._places += 1

    def _has_room(self, origin: Origin) -> bool:
        if origin.open >= self.limits.connections_per_origin:
            return False
        if self._places >= self.limits.connections:
            # What has been idle longest somewhere gives way; its place may go to one that has waited for longer.
            idle = next((other.idle for other in list(self._origins.values()) if other.idle), None)
            if idle is not None:
                idle[0].cut()
        return self._places < self.limits.connections


_Waiting = tuple[Origin, asyncio.Future[ProviderConnection | None]]
