"""A multipart body read piece by piece: the wanted field is found wherever it stands, and doubt is refused."""

import email.parser
import email.policy
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.intake import Splice
from proxy.multipart import MAX_HEAD_BYTES, MAX_VALUE_BYTES, Field, FieldFinder, MalformedMultipart, boundary_of

few = settings(max_examples=120, deadline=None)

B = b"a-Boundary_7"
cuts = st.lists(st.integers(0, 1 << 16), max_size=20)
contents = st.binary(max_size=60).filter(lambda content: B not in content) | st.sampled_from(
    [
        b"",
        b"\r\n",
        b"\r\n--",
        b"--\r\n",
        b"\r\n\r\n",
        b"\r\n--a-Boundary_",
        b'Content-Disposition: form-data; name="model"',
    ]
)
other_heads = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="prompt"',
        b"content-disposition:form-data;name=language",
        b'Content-Disposition: form-data; name="file"; filename="model.wav"\r\nContent-Type: audio/wav',
        b"Content-Type: image/png\r\nContent-Disposition: form-data; filename=x.png; name=image",
        'Content-Disposition: form-data; name="f"; filename="größe"; filename*=utf-8\'\'gr%C3%B6%C3%9Fe'.encode(),
        b'Content-Disposition: form-data; name="models"',
        b'X-Custom: model\r\nContent-Disposition: form-data; name="x" ;',
        b'Content-Disposition: FORM-DATA; name="a; name=model"',
    ]
)
model_heads = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="model"',
        b"Content-Disposition: form-data; name=model",
        b"content-disposition:Form-Data;Name=model",
        b'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit',
    ]
)


def body(parts: list[tuple[bytes, bytes]], before: bytes = b"", after: bytes = b"\r\n") -> bytes:
    written = b"".join(b"--" + B + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return before + written + b"--" + B + b"--" + after


def split(data: bytes, where: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in where)})
    return [data[a:b] for a, b in pairwise(edges)]


def read(pieces: list[bytes], boundary: bytes = B) -> list[Field]:
    finder = FieldFinder(boundary, "model")
    for piece in pieces:
        finder.feed(piece)
    finder.end()
    return finder.fields


parts = st.lists(st.tuples(other_heads, contents), max_size=3)


@few
@given(
    parts,
    parts,
    model_heads,
    contents,
    cuts,
    st.sampled_from([b"", b"\r\n"]),
)
def test_the_field_is_found_in_any_place_and_however_it_is_cut(
    first: list[tuple[bytes, bytes]],
    last: list[tuple[bytes, bytes]],
    head: bytes,
    value: bytes,
    where: list[int],
    after: bytes,
) -> None:
    data = body([*first, (head, value), *last], after=after)
    (field,) = read(split(data, where))
    assert value == field.value == data[field.start : field.end]
    # Another name in its place, and all other bytes as they were.
    splice = Splice(field.start, field.end, b"other")
    renamed = splice.apply(data)
    assert body([*first, (head, b"other"), *last], after=after) == renamed
    assert len(data) + splice.growth == len(renamed)


@few
@given(parts, cuts)
def test_a_body_without_the_field_passes(without: list[tuple[bytes, bytes]], where: list[int]) -> None:
    assume(without)
    assert [] == read(split(body(without), where))


@few
@given(parts, parts, parts, model_heads, model_heads, cuts)
def test_two_fields_are_both_found(
    first: list[tuple[bytes, bytes]],
    second: list[tuple[bytes, bytes]],
    third: list[tuple[bytes, bytes]],
    head: bytes,
    again: bytes,
    where: list[int],
) -> None:
    data = body([*first, (head, b"x"), *second, (again, b"y"), *third])
    assert [b"x", b"y"] == [field.value for field in read(split(data, where))]


@few
@given(parts, model_heads, cuts, st.integers(0, 1 << 16))
def test_a_body_that_is_cut_is_refused(
    first: list[tuple[bytes, bytes]], head: bytes, where: list[int], at: int
) -> None:
    data = body([*first, (head, b"x")], after=b"")
    with pytest.raises(MalformedMultipart):
        read(split(data[: at % len(data)], where))


@few
@given(
    st.lists(
        st.sampled_from(
            [
                b"--" + B,
                b"\r\n",
                b"--",
                b"\n",
                b"Content-Disposition: form-data; name=",
                b'"model"',
                b"model",
                b"x",
                b";",
            ]
        ),
        max_size=16,
    ).map(b"".join),
    cuts,
)
def test_cutting_changes_nothing_of_what_is_found_or_refused(data: bytes, where: list[int]) -> None:
    outcomes: list[list[tuple[bytes, int]] | None] = []
    for pieces in ([data], split(data, where), [data[at : at + 1] for at in range(len(data))]):
        try:
            outcomes.append([(field.value, field.start) for field in read(pieces)])
        except MalformedMultipart:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1] == outcomes[2]


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"--" + B, b"\r\n--" + B, b"\n--" + B, b" --" + B]),
            st.sampled_from([b"\r\n", b" \r\n", b"\n", b"--\r\n", b"x\r\n"]),
            st.sampled_from(
                [
                    b'Content-Disposition: form-data; name="model"',
                    b"Content-Disposition: form-data; name=model",
                    b"Content-Disposition: form-data;\r\n name=model",
                    b'Content-Disposition: form-data; name="mo\\del"',
                    b"Content-Disposition: form-data; name*=utf-8''model",
                    b'Content-Disposition: form-data; name="x"; name="model"',
                    b'Content-Disposition: form-data; name="x"',
                    b'X: y\r\nContent-Disposition: form-data; name="model"',
                ]
            ),
            st.sampled_from([b"\r\n\r\n", b"\n\n"]),
            st.sampled_from([b"one", b"two"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_accepted_is_read_alike_by_another_parser(
    written: list[tuple[bytes, bytes, bytes, bytes, bytes]],
) -> None:
    data = b"".join(b"".join(part) for part in written) + b"\r\n--" + B + b"--\r\n"
    try:
        ours = [field.value for field in read([data])]
    except MalformedMultipart:
        return
    header = b"Content-Type: multipart/form-data; boundary=" + B + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(header + data)
    theirs = [
        part.get_payload(decode=True)
        for part in message.iter_parts()
        if part.get_param("name", header="content-disposition") == "model"
    ]
    assert theirs == ours


MODEL = b'Content-Disposition: form-data; name="model"'
OTHER = b'Content-Disposition: form-data; name="x"'
DOUBTFUL: dict[str, bytes] = {
    "no delimiter": b"model=x",
    "nothing": b"",
    "no closing delimiter": b"--" + B + b"\r\n" + MODEL + b"\r\n\r\nx\r\n",
    "bytes before the first part": body([(MODEL, b"x")], before=b"a preamble\r\n"),
    "bytes after the last part": body([(MODEL, b"x")], after=b"\r\nan epilogue"),
    "more parts than anybody sends": body([(OTHER, b"")] * 1001 + [(MODEL, b"x")]),
    "a name in single quotes": body([(MODEL, b"x"), (MODEL.replace(b"model", b"'model'"), b"y")]),
    "a name with an index": body([(MODEL, b"x"), (MODEL.replace(b"model", b"model[0]"), b"y")]),
    "a name with a member": body([(MODEL, b"x"), (MODEL.replace(b"model", b"model.name"), b"y")]),
    "a charset for all fields": body([(MODEL.replace(b"model", b"_charset_"), b"utf-16"), (MODEL, b"x")]),
    "a delimiter after the end": body([(MODEL, b"x")]) + b"--" + B + b"\r\n",
    "half a delimiter after the end": body([(MODEL, b"x")]) + b"--" + B,
    "a boundary that begins another": body([(OTHER, b"\r\n--" + B + b"x\r\n"), (MODEL, b"x")]),
    "a delimiter after LF": body([(OTHER, b"\n--" + B + b"\r\n"), (MODEL, b"x")]),
    "a delimiter within a line": body([(OTHER, b"y--" + B + b"\r\n"), (MODEL, b"x")]),
    "a delimiter that ends with LF": body([(MODEL, b"x")]).replace(B + b"\r\n", B + b"\n", 1),
    "padding after a delimiter": body([(MODEL, b"x")]).replace(B + b"\r\n", B + b" \r\n", 1),
    "a delimiter without content before": b"--" + B + b"\r\n" + MODEL + b"\r\n\r\n--" + B + b"--\r\n",
    "a delimiter in a head": body([(b"X: --" + B + b"--\r\n" + MODEL, b"x")]),
    "a head without a name": body([(b"Content-Type: text/plain", b"x")]),
    "an empty head": b"--" + B + b"\r\n\r\nx\r\n--" + B + b"--\r\n",
    "no form-data": body([(b'Content-Disposition: attachment; name="model"', b"x")]),
    "form-data and more": body([(b'Content-Disposition: form-datum; name="model"', b"x")]),
    "no parameter": body([(b"Content-Disposition: form-data", b"x")]),
    "a folded head": body([(b'Content-Disposition: form-data;\r\n name="model"', b"x")]),
    "lines that end with LF": body([(b"X: y\n" + MODEL, b"x")]),
    "lines that end with CR": body([(b"X: y\r" + MODEL, b"x")]),
    "a NUL": body([(b"X: \0\r\n" + MODEL, b"x")]),
    "a line without colon": body([(b"X\r\n" + MODEL, b"x")]),
    "a space before the colon": body([(b'Content-Disposition : form-data; name="model"', b"x")]),
    "two dispositions": body([(MODEL + b"\r\n" + OTHER, b"x")]),
    "two names": body([(MODEL + b'; name="x"', b"x")]),
    "an escaped name": body([(b'Content-Disposition: form-data; name="mo\\del"', b"x")]),
    "an extended name": body([(b"Content-Disposition: form-data; name*=utf-8''model", b"x")]),
    "an extended name besides": body([(b"Content-Disposition: form-data; name=\"x\"; name*=utf-8''model", b"x")]),
    "a name in pieces": body([(b'Content-Disposition: form-data; name*0="mo"; name*1="del"', b"x")]),
    "an escape in a file's name": body([(b'Content-Disposition: form-data; name="x"; filename="a\\"b"', b"x")]),
    "an unclosed quote": body([(b'Content-Disposition: form-data; name="model', b"x")]),
    "a name in another case": body([(b'Content-Disposition: form-data; name="Model"', b"x")]),
    "a name with a space": body([(b'Content-Disposition: form-data; name=" model"', b"x")]),
    "a name with brackets": body([(b'Content-Disposition: form-data; name="model[]"', b"x")]),
    "a percent-encoded name": body([(b'Content-Disposition: form-data; name="%6dodel"', b"x")]),
    "a model that is a file": body([(MODEL + b'; filename="m"', b"x")]),
    "a model that is encoded": body([(MODEL + b"\r\nContent-Transfer-Encoding: base64", b"bQ==")]),
    "a model in another charset": body([(MODEL + b"\r\nContent-Type: text/plain; charset=utf-16", b"x")]),
    "a model that is JSON": body([(MODEL + b"\r\nContent-Type: application/json", b'"x"')]),
    "a long head": body([(b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n" + MODEL, b"x")]),
    "a long model": body([(MODEL, b"x" * (MAX_VALUE_BYTES + 1))]),
}


@pytest.mark.parametrize("size", [1 << 20, 1, 700])
@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_two_parsers_may_read_differently_is_refused(case: str, size: int) -> None:
    data = DOUBTFUL[case]
    with pytest.raises(MalformedMultipart) as fault:
        read([data[at : at + size] for at in range(0, len(data), size)])
    assert str(fault.value)


def test_a_file_of_any_size_is_not_kept() -> None:
    finder = FieldFinder(B, "model")
    finder.feed(b"--" + B + b"\r\n" + OTHER + b"\r\n\r\n")
    for _ in range(100):
        finder.feed(b"x" * 65536)
        assert len(finder._buffer) < 100


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ("Multipart/Form-Data ;  BOUNDARY=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; boundary====a==; x=y;", b"===a=="),
        ('multipart/form-data; x="; boundary=a"; boundary=b', b"b"),
    ],
)
def test_the_boundary_is_what_every_parser_takes_it_for(content_type: str, boundary: bytes) -> None:
    assert boundary == boundary_of(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a "',
        "multipart/form-data; boundary=" + "a" * 71,
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; Boundary=b",
        "multipart/form-data; boundary=a; boundary*=b",
        "multipart/form-data; boundary*0=a; boundary=b",
        "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
        'multipart/form-data; boundary="a\\"b"',
        "multipart/form-data; boundary=a b",
        "multipart/form-data; xboundary",
        "multipart; boundary=a",
        "",
    ],
)
def test_a_boundary_in_doubt_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedMultipart):
        boundary_of(content_type)
