"""Values → YAML text that every reader takes for the same values."""

import math
import re

import msgspec

from config.document import Value
from config.scalars import Scalar, read_plain

WIDTH = 100
"""A collection in brackets that would go on behind this column is written on lines of its own."""

# Only what no reader disputes: a letter, digit, `_` or `/` first; single spaces inside; no `: `, ` #` or brackets.
_PLAIN = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_/.@+-]|:(?=[A-Za-z0-9_/])| (?=[A-Za-z0-9_/]))*\Z")
_PLAIN_IN_BRACKETS = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_/.@+-]| (?=[A-Za-z0-9_/]))*\Z")
# Text for us, but a boolean, a date or a number for readers of YAML 1.1.
_ELSEWHERE = re.compile(r"(?:y|n|yes|no|on|off)\Z|[-+.0-9][-+.0-9_:eETZ ]*\Z|0[box][0-9a-f_]+\Z", re.IGNORECASE)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile('["\\\\]|[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]')
_SINGLE = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*\\Z")


class Unwritable(Exception):
    """A value that no YAML can hold."""


class Style(msgspec.Struct, frozen=True):
    """How the neighbours are written."""

    line_break: str = "\n"
    list_indent: int = 2
    """How far the `-` of a list stands behind the key above it."""
    map_indent: int = 2
    """How far a key stands behind the key above it."""


def scalar(value: Scalar, *, quote: str = "", in_brackets: bool = False) -> str:
    """``quote``: the kind of quotes that shall be kept, where the value is text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return ".nan"
        return repr(value) if math.isfinite(value) else repr(value).replace("inf", ".inf")
    if isinstance(value, int):
        try:
            return str(value)
        except ValueError:
            raise Unwritable("a number of so many digits cannot be read") from None
    if quote == "'" and _SINGLE.match(value):
        return "'" + value.replace("'", "''") + "'"
    if not quote and _is_plain(value, in_brackets):
        return value
    return '"' + _ESCAPED.sub(_escape, value) + '"'


def inline(value: Value, *, in_brackets: bool = False, quoted: bool = False) -> str:
    """On one line; ``quoted``: as JSON has it, where JSON can."""
    quote = '"' if quoted else ""
    if isinstance(value, dict):
        pairs = (
            f"{scalar(key, quote=quote, in_brackets=True)}: {inline(inner, in_brackets=True, quoted=quoted)}"
            for key, inner in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(inner, in_brackets=True, quoted=quoted) for inner in value) + "]"
    return scalar(value, quote=quote, in_brackets=in_brackets)


def wants_lines(value: Value, column: int) -> bool:
    """Whether ``value`` is better written on lines of its own than in brackets at ``column``."""
    if not isinstance(value, dict | list) or not value:
        return False
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, list) and any(isinstance(each, dict) for each in inner):
        return True
    if any(isinstance(each, dict | list) and each for each in inner) and isinstance(value, dict):
        return True
    return column + len(inline(value)) > WIDTH


def lines(value: dict[str, Value] | list[Value], column: int, style: Style) -> str:
    """A collection that is not empty, each entry on lines of its own that begin at ``column`` and end in a break."""
    if isinstance(value, dict):
        return "".join(pair_lines(key, inner, column, style) for key, inner in value.items())
    return "".join(entry_lines(inner, column, style) for inner in value)


def pair_lines(key: str, value: Value, column: int, style: Style) -> str:
    """``key: value`` at ``column``."""
    return behind(" " * column + scalar(key) + ":", value, column, style)


def entry_lines(value: Value, column: int, style: Style, *, in_brackets: bool = False) -> str:
    """``- value`` at ``column``; ``in_brackets``: as the neighbours are."""
    begin = " " * column + "- "
    if isinstance(value, dict | list) and value:
        fits = len(begin) + len(inline(value)) <= WIDTH
        keeps = in_brackets if isinstance(value, dict) else not wants_lines(value, len(begin))
        if not (fits and keeps):
            return begin + lines(value, len(begin), style)[len(begin) :]
    return begin + inline(value) + style.line_break


def behind(head: str, value: Value, column: int, style: Style, comment: str = "") -> str:
    """``value`` behind the ``head`` of a pair whose key stands at ``column``; ``comment`` ends the head's line."""
    if isinstance(value, dict | list) and wants_lines(value, len(head) + 1):
        indent = style.map_indent if isinstance(value, dict) else style.list_indent
        return head + comment + style.line_break + lines(value, column + indent, style)
    return f"{head} {inline(value)}{comment}{style.line_break}"


def _is_plain(text: str, in_brackets: bool) -> bool:
    pattern = _PLAIN_IN_BRACKETS if in_brackets else _PLAIN
    return bool(pattern.match(text)) and isinstance(read_plain(text), str) and not _ELSEWHERE.match(text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise Unwritable("a text with half a character cannot be written")
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
