"""Connections to a Vault server: what is sent over them, how much of an answer is read, how a call is given up.

requests counts its timeouts from one piece of an answer to the next, so an answer that trickles has no end by itself:
whoever has waited long enough cuts the call's :class:`Wire`, and what reads it in another thread ends with an error.
"""

import contextlib
import io
import socket
import ssl
import threading
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse

from config.vault.settings import VaultSettings

_MOST_BYTES = 4 * 1024 * 1024
"""Of one answer: the secret of a key-value store has 1 MiB at most."""
_PIECE_BYTES = 64 * 1024


class UnlikeVault(Exception):
    """The answer is none that Vault gives."""


class Wire:
    """What one call is carried by. Its thread calls :meth:`carry` first; any other may :meth:`cut` it."""

    # One for all: a connection goes from call to call.
    _taking = threading.Lock()

    def __init__(self) -> None:
        self.connects = False
        """Whether the last request was not sent over a kept connection."""
        self.anew = False
        """Whether no kept connection will do."""
        self._connection: _Connection | None = None
        self._socket: socket.socket | None = None
        self._is_cut = False

    def carry(self) -> None:
        """What the present thread sends is part of this call."""
        _PRESENT.set(self)

    def take(self, connection: "_Connection") -> None:
        """Use ``connection`` from now on.

        Raises:
            ConnectionAbortedError: the call has been given up.
        """
        with self._taking:
            if self._is_cut:
                raise ConnectionAbortedError
            # Remembered, as a connection lets go of it before an answer is read that is its last.
            self._connection, self._socket = connection, connection.sock
            connection.wire = self

    def cut(self) -> None:
        """Give the call up: its connection is shut down, unless it serves another meanwhile."""
        with self._taking:
            self._is_cut = True
            if self._socket is not None and self._connection is not None and self._connection.wire is self:
                with contextlib.suppress(OSError):
                    # Not the method of TLS's sockets, which is not made to be called while another thread reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_PRESENT: ContextVar[Wire] = ContextVar("wire")


class _Connection(HTTPConnection):
    wire: Wire | None = None
    """That uses it, or used it last."""

    @property
    def is_connected(self) -> bool:
        return super().is_connected and not _PRESENT.get().anew

    def connect(self) -> None:
        _PRESENT.get().connects = True
        super().connect()
        _PRESENT.get().take(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _PRESENT.get().take(self)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["stream"] = True
        wire = _PRESENT.get()
        wire.connects = wire.anew = False
        try:
            response = super().send(request, *args, **kwargs)
        except requests.ConnectionError:
            # The server may have closed a kept connection just when the request was sent over it (RFC 9112, 9.3.1).
            if request.method != "GET" or wire.connects:
                raise
            wire.anew = True
            response = super().send(request, *args, **kwargs)
        response.raw = io.BytesIO(_content(response.raw))
        return response


class Connections(requests.Session):
    """Shared by all calls to one server. Methods may be called from any thread that has a :class:`Wire`."""

    def __init__(self, settings: VaultSettings, most_at_once: int) -> None:
        super().__init__()
        self.timeout_seconds = settings.config.timeout_seconds
        self.trust_env = False
        # One, as Vault's own client: a standby node may name the active one.
        self.max_redirects = 1
        # What is not packed cannot unfold.
        self.headers["Accept-Encoding"] = "identity"
        self._by_tls_alone = settings.server.startswith("https:")
        tls = settings.config.tls
        self._authorities = str(settings.path(tls.ca)) if tls.ca is not None else _system_authorities()
        certificate = [str(settings.path(name)) for name in (tls.cert, tls.key) if name is not None]
        self._certificate = (certificate[0], certificate[-1]) if certificate else None
        # As many as there may be calls: more than fit would be thrown away, with a warning.
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pool_maxsize=most_at_once))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        # Here, where redirects come too: what is parsed is what will be connected to.
        if self._by_tls_alone and urlsplit(request.url or "").scheme != "https":
            raise requests.TooManyRedirects("the token would be sent in the clear")
        # Here, as hvac puts what it finds in the environment in the place of what is None.
        ours: dict[str, Any] = {
            "timeout": self.timeout_seconds,
            "verify": self._authorities,
            "cert": self._certificate,
            "proxies": {},
        }
        return super().send(request, **kwargs | ours)

    def rebuild_method(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Called with what a redirect asks for."""
        former, target = urlsplit(response.url), urlsplit(prepared_request.url or "")
        fits = former.hostname == target.hostname or former.scheme == target.scheme == "https"
        if prepared_request.method != "GET" and not fits:
            raise requests.TooManyRedirects("credentials would be sent elsewhere")
        super().rebuild_method(prepared_request, response)


def _content(raw: BaseHTTPResponse) -> bytes:
    """The whole answer.

    Raises:
        UnlikeVault: it is too large.
    """
    content = bytearray()
    while piece := raw.read(_PIECE_BYTES, decode_content=False):
        content += piece
        if len(content) > _MOST_BYTES:
            raw.close()
            raise UnlikeVault
    return bytes(content)


def _system_authorities() -> str | bool:
    """Where OpenSSL finds them, as for all other connections; True: requests' own, where it finds none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True
