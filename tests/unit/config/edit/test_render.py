"""Values as YAML text: plain where no reader of any version disputes it."""

import pytest

from config.document import Value, parse
from config.edit.render import Style, inline, lines, scalar


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("gpt-4o", "gpt-4o"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1"),
        ("two words", "two words"),
        ("gpt-*", '"gpt-*"'),
        ("${env:KEY}", '"${env:KEY}"'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("", '""'),
        ("no", '"no"'),
        ("1:30", '"1:30"'),
        ("2001-01-01", '"2001-01-01"'),
        ("1_000", '"1_000"'),
        ("0x1f", '"0x1f"'),
        ("null", '"null"'),
        ("größe", '"größe"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("a\nb\t\x00\x85\u2028\ufeff", '"a\\nb\\t\\x00\\x85\\u2028\\ufeff"'),
        (None, "null"),
        (True, "true"),
        (12, "12"),
        (1.0, "1.0"),
        (1e300, "1e+300"),
        (float("-inf"), "-.inf"),
        (float("nan"), ".nan"),
    ],
)
def test_scalars(value: str | float | None, text: str) -> None:
    assert text == scalar(value)
    read = parse(f"k: {text}\nl: [{text}]\n{scalar(str(value))}: 1\n".encode(), "f")
    assert () == read.faults
    assert repr([value]) == repr(read.value["l"])


def test_inside_brackets_a_colon_is_quoted() -> None:
    assert '{a: "x:y", b: ["c,d", e f]}' == inline({"a": "x:y", "b": ["c,d", "e f"]})


def test_short_collections_stay_on_the_line_and_lists_of_mappings_do_not() -> None:
    value: dict[str, Value] = {
        "few": ["a", "b"],
        "tls": {"ca": "x"},
        "many": [f"model-{number}" for number in range(15)],
        "targets": [{"to": "p/m", "weight": 1}, "q/m"],
        "groups": [["a"], ["b"]],
        "none": [],
    }
    expected = """\
few: [a, b]
tls: {ca: x}
many:
  - model-0
  - model-1
"""
    found = lines(value, 0, Style())
    assert expected == found[: len(expected)]
    assert (
        "targets:\n  - to: p/m\n    weight: 1\n  - q/m\ngroups: [[a], [b]]\nnone: []\n"
        == found[found.index("targets") :]
    )
    assert value == parse(found.encode(), "f").value
