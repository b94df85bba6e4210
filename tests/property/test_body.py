"""A JSON object that is edited changes where it is told to, and nowhere else."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequest
from proxy.body import Document, MalformedDocument, flag_member, text_member

few = settings(max_examples=150, deadline=None)

spaces = st.text(" \t\n\r", max_size=3)
spellings = st.sampled_from(
    [
        "1E400",
        "1.50",
        "-0",
        "0.1e-7",
        "123456789012345678901234567890",
        "true",
        "null",
        '"\\u00e9"',
        '"\\/\\""',
        '"{,}"',
    ]
)
texts = st.text(max_size=6).map(json.dumps) | st.text(max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False))
values = st.recursive(
    spellings | texts,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: "[ " + " ,".join(each) + "]")
        # Names may repeat in what is nested: that is not ours to judge.
        | st.lists(st.tuples(texts, inner), max_size=3).map(
            lambda each: "{" + ", ".join(f"{name} :{value}" for name, value in each) + " }"
        )
    ),
    max_leaves=8,
)


def escaped(draw: Callable[[st.SearchStrategy[bool]], bool], name: str) -> str:
    """One of the many spellings of a name."""
    return "".join(
        f"\\u{ord(char):04x}"
        if char.isascii() and draw(st.booleans())
        else json.dumps(char, ensure_ascii=draw(st.booleans()))[1:-1]
        for char in name
    )


@st.composite
def documents(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """An object's bytes, and the spelling of each of its members' values."""
    names = draw(st.lists(st.sampled_from(["model", "stream", "a", "é", "", 'q"', "😀"]), max_size=5, unique=True))
    members = {name: draw(values) for name in names}
    written = [
        f'{draw(spaces)}"{escaped(draw, name)}"{draw(spaces)}:{draw(spaces)}{value}{draw(spaces)}'
        for name, value in members.items()
    ]
    body = ",".join(written) if written else draw(spaces)
    return (draw(spaces) + "{" + body + "}" + draw(spaces)).encode(), members


replacements = st.dictionaries(st.sampled_from(["model", "a", "é", "new", 'n"']), values.map(str.encode), max_size=3)


@few
@given(documents())
def test_values_keep_their_spelling(given_document: tuple[bytes, dict[str, str]]) -> None:
    data, members = given_document
    document = Document(data)
    assert list(members) == list(document.spans)
    assert {name: value.encode() for name, value in members.items()} == {name: document.raw(name) for name in members}
    assert data == document.edited({})
    assert None is document.raw("not there")
    assert "not there" not in document


@few
@given(documents(), replacements)
def test_an_edit_changes_what_it_says(given_document: tuple[bytes, dict[str, str]], edit: dict[str, bytes]) -> None:
    data, members = given_document
    document = Document(data)
    edited = document.edited(edit)
    expected = {**{name: value.encode() for name, value in members.items()}, **edit}
    after = Document(edited)
    assert expected == {name: after.raw(name) for name in after.spans}
    # All bytes that are not of a replaced value are those from before.
    assert _around(document, edit) == _around(after, edit, added=[name for name in edit if name not in members])


def _around(document: Document, edit: dict[str, bytes], added: list[str] | None = None) -> bytes:
    """The document without the values of ``edit`` and without the members ``added`` at its end."""
    data = document.data
    if added:
        kept = [name for name in document.spans if name not in added]
        first = document.spans[added[0]][0]
        start = data.rindex(msgspec.json.encode(added[0]), 0, first)
        data = data[: start - 1 if kept else start] + data[data.rindex(b"}") :]
    for name, (start, end) in reversed(document.spans.items()):
        if name in edit and name not in (added or []):
            data = data[:start] + data[end:]
    return data


@few
@given(documents(), replacements, st.sets(st.sampled_from(["model", "a", "é", "", "new", "not there"])))
def test_what_is_removed_is_gone_and_the_rest_stays(
    given_document: tuple[bytes, dict[str, str]], edit: dict[str, bytes], remove: set[str]
) -> None:
    data, members = given_document
    edited = Document(data).edited(edit, frozenset(remove))
    after = Document(edited)
    expected = {name: value.encode() for name, value in members.items() if name not in remove} | edit
    assert expected == {name: after.raw(name) for name in after.spans}
    if not remove & members.keys() - edit.keys():
        assert Document(data).edited(edit) == edited


@few
@given(documents(), st.data())
def test_a_name_twice_is_refused_whatever_its_spelling(
    given_document: tuple[bytes, dict[str, str]], data: st.DataObject
) -> None:
    body, members = given_document
    if not members:
        return
    name = data.draw(st.sampled_from(list(members)))
    value = data.draw(values | st.just(members[name]))
    again = f'"{escaped(data.draw, name)}":{value}'
    text = body.decode()
    front, rest = text.split("{", 1)
    place = rest.rindex("}")
    twice = data.draw(
        st.sampled_from([front + "{" + again + "," + rest, front + "{" + rest[:place] + "," + again + rest[place:]])
    )
    with pytest.raises(MalformedDocument, match="twice"):
        Document(twice.encode())


@few
@given(
    st.binary(max_size=60)
    | st.text('{}[]",:\\ue10.-+ntf /', max_size=60).map(str.encode)
    | documents().flatmap(
        lambda each: st.tuples(st.just(each[0]), st.integers(0, 200), st.binary(max_size=3)).map(
            lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
        )
    )
)
def test_garbage_is_refused_in_one_way(data: bytes) -> None:
    try:
        document = Document(data)
    except MalformedDocument:
        return
    # What is accepted is an object for others, too, unless it is of bytes or numbers that they look at more closely.
    assert data == document.edited({})
    for name in document.spans:
        for read in (text_member, flag_member):
            with contextlib.suppress(InvalidRequest):
                read(document, name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b'{"\xff":1}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
    ],
    ids=["empty", "array", "text", "deep", "not UTF-8", "BOM"],
)
def test_a_refusal_says_why(data: bytes, message: str) -> None:
    with pytest.raises(MalformedDocument, match=message):
        Document(data)


@pytest.mark.parametrize(("raw", "value"), [(b"null", None), (b'"x"', "x"), (b'"\\u00e9"', "é")])
def test_a_text_member_is_a_text_or_nothing(raw: bytes, value: Any) -> None:
    assert value == text_member(Document(b'{"a":' + raw + b"}"), "a")
    assert text_member(Document(b"{}"), "a") is None


@pytest.mark.parametrize(("raw", "value"), [(b"null", False), (b"true", True), (b"false", False)])
def test_a_flag_member_is_true_or_false(raw: bytes, value: bool) -> None:
    assert value is flag_member(Document(b'{"a":' + raw + b"}"), "a")
    assert flag_member(Document(b"{}"), "a") is False
