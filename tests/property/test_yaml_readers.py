"""PyYAML, as config.document drives it, and ruamel.yaml, as config.roundtrip sets it up, read every document alike."""

import math
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.document import parse
from config.faults import ConfigFaults
from config.roundtrip import plain, read
from config.scalars import RULES, read_plain

# What plain scalars of numbers, booleans, nulls, dates, sexagesimals and merge keys are made of.
LETTERS = "0123456789abcdefxobnlruetsyTFNIny+-._:~=<^|>'\"#&*!%@`{}[],? \t"
SCALAR_TEXTS = st.text(LETTERS, max_size=12) | st.from_regex(r"[-+]?[0-9.]{0,4}([eE][-+]?[0-9]{0,2})?", fullmatch=True)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | SCALAR_TEXTS
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | STRINGS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4), max_leaves=12
)


class Dumper(yaml.SafeDumper):
    """Writes for YAML 1.2: quotes what PyYAML, which writes for 1.1, takes for text and we do not."""


for rule in RULES:
    Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{rule.tag}", rule.pattern, list(rule.first))


def assert_read_alike(data: bytes) -> bool:
    """Whether the document is one at all."""
    document = parse(data, "f.yaml")
    if document.faults:
        return False
    try:
        loaded = read(data, "f.yaml")
    except ConfigFaults as refused:
        # Edits are refused then, with the place; what matters is that nothing is read otherwise.
        if "a comment stands where it cannot be kept" in str(refused) or "edits cannot keep" in str(refused):
            return False
        raise
    assert_same(document.value, plain(loaded))
    return True


def assert_same(one: Any, other: Any) -> None:
    """Equal in types too; NaN equals NaN, and 0.0 is not -0.0."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert repr(one) == repr(other)


@settings(max_examples=200, deadline=None)
@given(st.lists(SCALAR_TEXTS, min_size=1, max_size=3))
@example(["0123", "0o17", "0x1F"])
@example(["1_000", "0b1", "1:30"])
@example(["no", "on", "yes"])
@example(["2001-01-01", "<<", "="])
@example(["1e3", ".5", "5."])
@example(["-.inf", ".NaN", "+.INF"])
@example(["~", "", "Null"])
@example(["-0", "+012", "-0x1"])
@example(["0o8", "1e", "1.2.3"])
@example(["|\t"])
def test_plain_scalars_are_read_alike(texts: list[str]) -> None:
    assert_read_alike("".join(f"k{number}: {text}\n" for number, text in enumerate(texts)).encode())
    assert_read_alike("".join(f"{text}: {text}\n" for text in texts).encode())
    assert_read_alike(f"list: [{', '.join(texts)}]\n".encode())
    assert_read_alike(("list:\n" + "".join(f"  - {text}\n" for text in texts)).encode())


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(STRINGS, VALUES, max_size=5),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, "'", '"', "|", ">"]),
    st.sampled_from([20, 1000]),
)
def test_structures_are_read_alike_and_as_what_was_written(
    value: dict[str, Any], flow: bool | None, style: Any, width: int
) -> None:
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=flow, default_style=style, width=width, sort_keys=False)
    data = text.encode()
    if style is not None:
        assert_read_alike(data)  # the writer tags what it must quote: refused
        return
    document = parse(data, "f.yaml")
    assert () == document.faults
    assert_same(value, document.value)
    assert assert_read_alike(data)


@settings(max_examples=100, deadline=None)
@given(st.text(LETTERS + "\n\n\n  --::", max_size=60))
def test_any_text_is_read_alike(text: str) -> None:
    assert_read_alike(text.encode())


@settings(max_examples=100, deadline=None)
@given(STRINGS, st.sampled_from(["|", "|-", "|+", ">", ">-", ">+", "|2", ">2-"]))
def test_block_scalars_are_read_alike(text: str, header: str) -> None:
    lines = "\n".join(f"  {line}" for line in text.splitlines())
    assert_read_alike(f"a: {header} # comment\n{lines}\nb: 1\n".encode())


def test_anchors_and_comments_are_read_alike() -> None:
    assert assert_read_alike(
        b"""\
# before
a: &a {x: &n 012, y: &b true, z: &f 1.50, s: &s 'text', e: &e}  # after
b: [*a, *n, *b, *f, *s, *e]

c:   # of c
  - *a
"""
    )


@settings(max_examples=200, deadline=None)
@given(SCALAR_TEXTS)
def test_plain_numbers_are_what_the_core_schema_says(text: str) -> None:
    value = read_plain(text)
    if isinstance(value, float) and math.isfinite(value):
        assert float(text) == value
    elif isinstance(value, int) and not isinstance(value, bool):
        assert value == (int(text) if text.lstrip("+-").isdigit() else int(text, 0))
    elif isinstance(value, str):
        assert text == value
