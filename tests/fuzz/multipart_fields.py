"""Any upload, in any pieces, to the finder of its fields."""

import contextlib
from collections.abc import Iterable, Iterator

from proxy.multipart import Field, FieldFinder, MalformedMultipart, boundary_of
from tests.fuzz.target import pieces, seed, split

BOUNDARY = b"B7"
_HEADS = (
    b'Content-Disposition: form-data; name="model"',
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav',
    b"content-disposition:form-data;name=model\r\nContent-Type: text/plain; charset=utf-8",
    b"Content-Disposition: form-data; name*=utf-8''model",
    b'Content-Disposition: form-data; name="model[]"',
)
_TYPES = (
    b"multipart/form-data; boundary=B7",
    b'Multipart/Form-Data; charset=utf-8; BOUNDARY="B 7"',
    b"multipart/form-data; boundary=a; boundary*=b",
)


def found(parts: Iterable[bytes]) -> list[Field] | None:
    """The fields called `model`; None: the body is refused."""
    finder = FieldFinder(BOUNDARY, "model")
    try:
        for part in parts:
            finder.feed(part)
        finder.end()
    except MalformedMultipart:
        return None
    return finder.fields


def run(data: bytes) -> None:
    choice, sizes, sent = split(data)
    if choice & 128:
        with contextlib.suppress(MalformedMultipart):
            boundary = boundary_of(sent.decode("latin-1"))
            assert 1 <= len(boundary) <= 70
            assert boundary in sent
        return
    whole = found([sent])
    assert whole == found(pieces(sent, sizes))
    for field in whole or ():
        assert field.value == sent[field.start : field.end]
        assert b"--" + BOUNDARY not in field.value


def seeds() -> Iterator[bytes]:
    for head in _HEADS:
        part = b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n%b\r\n"
        body = part % b"gpt" + part % b"\r\n--B" + b"--" + BOUNDARY + b"--\r\n"
        yield seed(body)
        yield seed(body, 1)
        yield seed(body, 5, 11)
        yield seed(part % b"gpt" + b"--" + BOUNDARY + b"--\r\n", 64)
    for content_type in _TYPES:
        yield seed(content_type, choice=128)
