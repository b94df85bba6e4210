"""Checks of one ``providers[]`` entry that the adapters share. Paths of faults are relative to the entry."""

import re
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from config.faults import Fault, did_you_mean

Options = TypeVar("Options", bound=msgspec.Struct)

# RFC 9110 section 5.6.2: a token.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# RFC 9110 section 5.5: visible characters, space and tab.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_TRANSPORT_FIELDS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
)


def read_options(given: dict[str, Any], kind: type[Options], faults: list[Fault]) -> Options:
    """``options:`` as a ``kind``; each fault is appended to ``faults``, and its key left at its default."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = fields.get(key)
        if field is None:
            hint = did_you_mean(key, fields) or ": this type takes no options; remove it"
            faults.append(Fault(("options", key), f"unknown option `{key}`{hint}"))
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            faults.append(Fault(("options", key), f"{error}: give a value of that kind"))
    return kind(**values)


def read_base_url(text: str, faults: list[Fault]) -> SplitResult:
    """``base_url`` in parts, without a slash at the path's end; what is wrong with it is appended to ``faults``."""

    def fault(message: str) -> None:
        faults.append(Fault(("base_url",), message))

    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        # What Python says of it may repeat a part of a password.
        fault("not a URL: write it as https://host/v1")
        return urlsplit("")
    if url.scheme not in {"http", "https"} or not url.hostname or port == 0:
        fault("not an http(s) URL: write it as https://host/v1")
    elif url.username is not None or url.password is not None:
        fault("a URL is shown in logs: move the user and password to `credentials` or `headers`")
    elif url.fragment:
        fault("a URL to send to has no fragment: remove `#` and what follows")
    elif not (text.isascii() and text.isprintable()) or " " in text:
        fault("spaces and non-ASCII characters must be percent-encoded, host names in their xn-- form")
    return url._replace(path=url.path.rstrip("/"))


def read_headers(given: dict[str, str], faults: list[Fault]) -> tuple[tuple[str, str], ...]:
    """``headers:`` as fields with lower-case names; a value is never shown, for it may be a secret."""
    fields: dict[str, str] = {}
    for name, value in given.items():
        lower = name.lower()
        if not _FIELD_NAME.match(name):
            faults.append(Fault(("headers", name), "not a header name: use letters, digits and `-`"))
        elif lower in _TRANSPORT_FIELDS:
            faults.append(Fault(("headers", name), "this field is written by the gateway itself: remove it"))
        elif lower in fields:
            faults.append(Fault(("headers", name), "the field is given twice, names ignore case: remove one"))
        elif not _FIELD_VALUE.match(value):
            faults.append(Fault(("headers", name), "the value has characters that a header cannot carry: remove them"))
        else:
            fields[lower] = value.strip()
    return tuple(fields.items())
