"""Finding one field near the start of a multipart body (RFC 7578, RFC 2046 section 5.1). Sans-io."""

import re

import msgspec

PREFIX_BYTES = 64 * 1024
"""The model must be named within this many first bytes of a multipart body."""

_HEAD_BYTES = 2048
"""The longest head of a part that is watched for."""

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^;"\s]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'^content-disposition:\s*form-data;(?:[^\r\n]*;)?\s*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)


class Field(msgspec.Struct, frozen=True):
    """A field's value and where it stands in the bytes searched."""

    value: bytes
    start: int
    end: int


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a ``multipart/form-data`` content type states, or None."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return None
    return (match[1] or match[2]).encode("latin-1", "replace")


def find_fields(prefix: bytes, boundary: bytes, name: bytes) -> list[Field]:
    """Every field called ``name`` that stands whole in ``prefix``, its closing boundary included."""
    delimiter = b"\r\n--" + boundary
    # The first delimiter has no line break before it where there is no preamble.
    data = b"\r\n" + prefix
    fields: list[Field] = []
    part = data.find(delimiter)
    while part >= 0:
        head_start = part + len(delimiter)
        head_end = data.find(b"\r\n\r\n", head_start)
        end = data.find(delimiter, head_start)
        if head_end < 0 or end < 0:
            break
        if head_end < end:
            disposition = _NAME.search(data[head_start:head_end])
            if disposition is not None and disposition[1] == name:
                start = head_end + 4
                fields.append(Field(data[start:end], start - 2, end - 2))
        part = end
    return fields


class LaterFields:
    """Watches a body piece by piece for further fields of one name, whatever way the name is quoted."""

    def __init__(self, boundary: bytes, name: bytes) -> None:
        self._field = re.compile(
            rb"--" + re.escape(boundary) + rb"\r?\n(?:[^\r\n]*\r?\n){0,8}?[^\r\n]*"
            rb'name\*?\s*=\s*(?:utf-8\'\')?"?' + re.escape(name) + rb'"?\s*(?:;|\r?\n)',
            re.IGNORECASE,
        )
        self._kept = b""
        self._known = 0

    def count(self, prefix: bytes) -> int:
        """How many such fields begin in ``prefix``, the first bytes of the body."""
        self._keep(prefix)
        return len(self._field.findall(prefix))

    def found_in(self, piece: bytes) -> bool:
        """Whether a field that was not in the bytes before is completed in ``piece``."""
        data = self._kept + piece
        found = len(self._field.findall(data)) > self._known
        self._keep(data)
        return found

    def _keep(self, data: bytes) -> None:
        self._kept = data[-_HEAD_BYTES:]
        self._known = len(self._field.findall(self._kept))
