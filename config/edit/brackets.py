"""Lists and mappings in brackets with other entries in them."""

import re
from typing import Protocol

import msgspec

from config.document import Value
from config.edit.nodes import Entry, Kind, Node, Unfamiliar
from config.edit.render import Style, inline, scalar

Plan = list[tuple[Entry | None, str | None, Value]]

_AFTER = re.compile(r"((?:[ \t\r\n]|#[^\r\n]*)*),((?:[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n))?)")
_END_OF_LINE = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n)")
_OPENING = re.compile(r"(?:&[A-Za-z0-9_-]+(?:[ \t\r\n]|#[^\r\n]*)*)?[\[{](?:[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n))?")
_COMMENT = re.compile(r"#[^\r\n]*")


class Within(Protocol):
    def __call__(self, node: Node, value: Value, *, quoted: bool) -> str:
        """What stands for ``value`` in the place of ``node``."""
        ...


class _Piece(msgspec.Struct):
    """An entry with the comments above it and behind it on its line."""

    before: str
    body: str
    to_comma: str
    behind_comma: str
    has_comma: bool


class Brackets:
    """Takes one collection in brackets apart, and puts it together anew."""

    def __init__(self, text: str, node: Node, style: Style) -> None:
        self._text = text
        self._node = node
        self._style = style
        opening = _OPENING.match(text, node.start)
        if opening is None:
            raise Unfamiliar(node.start)
        self._opening = opening[0]
        self._closing = ""
        self._pieces: dict[int, _Piece] = {}
        self._take_apart(opening.end())

    def _take_apart(self, position: int) -> None:
        text, closing = self._text, self._node.end - 1
        for entry in self._node.entries:
            after = _AFTER.match(text, entry.end)
            is_last = entry is self._node.entries[-1]
            if after is None and not is_last:
                raise Unfamiliar(entry.end)
            if after is None:
                end_of_line = _END_OF_LINE.match(text, entry.end)
                behind = end_of_line[0] if end_of_line else ""
                piece = _Piece(text[position : entry.start], "", behind, "", has_comma=False)
                position = entry.end + len(behind)
            else:
                piece = _Piece(text[position : entry.start], "", after[1], after[2], has_comma=True)
                position = after.end()
            self._pieces[id(entry)] = piece
        self._closing = text[position : closing + 1]
        self._first = self._pieces[id(self._node.entries[0])]
        self._last = self._pieces[id(self._node.entries[-1])]

    def rewrite(self, plan: Plan, within: Within) -> str:
        """The collection with the entries of ``plan``, at least one."""
        quoted = _quotes(self._text, self._node) is True
        comma_at_end = self._last.has_comma
        pieces: list[_Piece] = []
        for entry, key, value in plan:
            if entry is None:
                piece = self._new()
                name = "" if key is None else scalar(key, quote='"' if quoted else "", in_brackets=True) + ": "
                piece.body = name + inline(value, in_brackets=True, quoted=quoted)
            else:
                piece = msgspec.structs.replace(self._pieces[id(entry)])
                piece.body = self._body(entry, value, within, quoted=quoted)
                if entry is self._node.entries[0] and pieces and not piece.before.strip():
                    piece.before = self._last.before if len(self._node.entries) > 1 else " "
            pieces.append(piece)
        written = self._opening
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            written += self._piece(piece, is_first=not number, is_last=is_last, comma=comma_at_end or not is_last)
        return written + self._closing

    def _piece(self, piece: _Piece, *, is_first: bool, is_last: bool, comma: bool) -> str:
        before, to_comma, behind_comma = piece.before, piece.to_comma, piece.behind_comma
        if is_first and not before.strip():
            before = self._first.before if not self._first.before.strip() else ""
        if comma and not piece.has_comma:
            # What stood behind the last entry ends its line: the comma goes before it.
            to_comma, behind_comma = "", to_comma + behind_comma
        if not comma and piece.has_comma:
            to_comma, behind_comma = to_comma + behind_comma, ""
        if is_last and not behind_comma.strip() and not self._ends_lines():
            behind_comma = ""
        return before + piece.body + to_comma + ("," if comma else "") + behind_comma

    def _ends_lines(self) -> bool:
        """Whether every entry stands on a line of its own."""
        return (self._last.to_comma + self._last.behind_comma).endswith(("\n", "\r"))

    def _new(self) -> _Piece:
        before = re.split(r"[\r\n]", self._last.before)[-1]
        if before.strip():
            before = ""
        end = self._style.line_break if self._ends_lines() else ""
        return _Piece(before or ("" if end else " "), "", "", end, has_comma=True)

    def _body(self, entry: Entry, value: Value, within: Within, *, quoted: bool) -> str:
        text, node = self._text, entry.node
        if entry.key is None:
            return within(node, value, quoted=quoted)
        written = within(node, value, quoted=quoted)
        if written == text[node.start : node.end]:
            return text[entry.start : entry.end]
        if not entry.head:  # a key alone
            return f"{text[entry.start : entry.end]}: {written}"
        space = " " if node.start == entry.head else ""
        return text[entry.start : node.start] + space + written


def _quotes(text: str, node: Node) -> bool | None:
    """Whether ``node`` is written as JSON is; None where nothing tells."""
    if node.kind is Kind.INLINE:
        return text.startswith('"', node.start) if isinstance(node.value, str) else None
    if isinstance(node.value, dict):
        return all(text.startswith('"', entry.start) for entry in node.entries) if node.entries else None
    told = [each for entry in node.entries if (each := _quotes(text, entry.node)) is not None]
    return all(told) if told else None
