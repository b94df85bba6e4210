"""What a plain YAML scalar means: the core schema of YAML 1.2, for every reader of documents.

Source: YAML 1.2.2 section 10.3.2 (https://yaml.org/spec/1.2.2/#1032-tag-resolution). `no`, `on` and `1:30` are
text, `0123` is 123; there are no timestamps, no `1_000`, no merge keys.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

Scalar = str | int | float | bool | None


class Rule(NamedTuple):
    """Plain scalars that match ``pattern`` whole are of the type ``tag``."""

    tag: str
    pattern: re.Pattern[str]
    first: str
    """Every character that such a scalar can begin with; a reader looks no further for others."""
    read: Callable[[str], Scalar]


def _read_int(text: str) -> int:
    # Base 0 reads the prefixes as YAML means them, but refuses the leading zeros that YAML allows.
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _read_float(text: str) -> float:
    # Python spells the infinities and NaN without YAML's leading dot.
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


RULES: tuple[Rule, ...] = (
    Rule("null", re.compile(r"(?:~|null|Null|NULL)\Z"), "~nN", lambda _text: None),
    Rule(
        "bool",
        re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
        "tTfF",
        lambda text: text in ("true", "True", "TRUE"),
    ),
    Rule("int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), "-+0123456789", _read_int),
    Rule(
        "float",
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        "-+.0123456789",
        _read_float,
    ),
)
"""In the order in which they are tried. The empty scalar, which is null, stands apart: it has no first character."""

_BY_FIRST: dict[str, tuple[Rule, ...]] = {
    character: tuple(rule for rule in RULES if character in rule.first)
    for character in {character for rule in RULES for character in rule.first}
}


def read_plain(text: str) -> Scalar:
    """The value of the plain (unquoted) scalar ``text``.

    Raises:
        ValueError: a number with more digits than Python reads (4,300 unless configured otherwise).
    """
    if not text:
        return None
    for rule in _BY_FIRST.get(text[0], ()):
        if rule.pattern.match(text):
            return rule.read(text)
    return text
