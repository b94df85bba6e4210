"""Finding the fields of one name in a multipart body as it passes (RFC 7578, RFC 2046 section 5.1). Sans-io.

What a field says decides what a caller may do, and the provider reads the same bytes with another parser. So this one
is strict: whatever two parsers may read differently is refused. A body of a client's library passes; what does not
is a boundary that stands anywhere but in a delimiter, a head that is folded, escaped or misses its line ends, a name
that is spelled in an extended way (RFC 5987), or one that only resembles the wanted one.
"""

import re
from urllib.parse import unquote_to_bytes

import msgspec

PREFIX_BYTES = 64 * 1024
"""So much of a multipart body is read, to be sent again where an attempt fails; more only where its model comes later."""

MAX_HEAD_BYTES = 8 * 1024
"""The longest head of a part."""

MAX_PARTS = 1000

MAX_VALUE_BYTES = 64 * 1024
"""The longest value of a field that is looked for."""

_LINE = b"\r\n"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 2046's characters of a boundary, and more in quotes; `=`, `/`, `:` and `?` are sent without quotes, too.
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})=(?:"([^"\\\r\n]*)"|([!#$%&\'*+.^_`|~0-9A-Za-z=/:?-]+))')
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})")
_DISPOSITION = re.compile(r"form-data(?=[ \t]*(?:;|\Z))", re.IGNORECASE)
_FIELD_NAME = re.compile(rf"{_TOKEN}\Z")
_TEXT_TYPE = re.compile(r'text/plain(?:[ \t]*;[ \t]*charset="?(?:utf-8|us-ascii|iso-8859-1)"?)?\Z', re.IGNORECASE)


class MalformedMultipart(ValueError):
    """The body, or its content type, is not multipart to the letter."""


class Field(msgspec.Struct, frozen=True):
    """A field's value and where it stands in the body."""

    value: bytes
    start: int
    end: int


def boundary_of(content_type: str) -> bytes:
    """The boundary that a ``multipart/form-data`` content type states.

    Raises:
        MalformedMultipart: it states none, or in a way that may be read in several.
    """
    kind = _MEDIA_TYPE.match(content_type)
    if kind is None:
        raise MalformedMultipart("the content type is malformed")
    parameters = _parameters(content_type, kind.end(), "the content type")
    boundary = parameters.get("boundary", "")
    extended = any(name.startswith("boundary*") for name in parameters)
    if extended or not 0 < len(boundary) <= 70 or boundary.endswith(" "):
        raise MalformedMultipart("the multipart content type states no boundary of 1 to 70 characters")
    return boundary.encode("latin-1")


def _parameters(text: str, position: int, where: str) -> dict[str, str]:
    """The ``; name=value`` from ``position`` to the end of ``text``; names in lower case, each once."""
    found: dict[str, str] = {}
    while match := _PARAMETER.match(text, position):
        position = match.end()
        name = match[1].lower()
        if name in found:
            raise MalformedMultipart(f"{where} has several `{name}`")
        found[name] = match[3] if match[2] is None else match[2]
    if text[position:].strip(" \t;"):
        raise MalformedMultipart(f'{where} is malformed: write its parameters as `; name="value"`, without backslashes')
    return found


class FieldFinder:
    """Reads a body piece by piece and keeps the fields of one name."""

    def __init__(self, boundary: bytes, name: str) -> None:
        self._delimiter = b"--" + boundary
        self._name = name
        self._buffer = b""
        self._offset = 0
        """Of the buffer in the body."""
        self._in_head = False
        self._wanted_from: int | None = None
        """Where in the body the value of the field being read begins, if it is wanted."""
        self._closed = False
        self._parts = 0
        self.fields: list[Field] = []
        """The fields that have been read whole, their closing delimiter included."""

    def feed(self, piece: bytes) -> None:
        """
        Raises:
            MalformedMultipart: the body can be read in several ways; says where.
        """
        self._buffer += piece
        while self._head() if self._in_head else self._content():
            pass

    def end(self) -> None:
        """The body is over.

        Raises:
            MalformedMultipart: it is cut before its closing delimiter.
        """
        if not self._closed or self._delimiter in self._buffer:
            raise MalformedMultipart("the multipart body ends before its closing boundary")
        if self._buffer not in (b"", _LINE):
            raise MalformedMultipart("there are bytes after the last part: leave them out")

    def _content(self) -> bool:
        """Go on to the next delimiter. Whether it is there."""
        at = self._buffer.find(self._delimiter)
        if at < 0:
            # Of the content nothing is needed but what a delimiter and its line break may begin with.
            if self._wanted_from is None:
                self._drop(max(0, len(self._buffer) - len(self._delimiter) - 1))
            elif len(self._buffer) > MAX_VALUE_BYTES + len(self._delimiter):
                raise self._too_long()
            return False
        after = at + len(self._delimiter)
        mark = self._buffer[after : after + 2]
        if len(mark) < 2:
            return False
        first = self._offset + at == 0
        if self._parts == 0 and not first:
            raise MalformedMultipart("there are bytes before the first part: leave them out")
        if self._closed or mark not in (_LINE, b"--") or not (first or self._buffer[max(0, at - 2) : at] == _LINE):
            raise MalformedMultipart("the multipart boundary stands where no part begins: choose another")
        if self._wanted_from is not None:
            # The buffer begins where the value does: nothing is dropped while it is read.
            if at - 2 > MAX_VALUE_BYTES:
                raise self._too_long()
            self.fields.append(Field(self._buffer[: at - 2], self._wanted_from, self._wanted_from + at - 2))
            self._wanted_from = None
        self._closed = mark == b"--"
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MalformedMultipart(f"the multipart body has more than {MAX_PARTS} parts")
        self._in_head = not self._closed
        self._drop(after + 2)
        return True

    def _head(self) -> bool:
        """Go on beyond the head of a part. Whether it is there whole."""
        end = self._buffer.find(_LINE + _LINE)
        if end < 0 and len(self._buffer) <= MAX_HEAD_BYTES:
            return False
        if not 0 <= end <= MAX_HEAD_BYTES:
            raise MalformedMultipart(f"the head of a part is over {MAX_HEAD_BYTES} bytes")
        head = self._buffer[:end]
        if self._delimiter in head:
            raise MalformedMultipart("the multipart boundary stands in the head of a part: choose another")
        self._in_head = False
        self._drop(end + 4)
        if self._is_wanted(head.decode("latin-1")):
            self._wanted_from = self._offset
        return True

    def _is_wanted(self, head: str) -> bool:
        """Whether a part with this head is a field of the wanted name."""
        fields = _head_fields(head)
        disposition = fields.get("content-disposition", "")
        kind = _DISPOSITION.match(disposition)
        if kind is None:
            raise MalformedMultipart('a part has no `Content-Disposition: form-data; name="…"`')
        parameters = _parameters(disposition, kind.end(), "a part's Content-Disposition")
        if "name" not in parameters or any(name.startswith("name*") for name in parameters):
            raise MalformedMultipart('a part has no plain name: write `Content-Disposition: form-data; name="…"`')
        name = parameters["name"]
        if name != self._name:
            plain = unquote_to_bytes(name.encode("latin-1")).decode("latin-1")
            bare = re.split(r"[\[.]", plain.strip(" \t[]'"), maxsplit=1)[0].rstrip().lower()
            if bare == self._name:
                raise MalformedMultipart(f"a part's name resembles `{self._name}`: write it exactly so")
            if bare == "_charset_":
                # RFC 7578 section 4.6: it would say how the other fields are to be read.
                raise MalformedMultipart("a part is called `_charset_`: send UTF-8 and leave it out")
            return False
        if len(parameters) > 1 or not _is_plain_text(fields):
            raise MalformedMultipart(f"send `{self._name}` as a plain text field, not as a file")
        return True

    def _too_long(self) -> MalformedMultipart:
        return MalformedMultipart(f"`{self._name}` is over {MAX_VALUE_BYTES} bytes")

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._offset += count


def _head_fields(head: str) -> dict[str, str]:
    """The header fields of a part: names in lower case, each once, unfolded."""
    fields: dict[str, str] = {}
    for line in head.split("\r\n"):
        name, colon, value = line.partition(":")
        lower = name.lower()
        if not colon or _FIELD_NAME.match(name) is None or any(mark in line for mark in "\r\n\0"):
            raise MalformedMultipart("the head of a part is malformed")
        if lower in fields:
            raise MalformedMultipart(f"the head of a part has several `{lower}`")
        fields[lower] = value.strip(" \t")
    return fields


def _is_plain_text(fields: dict[str, str]) -> bool:
    """Whether a part with these header fields holds text as it is."""
    coding = fields.get("content-transfer-encoding", "8bit").lower()
    return (
        coding in ("7bit", "8bit", "binary") and _TEXT_TYPE.match(fields.get("content-type", "text/plain")) is not None
    )
