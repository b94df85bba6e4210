"""What a request gives, read strictly: JSON bodies, parameters, entity tags."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl

import msgspec

from management.errors import ManagementError, RequestError
from management.handler.operation import JSON, YAML
from management.handler.strict_json import NotStrict, require_strict

_T = TypeVar("_T")
_Query = TypeVar("_Query", bound=msgspec.Struct)

_MOST_PARAMETERS = 32
_SOME_ENTRY = re.compile(r"`\$\.(\w+)\[\.\.\.\]")
_PARAMETER = re.compile(r"at `\$\.(\w+)`$")
_JSON_FORMATS = re.compile(r"application/[a-z0-9!#$&^_.-]+\+json")
_OTHER_NAMES = {YAML: ("application/yaml", "application/x-yaml", "text/x-yaml")}
"""By which types have gone, too (RFC 9512 section 2.1)."""
_UTF_8 = re.compile(r"\s*(?:;?\s*charset\s*=\s*(?:utf-8|\"utf-8\")\s*)?", re.IGNORECASE)
# RFC 9110 section 8.8.3. A weak one would match nothing (section 13.1.1), but proxies that compress answers make ours
# weak, which tells a revision and not the bytes of an answer. Without quotes it is the `revision` of some answer.
NO_NUL = r"^[^\u0000]*$"
"""What is no text for every database is none here."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_ENTITY_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]+)"|([0-9A-Za-z]+)')


def media_type_of(content_type: str | None) -> str | None:
    """What a body says it is, by the one name that it is called by here; None: it does not say."""
    if content_type is None:
        return None
    named = content_type.partition(";")[0].strip().lower()
    if _JSON_FORMATS.fullmatch(named):
        return JSON
    return next((each for each, names in _OTHER_NAMES.items() if named in names), named)


def require_media_type(content_type: str | None, content_coding: str | None, *expected: str) -> None:
    """See that a body says it is what is ``expected``, or says nothing.

    What a page of another site may send unasked (forms, `text/plain`) is none of it. A coding is undone by nobody here,
    so that no body grows.

    Raises:
        ManagementError: 415.
    """
    if content_coding is not None and content_coding.strip().lower() != "identity":
        raise ManagementError(
            RequestError.UNSUPPORTED_MEDIA_TYPE, "The body is encoded: send it without `Content-Encoding`."
        )
    if content_type is None:
        return
    if media_type_of(content_type) not in expected or not _UTF_8.fullmatch(content_type.partition(";")[2]):
        kinds = " or ".join(f"`Content-Type: {each}`" for each in expected)
        raise ManagementError(
            RequestError.UNSUPPORTED_MEDIA_TYPE, f"The body is not what is expected here: send {kinds}."
        )


def require_text(segments: Sequence[str]) -> None:
    """See that segments of the path are what everything behind can take, as parameters are: UTF-8 without a NUL.

    Raises:
        ManagementError: 400.
    """
    if any(map(_NO_TEXT.search, segments)):
        raise ManagementError(
            RequestError.MALFORMED, "The path holds a NUL, or what is no UTF-8: nothing is called so."
        )


def body_of(body: bytes, kind: type[_T]) -> _T:
    """
    Raises:
        ManagementError: 400 with the place of the fault.
    """
    if not body.strip():
        raise ManagementError(RequestError.INVALID_BODY, "The body is empty: send what is expected here as JSON.")
    try:
        require_strict(body)
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, NotStrict) as error:
        # msgspec names the place: "Expected `str`, got `int` - at `$.name`".
        told = _numbered(str(error), body, kind)
        raise ManagementError(
            RequestError.INVALID_BODY, f"The body is not what is expected here: {_sentence(told)}"
        ) from error


def _numbered(told: str, body: bytes, kind: type[Any]) -> str:
    """``told`` of a bad ``body``, with the number of the entry that is meant: msgspec writes `[...]` for it."""
    place = _SOME_ENTRY.search(told)
    if place is None:
        return told
    whole = msgspec.json.decode(body)
    entries = whole[place[1]]
    if not isinstance(entries, list):
        return told

    def is_bad(count: int) -> bool:
        try:
            msgspec.convert({**whole, place[1]: entries[:count]}, kind)
        except msgspec.ValidationError as error:
            return str(error) == told
        return False

    number = bisect_left(range(1, len(entries) + 1), True, key=is_bad)
    if number == len(entries):
        return told
    return f"{told[: place.end(1)]}[{number}]{told[place.end() :]}"


def query_of(query: str, kind: type[_Query]) -> _Query:
    """
    Raises:
        ManagementError: 400: a parameter that is unknown, given twice, or of another type.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError as error:
        raise ManagementError(
            RequestError.INVALID_QUERY, "The query cannot be read: write `?name=value&…` in UTF-8."
        ) from error
    known = msgspec.structs.fields(kind)
    names = {field.encode_name for field in known}
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            takes = " and ".join(f"`{each}`" for each in sorted(names)) or "none"
            raise ManagementError(
                RequestError.INVALID_QUERY, f"There is no such parameter: this path takes {takes}.", param=name[:64]
            )
        if name in given:
            raise ManagementError(RequestError.INVALID_QUERY, f"`{name}` is given twice: send it once.", param=name)
        if _NO_TEXT.search(value):
            raise ManagementError(
                RequestError.INVALID_QUERY, f"`{name}` holds a NUL: nothing is called so.", param=name
            )
        given[name] = value
    try:
        found = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        place = _PARAMETER.search(str(error))
        named = None if place is None else place[1]
        if any(field.encode_name == named and _is_time(field.type) for field in known):
            raise _no_time(str(named)) from error
        raise ManagementError(
            RequestError.INVALID_QUERY,
            f"A parameter is not what is expected here: {_sentence(str(error))}",
            param=named,
        ) from error
    for field in known:
        name = field.encode_name
        value = getattr(found, field.name)
        # msgspec reads more from a text than a query should say: `null` as none, and a number as a time.
        if name in given and value is None:
            raise ManagementError(RequestError.INVALID_QUERY, f"`{name}` is `null`: leave it out instead.", param=name)
        if isinstance(value, datetime) and "t" not in given.get(name, "t").lower():
            raise _no_time(name)
    return found


def _is_time(kind: Any) -> bool:
    return kind is datetime or any(map(_is_time, get_args(kind)))


def _no_time(name: str) -> ManagementError:
    return ManagementError(
        RequestError.INVALID_QUERY,
        f"`{name}` is no time: write it as 2026-01-31T12:00:00Z, or with its offset, whose `+` is `%2B` in a query.",
        param=name,
    )


def entity_tag_of(fields: Sequence[str]) -> str | None:
    """The one of `If-Match`; None where there is no such field.

    Raises:
        ManagementError: 400: several, or none.
    """
    if not fields:
        return None
    found = _ENTITY_TAG.fullmatch(fields[0].strip()) if len(fields) == 1 else None
    if found is None:
        raise ManagementError(
            RequestError.INVALID_IF_MATCH,
            'Send one `If-Match: "…"`, with the `ETag` of what you have read: `*` would undo what you have not seen.',
        )
    return found[1] or found[2]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
