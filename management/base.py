"""The base of all management handlers: no handler without a permit, no method before the caller is known.

Order of a request: body length, then who calls (401, 429), whether they may (403), whether the method exists (405),
then the body, then the handler's method. Open routes skip the second and third step.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec
from tornado.web import HTTPError, RequestHandler, stream_request_body

from access.address import client_address
from core.errors import AdminKeyBusy, TooManyFailures, Unauthenticated
from core.headers import Headers
from core.identity import AdminKey, Anonymous, ApiToken
from core.ids import new_request_id
from management.dependencies import Dependencies, View
from management.errors import AccessError, InternalError, ManagementError, RequestError
from management.permit import Permit
from telemetry.access_log import cut
from transport.server import ServerConnection

_log = logging.getLogger("sluice.management")

MAX_BODY_BYTES = 1024 * 1024
MAX_BODY_SECONDS = 30.0
"""A body that is not complete by then is answered 408: with a byte now and then, strangers could hold any number of
connections open."""

_METHODS = ("get", "post", "put", "patch", "delete")
_encode = msgspec.json.Encoder().encode
_Body = TypeVar("_Body")


# Streamed, so that the caller is known before a byte of the body is kept.
@stream_request_body
class ManagementHandler(RequestHandler):
    """Subclasses state who may call: ``class Reload(ManagementHandler, permit=requires(Role.ADMIN))``."""

    permit: ClassVar[Permit]
    allowed_methods: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, permit: Permit | None = None, **kwargs: Any) -> None:
        """
        Raises:
            TypeError: no ``permit``. A subclass of a handler states its own too.
        """
        super().__init_subclass__(**kwargs)
        if permit is None:
            raise TypeError(
                f"{cls.__name__} does not say who may call it: pass permit=requires(Role.…) or permit=opened(because=…)"
            )
        cls.permit = permit
        methods = [name.upper() for name in _METHODS if getattr(cls, name) is not getattr(RequestHandler, name)]
        if "GET" in methods:
            # RFC 9110 section 9.3.2: HEAD is GET without the body, which Tornado leaves out by itself.
            cls.head = cls.get
            methods.insert(1, "HEAD")
        cls.allowed_methods = tuple(methods)

    def initialize(self, dependencies: Dependencies) -> None:
        """Called by Tornado with the third member of the handler's URL specification."""
        self.dependencies = dependencies
        self.view: View = dependencies.view()
        self.caller: Anonymous | AdminKey | ApiToken = Anonymous()
        self._chunks: list[bytes] = []
        self._keeps_body = False
        self._received_bytes = 0
        # Tornado would refuse a method that it does not know before it asks who calls; `prepare` does both, in order.
        self.SUPPORTED_METHODS = (self.request.method or "",)
        # The transport's clock runs from piece to piece; this one holds for the whole body.
        clock = asyncio.get_running_loop().call_later(MAX_BODY_SECONDS, self._refuse_slow_body)
        # Done when the body is in or the connection gone; Tornado says so nowhere else.
        self.request._body_future.add_done_callback(lambda _: clock.cancel())  # noqa: SLF001  see above

    def set_default_headers(self) -> None:
        """Called by Tornado for each answer, errors too, and once before :meth:`initialize`."""
        if not hasattr(self, "request_id"):
            self.request_id = new_request_id()
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Request-Id", self.request_id)

    async def prepare(self) -> None:
        """Know the caller and refuse whoever may not call, before any method runs or any byte of the body is kept."""
        # A body without a length (chunked) is counted as it comes; a broken length is the HTTP parser's matter.
        length = self.request.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            raise _body_too_large()
        if not self.is_open():
            self.caller = await self._identify()
            if not self.permit.admits(self.caller):
                raise ManagementError(
                    HTTPStatus.FORBIDDEN,
                    AccessError.FORBIDDEN,
                    f"{_described(self.caller)} may not call this: it takes {self.permit}.",
                )
        if self.request.method not in self.allowed_methods:
            raise self._method_not_allowed()
        # A body of GET and HEAD means nothing (RFC 9110 section 9.3.1): what comes is dropped.
        self._keeps_body = self.request.method not in ("GET", "HEAD")

    def is_open(self) -> bool:
        """Whether nobody is asked who they are. A handler may open itself by configuration."""
        return self.permit.open_because is not None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Called by Tornado with each part of the body."""
        if not self._keeps_body:
            return None
        self._received_bytes += len(chunk)
        if self._received_bytes <= MAX_BODY_BYTES:
            self._chunks.append(chunk)
        else:
            # Nothing is kept any more; whoever reads the body says 413.
            self._chunks.clear()
        return None

    def _refuse_slow_body(self) -> None:
        connection = self.request.connection
        if isinstance(connection, ServerConnection):
            connection.refuse_slow_body()

    def read_body(self, kind: type[_Body], default: _Body) -> _Body:
        """The JSON body as a ``kind``, or ``default`` where the request has none.

        Raises:
            ManagementError: 413, or 400 with the place of the fault.
        """
        if self._received_bytes > MAX_BODY_BYTES:
            raise _body_too_large()
        body = b"".join(self._chunks)
        if not body.strip():
            return default
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # msgspec names the place: "Expected `str`, got `int` - at `$.name`".
            raise ManagementError(
                HTTPStatus.BAD_REQUEST, RequestError.INVALID_BODY, f"The body is not what is expected here: {error}."
            ) from error

    def write_json(self, body: msgspec.Struct, status: int = 200) -> None:
        """Answer with ``body``."""
        self.set_status(status)
        self.finish(_encode(body))

    def compute_etag(self) -> str | None:
        """None: nothing here is cached, so nothing is hashed."""
        return None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by Tornado for whatever a method raised; the body is JSON always."""
        exc_info = kwargs.get("exc_info")
        error = self._as_management_error(status_code, exc_info[1] if exc_info is not None else None)
        self.set_status(error.status)
        if error.status == HTTPStatus.UNAUTHORIZED:
            # RFC 9110 section 11.6.1: a 401 names a scheme.
            self.set_header("WWW-Authenticate", 'Bearer realm="sluice"')
        if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.allowed_methods))
        if error.retry_after_seconds is not None:
            self.set_header("Retry-After", str(math.ceil(error.retry_after_seconds)))
        self.finish(_encode(error.body()))

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Called by Tornado: refusals are answers, all else is a fault of ours and is logged with its traceback."""
        if isinstance(value, ManagementError | HTTPError) or value is None or typ is None:
            return
        _log.error("request %s failed", self.request_id, exc_info=(typ, value, tb))

    async def _identify(self) -> AdminKey | ApiToken:
        headers = Headers.parse(self.request.headers.get_all())
        address = client_address(self.request.remote_ip or "", headers, self.view.trusted_proxies)
        try:
            return await self.view.identifier.manager(headers, address)
        except Unauthenticated as error:
            raise ManagementError(
                HTTPStatus.UNAUTHORIZED, AccessError.UNAUTHENTICATED, error.message, param=error.param
            ) from error
        except TooManyFailures as error:
            raise ManagementError(
                HTTPStatus.TOO_MANY_REQUESTS,
                AccessError.LOCKED_OUT,
                error.message,
                retry_after_seconds=error.retry_after_seconds,
            ) from error
        except AdminKeyBusy as error:
            raise ManagementError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                AccessError.BUSY,
                error.message,
                retry_after_seconds=error.retry_after_seconds,
            ) from error

    def _as_management_error(self, status: int, cause: BaseException | None) -> ManagementError:
        if isinstance(cause, ManagementError):
            return cause
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return self._method_not_allowed()
        if 400 <= status < 500:
            # Tornado's own: a path that is no UTF-8, say.
            return ManagementError(status, RequestError.MALFORMED, "The request cannot be understood.")
        return ManagementError(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            InternalError.UNEXPECTED,
            f"The gateway failed; its log says how, under {self.request_id}.",
        )

    def _method_not_allowed(self) -> ManagementError:
        allowed = " and ".join(self.allowed_methods) or "no method"
        return ManagementError(
            HTTPStatus.METHOD_NOT_ALLOWED, RequestError.METHOD_NOT_ALLOWED, f"This path takes {allowed}."
        )


def log_request(handler: RequestHandler) -> None:
    """Tornado's `log_function`: one record a request, by the handler's name and not the client's spelling.

    Probes and scrapes come every few seconds: what was only looked at, and allowed, is for DEBUG.
    """
    if not isinstance(handler, ManagementHandler):  # pragma: no cover - the table holds no other
        return
    only_looked = handler.request.method in ("GET", "HEAD") and handler.get_status() < HTTPStatus.BAD_REQUEST
    _log.log(
        logging.DEBUG if only_looked else logging.INFO,
        "%s %s %d by %s in %.6f s (%s)",
        # The one text of the client's choosing.
        cut(handler.request.method or ""),
        type(handler).__name__,
        handler.get_status(),
        handler.caller.name,
        handler.request.request_time(),
        handler.request_id,
    )


def _described(caller: Anonymous | AdminKey | ApiToken) -> str:
    return f"The token `{caller.name}` (`{caller.scope}`)" if isinstance(caller, ApiToken) else f"`{caller.name}`"


def _body_too_large() -> ManagementError:
    return ManagementError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        RequestError.BODY_TOO_LARGE,
        f"The body has more than {MAX_BODY_BYTES} bytes, which is the most that is read here.",
    )
