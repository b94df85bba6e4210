"""Lists of models, as vendors write them: lenient about how an entry looks, strict about what is no list at all.

What is read: OpenAI's ``{"object": "list", "data": [{"id", "created", "owned_by"}]}``
(https://platform.openai.com/docs/api-reference/models/list) and what is alike: a bare list, ``models`` in place of ``data``,
entries that are names alone, ``name`` or ``model`` in place of ``id``, times in milliseconds or as RFC 3339.
"""

from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec

from core.errors import UpstreamMalformed
from proxy.providers.base import ListedModel, ModelPage

MAX_ID = 256
"""Characters of a model's name; an entry with a longer one is passed over."""

_LISTS = ("data", "models")
_NAMES = ("id", "name", "model")
_OWNERS = ("owned_by", "organization")
_CREATED = ("created", "created_at")
_LATEST_SECONDS = 253402300800.0  # the year 10000, at which datetime ends
# A time in seconds stays below this until the year 5138, one in milliseconds is above it since 1973.
_MILLISECONDS_FROM = 1e11
_MICROSECONDS_FROM = 1e14

_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members)
_entries = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()


def read_models(body: bytes) -> ModelPage:
    """The models of one answer, each once, in the answer's order.

    Entries that name no model are passed over, unless all do.

    Raises:
        UpstreamMalformed: ``body`` is no list of models.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        # Whatever is kept of it must be text; what is not looked into would not be checked otherwise.
        body.decode()
        members: _Members = {}
        if body[:1] == b"[":
            entries = _entries.decode(body)
        elif body[:1] == b"{":
            members = _members.decode(body)
            entries = _listed(members)
        else:
            raise _malformed("is not JSON")
        found = [model for model in map(_model, entries) if model is not None]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _malformed("is not JSON") from None
    if entries and not found:
        raise _malformed("names no model")
    by_id: dict[str, ListedModel] = {}
    for model in found:
        by_id.setdefault(model.id, model)
    return ModelPage(tuple(by_id.values()), _next_query(members, entries))


def _malformed(what: str) -> UpstreamMalformed:
    return UpstreamMalformed(f"The provider's list of models {what}: check `base_url`.")


def _kind(raw: msgspec.Raw) -> bytes:
    """The character that tells a JSON value's type."""
    return bytes(memoryview(raw)[:1])


def _value(raw: msgspec.Raw) -> object:
    """None for what is JSON by its grammar alone: a number without bounds, half a character."""
    try:
        return _any.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _listed(members: _Members) -> list[msgspec.Raw]:
    for name in _LISTS:
        raw = members.get(name)
        if raw is not None and _kind(raw) == b"[":
            return _entries.decode(raw)
    raise _malformed("has neither `data` nor `models`")


def _model(raw: msgspec.Raw) -> ListedModel | None:
    members: _Members = {}
    if _kind(raw) == b"{":
        members = _members.decode(raw)
        name = _first_text(members, _NAMES)
    else:
        name = _text(raw)
    if name is None:
        return None
    return ListedModel(
        id=name, owned_by=_first_text(members, _OWNERS), created=_created(members), raw=bytes(raw) if members else b""
    )


def _first_text(members: _Members, names: tuple[str, ...]) -> str | None:
    return next((text for name in names if name in members and (text := _text(members[name])) is not None), None)


def _text(raw: msgspec.Raw) -> str | None:
    """A text that can be a name: it is shown, stored and asked for."""
    if _kind(raw) != b'"':
        return None
    text = _value(raw)
    return text if isinstance(text, str) and 0 < len(text) <= MAX_ID and text.isprintable() else None


def _created(members: _Members) -> float | None:
    """Seconds since the Unix epoch; None where it says nothing, or nonsense."""
    for name in _CREATED:
        if name in members:
            seconds = _seconds(_value(members[name]))
            if seconds is not None and 0 < seconds < _LATEST_SECONDS:
                return seconds
    return None


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if number >= _MICROSECONDS_FROM:
            return number / 1e6
        return number / 1e3 if number >= _MILLISECONDS_FROM else number
    return None


def _next_query(members: _Members, entries: list[msgspec.Raw]) -> str | None:
    """The query that asks for the next page, in the manner in which this one tells that there is one."""
    # https://ai.google.dev/api/models#method:-models.list and https://docs.cohere.com/reference/list-models
    for name, parameter in (("nextPageToken", "pageToken"), ("next_page_token", "page_token")):
        if name in members and (token := _cursor(members[name])) is not None:
            return urlencode({parameter: token})
    if not entries or bytes(members.get("has_more", b"")) != b"true" or "last_id" not in members:
        return None
    last = _cursor(members["last_id"])
    if last is None:
        return None
    # https://platform.claude.com/docs/en/api/models/list says `after_id`, OpenAI's lists that have pages say `after`.
    by_type = _kind(entries[0]) == b"{" and bytes(_members.decode(entries[0]).get("type", b"")) == b'"model"'
    return urlencode({"after_id" if by_type else "after": last})


def _cursor(raw: msgspec.Raw) -> str | None:
    if _kind(raw) != b'"':
        return None
    text = _value(raw)
    return text if isinstance(text, str) and 0 < len(text) <= 4096 and text.isprintable() else None
