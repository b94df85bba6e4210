"""Listening sockets: where to listen, and the servers on them."""

import asyncio
import logging
import socket

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from config.checks import parse_listen
from gateway.frontdoor import FrontDoor

_MAX_HEADER_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
# Bodies are counted where their limits are known: by the pipeline and by the management handlers.
_NO_LIMIT = 1 << 62
_BACKLOG = 1024
_ACCEPTS_A_TURN = _BACKLOG
_ACCEPT_PAUSE_SECONDS = 0.1

_log = logging.getLogger("sluice.server")


class CannotListen(Exception):
    """The address cannot be listened on; the message says which and why."""


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


class _Stream(IOStream):
    """A client's connection, on which small writes go out at once.

    Tornado turns Nagle's algorithm back on after each answer. With it the second event of a stream waits for the
    client's acknowledgement of the first, which is itself delayed by up to 40 ms (RFC 9293 section 3.7.4).
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, read_chunk_size=_CHUNK_BYTES)
        super().set_nodelay(True)

    def set_nodelay(self, value: bool) -> None:
        """Leave it as it is."""


class Listener:
    """An HTTP/1.1 server on sockets that somebody else bound."""

    def __init__(self, sockets: list[socket.socket], door: FrontDoor, keep_alive_seconds: float) -> None:
        self._sockets = sockets
        self._server = HTTPServer(
            door,
            max_header_size=_MAX_HEADER_BYTES,
            chunk_size=_CHUNK_BYTES,
            max_body_size=_NO_LIMIT,
            idle_connection_timeout=keep_alive_seconds,
        )

    def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Out of file descriptors, most likely. The backlog keeps who waits; asking again at once would spin.
                _log.error("cannot accept connections: %s; trying again in %g s", error.strerror, _ACCEPT_PAUSE_SECONDS)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(_ACCEPT_PAUSE_SECONDS, self._resume, listening)
                return
            self._server.handle_stream(_Stream(connection), address)

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def stop_accepting(self) -> None:
        """Take who already waits in the backlog, then close the sockets: nobody who is connected is turned away."""
        for listening in self._sockets:
            self._accept(listening)
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._sockets = []

    async def close(self) -> None:
        """Close every connection, idle or not."""
        await self._server.close_all_connections()
