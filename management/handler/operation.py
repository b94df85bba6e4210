"""What a handler's method is: who may call it, what it takes and answers, what the audit calls it.

There is no method without one (:mod:`management.handler.base` sees to it), so none can forget whom it serves. The routes' table,
the OpenAPI document, the docs and the tests read the same object.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from management.errors import ManagementCode
from management.handler.permit import Permit

JSON = "application/json"
YAML = "text/yaml"
TEXT = "text/plain"

DEFAULT_MAX_BODY_BYTES = 1024 * 1024

_P = ParamSpec("_P")
_H = TypeVar("_H", bound="Runs")


class Unaudited(msgspec.Struct, frozen=True):
    """Of an operation that changes nothing worth remembering, though its method might."""

    because: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one handler. Made by :func:`operation`."""

    permit: Permit
    summary: str
    """One sentence, for the OpenAPI document and `./sluice ctl`."""
    body: Any = None
    """A msgspec type: a JSON body of it; a media type: bytes of that; None: no body."""
    body_required: bool = True
    or_yaml: bool = False
    """Whether it takes a document as YAML too, beside a JSON body."""
    query: type[msgspec.Struct] | None = None
    """The parameters, as fields of scalars; unknown ones are refused."""
    answers: Mapping[int, Any]
    """By status: a msgspec type (JSON), a media type (bytes), several (one of them), or None (no body)."""
    errors: tuple[ManagementCode, ...] = ()
    """What it may answer besides what every operation may (:data:`management.errors.COMMON`)."""
    etag: bool = False
    """Whether its answers carry the revision as an ETag."""
    if_match: bool | None = None
    """True: it demands `If-Match`; False: it honours one; None: it looks at none."""
    action: str | None = None
    """What the audit calls it, such as `provider.create`; None: it changes nothing."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES


class Runs(Protocol):
    """Fits :class:`management.handler.base.ManagementHandler`."""

    async def run(self, described: Operation, method: Callable[[], Awaitable[None]]) -> None:
        """Call ``method``, keep the audit, send the answer."""
        ...


def operation(
    permit: Permit,
    *,
    summary: str,
    answers: Mapping[int, Any],
    body: Any = None,
    body_required: bool = True,
    or_yaml: bool = False,
    query: type[msgspec.Struct] | None = None,
    errors: tuple[ManagementCode, ...] = (),
    etag: bool = False,
    if_match: bool | None = None,
    audit: str | Unaudited | None = None,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
) -> Callable[[Callable[Concatenate[_H, _P], Awaitable[None]]], Callable[Concatenate[_H, _P], Awaitable[None]]]:
    """Mark a method of a handler; see :class:`Operation`. ``audit`` is demanded of every method but GET.

    A method may be given fewer names than its path has, never more; it answers by :meth:`ManagementHandler.write_json`
    and its like, or raises.
    """
    described = Operation(
        permit=permit,
        summary=summary,
        body=body,
        body_required=body_required,
        or_yaml=or_yaml,
        query=query,
        answers=MappingProxyType(dict(answers)),
        errors=errors,
        etag=etag,
        if_match=if_match,
        action=audit if isinstance(audit, str) else None,
        max_body_bytes=max_body_bytes,
    )

    def mark(
        method: Callable[Concatenate[_H, _P], Awaitable[None]],
    ) -> Callable[Concatenate[_H, _P], Awaitable[None]]:
        if method.__name__ != "get" and audit is None:
            raise TypeError(
                f"{method.__qualname__} does not say what the audit calls it: pass audit=… or audit=unaudited(because=…)"
            )

        @wraps(method)
        async def guarded(handler: _H, /, *names: _P.args, **more: _P.kwargs) -> None:
            await handler.run(described, lambda: method(handler, *names, **more))

        setattr(guarded, _ATTRIBUTE, described)
        return guarded

    return mark


def unaudited(because: str) -> Unaudited:
    """For ``audit``: the operation changes nothing; ``because`` is the reason.

    Raises:
        ValueError: no reason.
    """
    if not because.strip():
        raise ValueError("an operation that leaves no trace states why")
    return Unaudited(because)


def operation_of(method: object) -> Operation | None:
    """What :func:`operation` has marked ``method`` with."""
    found = getattr(method, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None


_ATTRIBUTE = "__operation__"
