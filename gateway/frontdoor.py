"""One listener for both planes: each request goes to the data plane or to the management application by its path."""

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
from proxy.dataplane import DataPlane
from proxy.endpoints import PATH_ALIASES
from proxy.handlers import DataPlaneDelegate
from proxy.pipeline import Pipeline
from transport.server import ServerConnection

_PROBES = frozenset({"/healthz", "/readyz"})


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
    """Serves a listener. Without ``entry`` it is the management's own; without ``management`` only probes are open."""

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
        assert isinstance(request_conn, ServerConnection)
        return _Dispatch(self, server_conn, request_conn)

    def choose(self, path: str, server_conn: object, connection: ServerConnection) -> HTTPMessageDelegate:
        """Who answers a request for ``path``."""
        if self.entry is not None and self._is_data_plane(path):
            return self.entry.delegate(connection)
        return self.application.start_request(server_conn, connection)

    def _is_data_plane(self, path: str) -> bool:
        if path.startswith(("/v1/", "/v1beta/")) or path in PATH_ALIASES:
            return True
        return not self.management and path not in _PROBES


def origin_form(start_line: RequestStartLine) -> RequestStartLine:
    """A target in absolute form without its scheme and authority: a server must take both (RFC 9112 section 3.2.2)."""
    if start_line.path.startswith("/"):
        return start_line
    scheme, separator, rest = start_line.path.partition("://")
    if scheme.lower() not in ("http", "https") or not separator:
        return start_line
    slash = rest.find("/")
    return start_line._replace(path=rest[slash:] if slash >= 0 else "/")


class _Dispatch(HTTPMessageDelegate):
    """Waits for the head of a request, then steps aside."""

    __slots__ = ("_connection", "_delegate", "_door", "_server_conn")

    def __init__(self, door: FrontDoor, server_conn: object, connection: ServerConnection) -> None:
        self._door = door
        self._server_conn = server_conn
        self._connection = connection
        self._delegate: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        if self._door.draining():
            self._connection.close_after_answer()
        start_line = origin_form(start_line)
        path = start_line.path.partition("?")[0]
        self._delegate = self._door.choose(path, self._server_conn, self._connection)
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        assert self._delegate is not None
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        assert self._delegate is not None
        self._delegate.finish()

    def body_stalled(self) -> None:
        """See :class:`transport.server.ServerConnection`."""
        if isinstance(self._delegate, DataPlaneDelegate):
            self._delegate.body_stalled()
        else:
            self._connection.refuse_slow_body()

    def on_connection_close(self) -> None:
        if self._delegate is not None:
            self._delegate.on_connection_close()
