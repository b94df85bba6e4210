"""Reading YAML: values, places, and what is no document at all. Bad documents in full: tests/golden/config."""

import pytest

from config.document import MAX_ALIASED_VALUES, MAX_DOCUMENT_BYTES, parse
from config.faults import Fault

TEXT = b"""\
server:
  listen: 127.0.0.1:80
providers:
  - name: a
    models: [x, yy]
  - {name: b, options: {deep: {er: 1}}}
empty:
"""


@pytest.mark.parametrize("data", [b"", b"# nothing but a comment\n", b"---\n", b"null\n", b"~", b"{}"])
def test_a_document_of_nothing_is_an_empty_mapping(data: bytes) -> None:
    document = parse(data, "f.yaml")
    assert ({}, ()) == (document.value, document.faults)


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        ((), False, (1, 1)),
        (("server",), False, (1, 1)),  # a block shows by its key
        (("server", "listen"), False, (2, 11)),
        (("server", "listen"), True, (2, 3)),
        (("providers", 0), False, (4, 5)),
        (("providers", 0, "models"), False, (5, 13)),
        (("providers", 0, "models"), True, (5, 5)),
        (("providers", 0, "models", 1), False, (5, 17)),
        (("providers", 1, "options", "deep", "er"), False, (6, 36)),
        (("empty",), False, (7, 1)),  # nothing shows by its key, too
        (("providers", 1, "type"), False, (6, 5)),  # not there: its nearest ancestor
        (("providers", 7, "type"), False, (3, 1)),
        (("telemetry", "log_level"), True, (1, 1)),
        (("server", "listen", "host"), False, (2, 11)),
    ],
)
def test_a_fault_is_placed_by_its_path(path: tuple[str | int, ...], at_key: bool, place: tuple[int, int]) -> None:
    document = parse(TEXT, "f.yaml")
    fault = document.place.locate(Fault(path, "wrong"), at_key)
    assert ("f.yaml", *place) == (fault.file, fault.line, fault.column)


def test_columns_count_characters_not_bytes() -> None:
    document = parse("ä: {ö: 1, ü: 2}".encode(), "f.yaml")
    assert 14 == document.place.locate(Fault(("ä", "ü"), "")).column


def test_an_alias_has_the_value_of_its_anchor_and_a_place_of_its_own() -> None:
    document = parse(b"a: &x {k: 1}\nb: *x\n", "f.yaml")
    assert {"a": {"k": 1}, "b": {"k": 1}} == document.value
    assert 2 == document.place.locate(Fault(("b",), "")).line
    assert 1 == document.place.locate(Fault(("b", "k"), "")).line


def test_aliases_may_repeat_a_bounded_number_of_values() -> None:
    items = ", ".join("x" for _ in range(999))
    within = f"a: &a [{items}]\nb: [{', '.join('*a' for _ in range(MAX_ALIASED_VALUES // 1000))}]\n"
    assert () == parse(within.encode(), "f.yaml").faults
    beyond = within.replace("b: [", "b: [*a, ")
    assert ["aliases stand for more than 100,000 values (a long text counts as several): write fewer"] == [
        fault.message for fault in parse(beyond.encode(), "f.yaml").faults
    ]


@pytest.mark.parametrize("anchored", ["&a {text}", "&a [{text}]", "&a {{{text}: 1}}"])
def test_aliases_to_a_long_text_count_by_its_length(anchored: str) -> None:
    value = anchored.format(text="x" * 1000)
    for count, told in ((8_000, 0), (10_000, 1)):
        text = f"a: {value}\nb: [{', '.join(['*a'] * count)}]\n"
        assert told == len(parse(text.encode(), "f.yaml").faults)


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"\xef\xbb\xbfa: 1", (1, 1), "byte order mark"),
        (b"\xff\xfea\x00", (1, 1), "UTF-16"),
        (b"\xfe\xff\x00a", (1, 1), "UTF-16"),
        ("a: 1\nb: ä\n".encode("latin-1"), (2, 4), "byte 0xe4 is not UTF-8"),
        (b"a: 1\r\nbc: \0\n", (2, 5), "U+0000"),
        (b"a: \x07", (1, 4), "write `\\x07` in double quotes"),
        ("a: 1\rb: 2\nc: x\u2028y".encode(), (3, 5), "write `\\u2028` in double quotes"),
        ("a: x\x85".encode(), (1, 5), "U+0085"),
        ("a: \ufeff".encode(), (1, 4), "U+FEFF"),
        (b"a: " + b"x" * MAX_DOCUMENT_BYTES, (1, 1), "larger than 8 MiB"),
    ],
)
def test_what_is_no_text_is_told_with_its_place(data: bytes, place: tuple[int, int], words: str) -> None:
    (fault,) = parse(data, "f.yaml").faults
    assert ("f.yaml", *place) == (fault.file, fault.line, fault.column)
    assert words in fault.message


def test_faults_before_a_syntax_error_are_told_with_it() -> None:
    document = parse(b"a: 1\na: 2\n1: x\nb: [\n", "f.yaml")
    assert [2, 3, 4] == [fault.line for fault in document.faults]
    assert {} == document.value
