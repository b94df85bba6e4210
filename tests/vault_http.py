"""The sockets of the Vault stand-in: HTTP/1.1 with connections that are kept, over TLS where it is asked for."""

import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.vault_messages import Answer, Request

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
_BETWEEN_LOOKS = 0.02
HANG_UP = Answer(0)
"""None: the connection is closed instead."""


@dataclass(frozen=True)
class Seen:
    """A request, and the status that it was answered with, whether or not anybody waited for the answer still."""

    request: Request
    status: int
    at: float
    """Seconds of :func:`time.monotonic` when it had come."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    client_certificate: str | None = None

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def method(self) -> str:
        return self.request.method


class Vault(Protocol):
    """What the sockets need to know."""

    requests: list[Seen]
    waiting: int

    @property
    def pause(self) -> float:
        """Seconds between two bytes of an answer; 0: it is sent in one."""
        ...

    def delay(self, path: str) -> float:
        """Seconds until the answer of a path begins."""
        ...

    def answer(self, request: Request) -> Answer: ...


class Server(ThreadingHTTPServer):
    """A listening socket, and a thread for each connection."""

    daemon_threads = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, vault: Vault, port: int, tls: ssl.SSLContext | None) -> None:
        self.vault = vault
        self.faults: list[BaseException] = []
        self.ended = threading.Event()
        self._tls = tls
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)
        self._thread = threading.Thread(target=self.serve_forever, args=(_BETWEEN_LOOKS,), name="vault stand-in")

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.ended.set()
        self.shutdown()
        self._thread.join()
        self.socket.close()
        with self._connections_lock:
            for connection in self._connections:
                # The other side, or our own thread, may have been faster.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()  # waits for the threads

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            # The handshake is for the connection's own thread: a client that says nothing must hold nobody up.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._connections_lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        # A client that hangs up, or does not trust us, is what some tests are about.
        if error is not None and not isinstance(error, OSError):
            self.faults.append(error)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # a head and its body leave together
    server: Server

    def do_GET(self) -> None:
        came = time.monotonic()
        vault = self.server.vault
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urlsplit(self.path)
        request = Request(
            self.command,
            unquote(url.path).removeprefix("/v1/").rstrip("/"),
            self.headers.get("x-vault-namespace", ""),
            self.headers.get("x-vault-token", "")
            or self.headers.get("authorization", "").removeprefix("Bearer ").strip(),
            json.loads(content) if content else {},
            dict(parse_qsl(url.query)),
        )
        vault.waiting += 1
        try:
            self._wait(request.path)
        finally:
            vault.waiting -= 1
        answer = vault.answer(request)
        headers = {name.lower(): value for name, value in self.headers.items()}
        vault.requests.append(Seen(request, answer.status, came, headers, self._client_certificate()))
        if answer is HANG_UP:
            self.close_connection = True
        else:
            self._send(answer)

    do_POST = do_PUT = do_DELETE = do_LIST = do_PATCH = do_HEAD = do_GET  # noqa: N815 (the base class looks for these)

    def _wait(self, path: str) -> None:
        vault = self.server.vault
        until = time.monotonic() + vault.delay(path)
        while time.monotonic() < until and vault.delay(path):
            if self.server.ended.wait(min(_BETWEEN_LOOKS, max(0.0, until - time.monotonic()))):
                raise ConnectionAbortedError

    def _client_certificate(self) -> str | None:
        if not isinstance(self.request, ssl.SSLSocket):
            return None
        shown: Any = self.request.getpeercert() or {}
        return dict(part[0] for part in shown.get("subject", ())).get("commonName")

    def _send(self, answer: Answer) -> None:
        content = answer.text.encode()
        if answer.body is not None:
            content = json.dumps(answer.body).encode() + b"\n"
        self.send_response(answer.status)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Type", "application/json")
        self.send_header("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        while self.server.vault.pause and content:
            self.wfile.flush()
            if self.server.ended.wait(self.server.vault.pause):
                raise ConnectionAbortedError
            self.wfile.write(content[:1])
            content = content[1:]
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Nothing: what was asked is in ``requests``."""


def server_tls(*, ask_client: bool = False) -> ssl.SSLContext:
    """The tests' certificate, for `127.0.0.1` and `localhost`; clients show one of the same authority if asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(AUTHORITY)
    return context
