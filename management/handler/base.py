"""The base of all management handlers: no method that is no operation, none before the caller is known.

Order of a request: by which name and from which page (421, 403), body length, who calls (401, 429), whether they may
(403), whether the method exists (405), whether the path is text (400), then the body, then the operation. Open operations
ask nobody who they are. An operation that changes something is in the audit before its answer goes out, and its events
are kept for webhooks.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec
from tornado.web import HTTPError, RequestHandler, stream_request_body

from access.address import client_address
from core.headers import Headers
from core.identity import Anonymous, AuthContext, Author, author_of
from core.ids import new_request_id
from management.dependencies import Dependencies, View
from management.errors import (
    AccessError,
    AuditError,
    ManagementError,
    RequestError,
)
from management.handler.callers import described, identified
from management.handler.inputs import body_of, entity_tag_of, media_type_of, query_of, require_media_type, require_text
from management.handler.json_text import encode
from management.handler.operation import DEFAULT_MAX_BODY_BYTES, JSON, YAML, Operation, operation_of
from management.handler.origin import SECURITY_HEADERS, Way, preflight_headers, way_of
from management.handler.refusal import refusal_of
from storage.errors import AuditFull, StorageUnavailable
from storage.records import NewAuditEntry
from transport.server import ServerConnection

_log = logging.getLogger("sluice.management")

MAX_BODY_SECONDS = 30.0
"""A body that is not complete by then is answered 408: with a byte now and then, strangers could hold any number of
connections open."""

_METHODS = ("get", "post", "put", "patch", "delete")
_Body = TypeVar("_Body")
_Query = TypeVar("_Query", bound=msgspec.Struct)


class _NoQuery(msgspec.Struct, frozen=True):
    """Of an operation without parameters."""


# Streamed, so that the caller is known before a byte of the body is kept.
@stream_request_body
class ManagementHandler(RequestHandler):
    """Subclasses mark their methods with :func:`management.handler.operation.operation`."""

    operations: ClassVar[dict[str, Operation]] = {}
    """By HTTP method; HEAD is not among them."""
    allowed_methods: ClassVar[tuple[str, ...]] = ()
    any_host: bool = False
    """Whether it may be called by whatever name: by probes, which have nothing to tell."""
    way: Way | None = None
    """By which name and from which page the request has come."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """
        Raises:
            TypeError: a method of HTTP that is no operation.
        """
        super().__init_subclass__(**kwargs)
        cls.operations = {}
        for name in _METHODS:
            method = getattr(cls, name)
            if method is getattr(RequestHandler, name):
                continue
            described = operation_of(method)
            if described is None:
                raise TypeError(
                    f"{cls.__name__}.{name} does not say who may call it: mark it with @operation(requires(Role.…), …)"
                )
            cls.operations[name.upper()] = described
        methods = list(cls.operations)
        if "GET" in methods:
            # RFC 9110 section 9.3.2: HEAD is GET without the body, which Tornado leaves out by itself.
            cls.head = cls.get
            methods.insert(1, "HEAD")
        cls.allowed_methods = tuple(methods)

    def initialize(self, dependencies: Dependencies) -> None:
        """Called by Tornado with the third member of the handler's URL specification."""
        self.dependencies = dependencies
        self.view: View = dependencies.view()
        self.caller: AuthContext = Anonymous()
        self.address = ""
        """Whence the request comes; set with the caller."""
        self.operation: Operation | None = self.operations.get(_as_get(self.request.method or ""))
        self._chunks: list[bytes] = []
        self._keeps_body = False
        self._received_bytes = 0
        self._max_body_bytes = self.operation.max_body_bytes if self.operation is not None else 0
        self._answer: bytes | None = None
        self._audited: dict[str, Any] = {}
        # Tornado would refuse a method that it does not know before it asks who calls; `prepare` does both, in order.
        self.SUPPORTED_METHODS = (self.request.method or "",)
        self.way = way_of(self.request, self.view.origins, self.view.trusted_proxies)
        self.set_default_headers()
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
        self.set_header("X-Request-Id", self.request_id)
        for name, value in (*SECURITY_HEADERS, *(() if self.way is None else self.way.headers)):
            self.set_header(name, value)

    async def prepare(self) -> None:
        """Know the caller and refuse whoever may not call, before any method runs or any byte of the body is kept."""
        self.require_way()
        if self.way is not None and self.way.is_admitted_preflight:
            # Without a look at credentials: browsers send none with it.
            self.set_status(HTTPStatus.NO_CONTENT)
            self.clear_header("Content-Type")
            for name, value in preflight_headers(self.allowed_methods):
                self.set_header(name, value)
            self.finish()
            return
        # A body without a length (chunked) is counted as it comes; a broken length is the HTTP parser's matter.
        length = self.request.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > max(self._max_body_bytes, DEFAULT_MAX_BODY_BYTES):
            raise self._body_too_large()
        if not self.is_open():
            self.caller = await self._identify()
            if not any(each.permit.admits(self.caller) for each in self._asked()):
                raise ManagementError(
                    AccessError.FORBIDDEN,
                    f"{described(self.caller)} may not call this: it takes "
                    + " or ".join(dict.fromkeys(each.permit.for_caller(self.caller) for each in self._asked()))
                    + ".",
                )
        if self.operation is None:
            raise self._method_not_allowed()
        require_text(self.path_args)
        # A body of GET and HEAD means nothing (RFC 9110 section 9.3.1): what comes is dropped.
        self._keeps_body = self.request.method not in ("GET", "HEAD")

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Called by Tornado with the segments that the caller chooses, before :meth:`prepare`, which refuses what is none."""
        return value.decode(errors="surrogateescape")

    def require_way(self) -> None:
        """Refuse requests by unknown names and of other sites' pages; before credentials, which have no say in it.

        Raises:
            ManagementError: 421, 403.
        """
        assert self.way is not None
        if not self.any_host:
            self.way.require_known_host()
        self.way.require_own_page()

    def is_open(self) -> bool:
        """Whether nobody is asked who they are. A handler may open itself by configuration."""
        return all(each.permit.open_because is not None for each in self._asked())

    def _asked(self) -> tuple[Operation, ...]:
        """The operation that is asked for; where the path has none by the method, those that it has."""
        return (self.operation,) if self.operation is not None else tuple(self.operations.values())

    async def run(self, described: Operation, method: Callable[[], Awaitable[None]]) -> None:
        """Called by :func:`management.handler.operation.operation`: the operation itself, the audit, the answer."""
        try:
            await self._perform_audited(described, method)
        finally:
            if self.request.method not in ("GET", "HEAD"):  # what was refused may be an event too
                await self.dependencies.settle_events()
        self.finish(self._answer)

    async def _perform_audited(self, described: Operation, method: Callable[[], Awaitable[None]]) -> None:
        if described.action is None:
            await self._perform(described, method)
            return
        try:
            self.dependencies.audit.require_room()
        except AuditFull as error:
            raise ManagementError(AuditError.FULL, f"{error} Nothing was changed.") from error
        try:
            await self._perform(described, method)
        except Exception as error:
            # What was tried is told too: by whom, and how it ended.
            await self._keep_audit(described.action, refusal_of(500, error, self.request_id).code)
            raise
        await self._keep_audit(described.action, "done")

    async def _perform(self, described: Operation, method: Callable[[], Awaitable[None]]) -> None:
        if described.query is None and self.request.method not in ("GET", "HEAD"):
            # Who sends `?dry_run=true` must not find it done.
            query_of(self.request.query, _NoQuery)
        await method()

    def audit(self, resource: str, resource_id: str, *, before: Any = None, after: Any = None) -> None:
        """What the audit says of this operation: JSON-able values, with nothing secret in them."""
        self._audited = {
            "resource": resource,
            "resource_id": resource_id,
            "before": None if before is None else encode(before).decode(),
            "after": None if after is None else encode(after).decode(),
        }

    @property
    def author(self) -> Author:
        """Who calls."""
        return author_of(self.caller, self.address)

    async def _keep_audit(self, action: str, outcome: str) -> None:
        author = self.author
        said = self._audited or {"resource": action.partition(".")[0], "resource_id": "/".join(self.path_args) or None}
        await self.dependencies.audit.append(
            NewAuditEntry(
                at=round(self.dependencies.clock.time() * 1_000_000),
                actor=author.name,
                actor_kind=author.kind,
                address=author.address,
                action=action,
                outcome=outcome,
                request_id=self.request_id,
                **said,
            )
        )

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Called by Tornado with each part of the body."""
        if not self._keeps_body:
            return None
        self._received_bytes += len(chunk)
        if self._received_bytes <= self._max_body_bytes:
            self._chunks.append(chunk)
        else:
            # Nothing is kept any more; whoever reads the body says 413.
            self._chunks.clear()
        return None

    def _refuse_slow_body(self) -> None:
        connection = self.request.connection
        if isinstance(connection, ServerConnection):
            connection.refuse_slow_body()

    def raw_body(self) -> bytes:
        """The body as it came.

        Raises:
            ManagementError: 413, 415.
        """
        if self._received_bytes > self._max_body_bytes:
            raise self._body_too_large()
        if self._chunks and self.operation is not None:
            expected = self.operation.body
            fields = self.request.headers
            require_media_type(
                fields.get("Content-Type"),
                fields.get("Content-Encoding"),
                expected if isinstance(expected, str) else JSON,
                *((YAML,) if self.operation.or_yaml else ()),
            )
        return b"".join(self._chunks)

    @property
    def says_yaml(self) -> bool:
        """Whether the body says that it is YAML."""
        return media_type_of(self.request.headers.get("Content-Type")) == YAML

    def read_body(self, kind: type[_Body]) -> _Body:
        """The JSON body as a ``kind``.

        Raises:
            ManagementError: 413, 415, or 400 with the place of the fault.
        """
        return body_of(self.raw_body(), kind)

    def read_body_or(self, kind: type[_Body], default: _Body) -> _Body:
        """The JSON body as a ``kind``, or ``default`` where the request has none. Raises as :meth:`read_body` does."""
        return self.read_body(kind) if self.raw_body().strip() else default

    def read_query(self, kind: type[_Query]) -> _Query:
        """The query's parameters as a ``kind``, a Struct of scalars.

        Raises:
            ManagementError: 400: unknown, given twice, or of another type.
        """
        return query_of(self.request.query, kind)

    def if_match(self) -> str:
        """The revision that the caller has seen.

        Raises:
            ManagementError: 428 without one, 400 where it is none.
        """
        found = self.optional_if_match()
        if found is None:
            raise ManagementError(
                RequestError.IF_MATCH_REQUIRED,
                "This changes what others may have changed meanwhile: send the `ETag` of what you have read as `If-Match`.",
            )
        return found

    def optional_if_match(self) -> str | None:
        """The same where one is given, else None."""
        return entity_tag_of(self.request.headers.get_list("If-Match"))

    def write_json(
        self, body: Any, status: int = HTTPStatus.OK, *, etag: str | None = None, location: str | None = None
    ) -> None:
        """Answer with ``body``, once the operation has ended."""
        self.write_bytes(encode(body), JSON, status, etag=etag, location=location)

    def write_bytes(
        self,
        body: bytes,
        media_type: str,
        status: int = HTTPStatus.OK,
        *,
        etag: str | None = None,
        location: str | None = None,
    ) -> None:
        """The same with bytes of any type."""
        self.set_status(status)
        self.set_header("Content-Type", media_type)
        if etag is not None:
            self.set_header("ETag", f'"{etag}"')
        if location is not None:
            self.set_header("Location", location)
        self._answer = body

    def write_empty(self, *, etag: str | None = None) -> None:
        """Answer 204."""
        self.set_status(HTTPStatus.NO_CONTENT)
        self.clear_header("Content-Type")
        if etag is not None:
            self.set_header("ETag", f'"{etag}"')
        self._answer = None

    def compute_etag(self) -> str | None:
        """None: nothing here is cached, so nothing is hashed."""
        return None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by Tornado for whatever a method raised; the body is JSON always."""
        exc_info = kwargs.get("exc_info")
        cause = exc_info[1] if exc_info is not None else None
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED and not isinstance(cause, ManagementError):
            cause = self._method_not_allowed()
        error = refusal_of(status_code, cause, self.request_id)
        self.set_status(error.status)
        if error.status == HTTPStatus.UNAUTHORIZED:
            # RFC 9110 section 11.6.1: a 401 names a scheme.
            self.set_header("WWW-Authenticate", 'Bearer realm="sluice"')
        if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.allowed_methods))
        if error.retry_after_seconds is not None:
            self.set_header("Retry-After", str(math.ceil(error.retry_after_seconds)))
        if error.etag is not None:
            self.set_header("ETag", f'"{error.etag}"')
        self.finish(encode(error.body()))

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Called by Tornado: refusals are answers, all else is a fault of ours and is logged with its traceback."""
        if isinstance(value, ManagementError | HTTPError | StorageUnavailable) or value is None or typ is None:
            return
        _log.error("request %s failed", self.request_id, exc_info=(typ, value, tb))

    async def _identify(self) -> AuthContext:
        headers = Headers.parse(self.request.headers.get_all())
        self.address = client_address(self.request.remote_ip or "", headers, self.view.trusted_proxies)
        return await identified(self.view.identifier, headers, self.address, self.dependencies.settle_events)

    def _method_not_allowed(self) -> ManagementError:
        allowed = " and ".join(self.allowed_methods) or "no method"
        return ManagementError(RequestError.METHOD_NOT_ALLOWED, f"This path takes {allowed}.")

    def _body_too_large(self) -> ManagementError:
        most = max(self._max_body_bytes, DEFAULT_MAX_BODY_BYTES)
        return ManagementError(
            RequestError.BODY_TOO_LARGE, f"The body has more than {most} bytes, which is the most that is read here."
        )


def _as_get(method: str) -> str:
    return "GET" if method == "HEAD" else method
