"""Who is at the other end of a connection, in the words of Tornado's requests."""

import asyncio
import ssl
from typing import Any


class ConnectionContext:
    """Who is at the other end. :class:`tornado.httputil.HTTPServerRequest` reads it."""

    __slots__ = ("address", "protocol", "remote_ip")

    def __init__(self, address: Any, protocol: str) -> None:
        self.address = address
        # A Unix socket has no address to show; Tornado says the same.
        self.remote_ip: str = address[0] if isinstance(address, tuple) else "0.0.0.0"  # noqa: S104  # not bound to
        self.protocol = protocol

    def __str__(self) -> str:
        return self.remote_ip


class PeerSocket:
    """What of ``connection.stream.socket`` Tornado's request asks for."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def getpeercert(self, *, binary_form: bool = False) -> Any:
        session: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return None if session is None else session.getpeercert(binary_form=binary_form)


class PeerStream:
    """What of ``connection.stream`` Tornado's request asks for."""

    __slots__ = ("_transport", "socket")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.socket = PeerSocket(transport)

    def closed(self) -> bool:
        return self._transport.is_closing()
