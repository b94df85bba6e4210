"""Listening sockets: where to listen, and who is let in."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from tornado.httputil import HTTPServerConnectionDelegate
from tornado.netutil import bind_sockets

from config.checks import parse_listen
from core.tasks import Tasks
from transport.answers import too_many_connections
from transport.server import ServerConnection, ServerLimits

_BACKLOG = 1024
_ACCEPTS_A_TURN = _BACKLOG
_ACCEPT_PAUSE_SECONDS = 0.1
# Another worker's turn: how soon to look whether it took it, and how long to wait for that at most.
_SPREAD_PAUSE_SECONDS = 0.002
_SPREAD_PATIENCE_SECONDS = 0.03
_HANDSHAKE_SECONDS = 10.0
# A connection beyond the limit is told so, and closed a little later: at once would take the words from its hands.
_FAREWELL_SECONDS = 0.5
_FAREWELLS = 256
_CLOSE_SECONDS = 1.0

_log = logging.getLogger("sluice.server")


class CannotListen(Exception):
    """The address cannot be listened on; the message says which and why."""


class Spread(Protocol):
    """How workers that accept from the same sockets share the connections."""

    def may_accept(self) -> bool:
        """Whether the next connection is this worker's."""
        ...

    def changed(self, open_connections: int) -> None:
        """This worker has so many open connections now."""
        ...


def bind(address: str, mend: str) -> list[socket.socket]:
    """Listening sockets, one a family, on ``address``; ``mend`` says how to choose another.

    Raises:
        CannotListen: it is no address, not this machine's, or another program is there.
    """
    try:
        host, port = parse_listen(address)
    except ValueError as error:
        raise CannotListen(f"cannot listen on `{address}`: {error}") from None
    try:
        return bind_sockets(port, host, backlog=_BACKLOG)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {error.strerror}; {mend}") from None


def shown_address(sockets: list[socket.socket]) -> str:
    """The address of the first socket, as a client would write it."""
    host, port = sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown_url(sockets: list[socket.socket], *, tls: bool) -> str:
    """The same as a URL."""
    return f"{'https' if tls else 'http'}://{shown_address(sockets)}"


def own_url(sockets: list[socket.socket], *, tls: bool) -> str:
    """The same for a browser on this machine: it goes to no address that stands for all of them."""
    url = shown_url(sockets, tls=tls)
    for every, own in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        url = url.replace(every, own)
    return url


def no_tls() -> None:
    """Plain HTTP."""


class Listener:
    """An HTTP/1.1 server on sockets that somebody else bound."""

    def __init__(
        self,
        sockets: list[socket.socket],
        door: HTTPServerConnectionDelegate,
        limits: Callable[[], ServerLimits],
        *,
        tls: Callable[[], ssl.SSLContext | None] = no_tls,
        max_connections: Callable[[], int],
        spread: Spread | None = None,
    ) -> None:
        """``limits``, ``tls`` and ``max_connections`` are asked for each connection anew."""
        self._sockets = sockets
        self._door = door
        self._limits = limits
        self._tls = tls
        self._max_connections = max_connections
        self._spread = spread
        self._connections: set[ServerConnection] = set()
        self._emptied = asyncio.Event()
        self._refused_since: dict[socket.socket, float] = {}
        self._cannot_accept = False
        self._farewells: set[socket.socket] = set()
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._stopping = False

    @property
    def open(self) -> int:
        """Connections that are open, or about to be."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to accept."""
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def stop_accepting(self) -> None:
        """Take who already waits in the backlog, then close the sockets: nobody who is connected is turned away."""
        self._stopping = True
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            # Right before the end: the system resets whoever connects after the last accept(2) and before close(2).
            self._accept(listening)
            listening.close()
        self._sockets = []

    async def close(self) -> None:
        """Close every connection, idle or not. What is written already has a second to be sent."""
        for farewell in self._farewells:
            farewell.close()
        self._farewells.clear()
        # Those that are not through their handshake.
        await self._tasks.cancel()
        for connection in list(self._connections):
            connection.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._wait_until_empty()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._wait_until_empty()

    async def _wait_until_empty(self) -> None:
        while self._connections:
            self._emptied.clear()
            await self._emptied.wait()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self._spread is not None and not self._is_turn(listening, self._spread):
                return
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError):
                self._refused_since.pop(listening, None)
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Out of file descriptors, most likely. The backlog keeps who waits; asking again at once would spin.
                if not self._cannot_accept:
                    # Once for a run of failures.
                    self._cannot_accept = True
                    pause = _ACCEPT_PAUSE_SECONDS
                    _log.error("cannot accept connections: %s; trying again every %g s", error.strerror, pause)
                self._pause(listening, _ACCEPT_PAUSE_SECONDS)
                return
            self._cannot_accept = False
            accepted.setblocking(False)
            if len(self._connections) < self._max_connections():
                self._take(accepted)
            else:
                self._turn_away(accepted)

    def _is_turn(self, listening: socket.socket, spread: Spread) -> bool:
        if not (self._stopping or spread.may_accept()):
            now = self._loop.time()
            if now - self._refused_since.setdefault(listening, now) < _SPREAD_PATIENCE_SECONDS:
                self._pause(listening, _SPREAD_PAUSE_SECONDS)
                return False
        self._refused_since.pop(listening, None)
        return True

    def _pause(self, listening: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listening)
        self._loop.call_later(seconds, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self._loop.add_reader(listening, self._accept, listening)

    def _take(self, accepted: socket.socket) -> None:
        context = self._tls()
        protocol = "http" if context is None else "https"
        connection = ServerConnection(self._door, self._limits(), self._forget, protocol)
        self._connections.add(connection)
        self._tell_count()
        self._tasks.spawn(self._connect(connection, accepted, context), "connection")

    async def _connect(
        self, connection: ServerConnection, accepted: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        seconds = None if context is None else _HANDSHAKE_SECONDS
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_handshake_timeout=seconds
            )
        except (OSError, asyncio.CancelledError) as error:
            # A client that went, spoke no TLS, or was too slow at it. ssl.SSLError and TimeoutError are OSErrors.
            accepted.close()
            self._forget(connection)
            if isinstance(error, asyncio.CancelledError):
                raise
            _log.debug("a connection failed before its first request: %s", error)

    def _forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        self._tell_count()
        if not self._connections:
            self._emptied.set()

    def _tell_count(self) -> None:
        if self._spread is not None:
            self._spread.changed(len(self._connections))

    def _turn_away(self, accepted: socket.socket) -> None:
        if self._tls() is not None or len(self._farewells) >= _FAREWELLS:
            accepted.close()
            return
        try:
            accepted.send(too_many_connections())
            accepted.shutdown(socket.SHUT_WR)
        except OSError:
            accepted.close()
            return
        self._farewells.add(accepted)
        self._loop.call_later(_FAREWELL_SECONDS, self._see_off, accepted)

    def _see_off(self, accepted: socket.socket) -> None:
        self._farewells.discard(accepted)
        accepted.close()
