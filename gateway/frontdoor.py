"""One listener for both planes: each request goes to the data plane or to the management application by its path."""

import re
from collections.abc import Awaitable, Callable

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import Application

from core.clock import Clock
from core.tasks import Tasks
from credentials.logins.pasted import CALLBACK_PATH
from proxy.dataplane import DataPlane
from proxy.endpoints import PATH_ALIASES
from proxy.handlers import DataPlaneDelegate
from proxy.pipeline import Pipeline
from transport.server import ServerConnection

_AUTHORITY = re.compile(r"[^/?]*")
_OPEN = frozenset({"/healthz", "/readyz", CALLBACK_PATH})
"""Of the management application, on every listener: who calls them is asked nothing."""


class DataPlaneEntry:
    """What is needed to begin an exchange."""

    def __init__(self, pipeline: Pipeline, plane: Callable[[], DataPlane], clock: Clock, tasks: Tasks) -> None:
        self.pipeline = pipeline
        self.plane = plane
        self.clock = clock
        self.tasks = tasks

    def delegate(self, connection: ServerConnection) -> DataPlaneDelegate:
        """The receiver of one request on ``connection``."""
        return DataPlaneDelegate(connection, self.pipeline, self.plane(), self.clock, self.tasks)


class FrontDoor(HTTPServerConnectionDelegate):
    """Serves a listener. Without ``entry`` it is the management's own; without ``management`` only what is open
    to everybody is the management application's."""

    def __init__(
        self,
        application: Application,
        entry: DataPlaneEntry | None,
        *,
        management: bool,
        draining: Callable[[], bool],
    ) -> None:
        self.application = application
        self.entry = entry
        self.management = management
        self.draining = draining

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Who answers the request whose head has come on ``request_conn``."""
        assert isinstance(request_conn, ServerConnection)
        if self.draining():
            request_conn.close_after_answer()
        target = request_conn.target
        path = origin_form(target).partition("?")[0]
        delegate: HTTPMessageDelegate
        if self.entry is not None and self._is_data_plane(path):
            delegate = self.entry.delegate(request_conn)
        else:
            delegate = self.application.start_request(server_conn, request_conn)
        return delegate if target.startswith("/") else _InOriginForm(delegate)

    def _is_data_plane(self, path: str) -> bool:
        if path.startswith(("/v1/", "/v1beta/")) or path in PATH_ALIASES:
            return True
        return not self.management and path not in _OPEN


def origin_form(target: str) -> str:
    """A target in absolute form without its scheme and authority: a server must take both (RFC 9112 section 3.2.2)."""
    if target.startswith("/"):
        return target
    scheme, separator, rest = target.partition("://")
    if scheme.lower() not in ("http", "https") or not separator:
        return target
    authority = _AUTHORITY.match(rest)
    after = rest[authority.end() :] if authority is not None else rest
    return after if after.startswith("/") else f"/{after}"


class _InOriginForm(HTTPMessageDelegate):
    """Shows another delegate its request with the target in origin form."""

    def __init__(self, delegate: HTTPMessageDelegate) -> None:
        self._delegate = delegate
        if isinstance(delegate, DataPlaneDelegate):
            self.body_stalled = delegate.body_stalled

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        return self._delegate.headers_received(start_line._replace(path=origin_form(start_line.path)), headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._delegate.finish()

    def on_connection_close(self) -> None:
        self._delegate.on_connection_close()
