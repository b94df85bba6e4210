"""A document's text with other values in it: what stays equal keeps its bytes."""

import re

from config.document import Value
from config.edit.brackets import Brackets
from config.edit.nodes import (
    Entry,
    Kind,
    Node,
    begins_line,
    line_break,
    line_start,
    read_tree,
    rest_of_line,
    text_block_head,
)
from config.edit.render import Style, behind, entry_lines, inline, lines, pair_lines, scalar, wants_lines
from config.edit.values import is_same, pair

_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\r|\n))+")
_BLANK_LINES_AT_END = re.compile(r"(?:(?<=\n)|(?<=\r)|\A)(?:[ \t]*(?:\r\n|\r|\n))+\Z")
_HEAD_COMMENT = re.compile(r"(?:[ \t]*&[A-Za-z0-9_-]+)?([ \t]+#[^\r\n]*)?[ \t]*(?:\r\n|\r|\n|\Z)")


class Rewriter:
    """Writes other values into one text. ``touched`` is where the first entry that is not kept begins."""

    def __init__(self, text: str) -> None:
        """``text`` is a document without faults.

        Raises:
            Unfamiliar: it is spelled in a way that is not edited.
        """
        self._text = text
        self._root = read_tree(text)
        self._style = _style(text, self._root)
        self.touched: int | None = None

    def rewrite(self, value: dict[str, Value]) -> str:
        """The text whose value is ``value``, if nothing stands in the way: the caller reads it again.

        Raises:
            Unfamiliar: as above.
            Unwritable: a value that no YAML can hold.
        """
        text, root, end_of_line = self._text, self._root, self._style.line_break
        if root is None or root.start == root.end:
            begin = text + ("" if not text or text.endswith(("\n", "\r")) else end_of_line)
            return begin + (lines(value, 0, self._style) if value else "{}" + end_of_line)
        before, after = text[: root.start], text[root.end :]
        if value and _goes_on(root, value):
            return before + self._within(root, value) + after
        self._touch(root.start)
        if root.kind is Kind.LINES:
            return before + "{}" + end_of_line + self._between(root) + after
        if value and begins_line(text, root.start):
            return before + lines(value, 0, self._style).removesuffix(end_of_line) + after
        return before + inline(value) + after

    def within(self, node: Node, value: Value, *, quoted: bool) -> str:
        """What stands for ``value`` inside brackets in the place of ``node``."""
        if is_same(node.value, value):
            return self._text[node.start : node.end]
        if _goes_on(node, value):
            return self._within(node, value)
        self._touch(node.start)
        return self._inline(node, value, in_brackets=True, quoted=quoted)

    def _touch(self, position: int) -> None:
        self.touched = position if self.touched is None else min(self.touched, position)

    def _within(self, node: Node, value: Value) -> str:
        """What stands for ``value`` in the place of ``node``, a collection of the same kind."""
        plan = _plan(node, value)
        kept = {id(entry) for entry, _, _ in plan if entry is not None}
        for entry in node.entries:
            if id(entry) not in kept:
                self._touch(entry.start)
        if any(entry is None for entry, _, _ in plan):
            self._touch(node.entries[-1].start if node.entries else node.start)
        if node.kind is Kind.BRACKETS:
            return Brackets(self._text, node, self._style).rewrite(plan, self.within)
        return self._lines(node, plan)

    def _lines(self, node: Node, plan: "list[tuple[Entry | None, str | None, Value]]") -> str:
        kept = {id(entry) for entry, _, _ in plan}
        gaps: dict[int, str] = {}
        carried, end = "", node.start
        are_parted = len(node.entries) > 1
        for number, entry in enumerate(node.entries):
            gap = self._text[end : entry.lead]
            end = entry.end
            are_parted = are_parted and (not number or _BLANK_LINES.match(gap) is not None)
            if id(entry) in kept:
                gaps[id(entry)] = carried + gap
                carried = ""
            else:
                carried += _BLANK_LINES_AT_END.sub("", gap)
        chunks: list[str] = []
        for going_on, key, value in plan:
            chunk = self._new(node, key, value) if going_on is None else self._kept(node, going_on, value)
            gap = gaps.get(id(going_on), "")
            if chunks and are_parted and not _BLANK_LINES.match(gap):
                gap = self._style.line_break + gap
            if chunks and not chunks[-1].endswith(("\n", "\r")):
                chunks[-1] += self._style.line_break
            chunks.append(gap + chunk)
        blank = _BLANK_LINES.match(chunks[0])
        if blank:  # what stood first is gone, and what parted it from the next goes with it
            chunks[0] = chunks[0][blank.end() :]
        joined = "".join(chunks)
        if carried:
            joined += ("" if joined.endswith(("\n", "\r")) else self._style.line_break) + carried
        return joined if node.start == line_start(self._text, node.start) else joined.lstrip(" ")

    def _new(self, node: Node, key: str | None, value: Value) -> str:
        if key is not None:
            return pair_lines(key, value, node.column, self._style)
        last = node.entries[-1].node
        return entry_lines(value, node.column, self._style, in_brackets=last.kind is Kind.BRACKETS)

    def _kept(self, node: Node, entry: Entry, value: Value) -> str:
        """All lines of an entry, from the beginning of the first."""
        has_line = entry.lead == line_start(self._text, entry.lead)
        return ("" if has_line else " " * node.column) + self._entry(node, entry, value)

    def _entry(self, parent: Node, entry: Entry, value: Value) -> str:
        text, node = self._text, entry.node
        if is_same(node.value, value):
            return text[entry.lead : entry.end]
        if _goes_on(node, value):
            return text[entry.lead : node.start] + self._within(node, value) + text[node.end : entry.end]
        self._touch(entry.start)
        head = text[entry.lead : entry.head]
        by_lines = wants_lines(value, parent.column + entry.head - entry.start + 1)
        if node.kind in (Kind.INLINE, Kind.BRACKETS):
            if not by_lines:
                space = " " if node.start == entry.head else ""
                before = text[entry.lead : node.start] + space
                return before + self._inline(node, value) + text[node.end : entry.end]
            comment, following = rest_of_line(text, node.end)
        else:
            begin = entry.head if node.kind is Kind.LINES else text_block_head(text, node)
            found = _HEAD_COMMENT.match(text, begin)
            comment, following = (found[1] or "" if found else ""), node.end
        rest = (self._between(node) if node.kind is Kind.LINES else "") + text[following : entry.end]
        if not by_lines:
            return f"{head} {inline(value)}{comment}{self._style.line_break}{rest}"
        assert isinstance(value, dict | list)
        if entry.key is not None:
            return behind(head, value, parent.column, self._style, comment) + rest
        column = parent.column + 2
        written = lines(value, column, self._style)
        if comment:
            return head + comment + self._style.line_break + written + rest
        return f"{head} {written[column:]}{rest}"

    def _inline(self, node: Node, value: Value, *, in_brackets: bool = False, quoted: bool = False) -> str:
        if isinstance(value, dict | list):
            return inline(value, in_brackets=in_brackets, quoted=quoted)
        old = self._text[node.start : node.end]
        quote = old[0] if isinstance(node.value, str) and old[:1] in ("'", '"') else '"' if quoted else ""
        return scalar(value, quote=quote, in_brackets=in_brackets)

    def _between(self, node: Node) -> str:
        """The comments inside a collection of lines that belong to none of its entries."""
        end, comments = node.start, ""
        for entry in node.entries:
            comments += _BLANK_LINES_AT_END.sub("", self._text[end : entry.lead])
            end = entry.end
        return comments


def _plan(node: Node, value: Value) -> list[tuple[Entry | None, str | None, Value]]:
    """The entries that ``node`` shall have: each with what it goes on from, its key, its value."""
    if isinstance(value, dict):
        old = {entry.key: entry for entry in node.entries}
        kept = [(entry, entry.key, value[entry.key]) for entry in node.entries if entry.key in value]
        return [*kept, *((None, key, inner) for key, inner in value.items() if key not in old)]
    assert isinstance(value, list)
    numbers = pair([entry.node.value for entry in node.entries], value)
    return [
        (None if number is None else node.entries[number], None, inner)
        for number, inner in zip(numbers, value, strict=True)
    ]


def _goes_on(node: Node, value: Value) -> bool:
    """Whether ``value`` can be written by changing some of the entries of ``node``."""
    has_entries = node.kind in (Kind.LINES, Kind.BRACKETS) and bool(node.entries) and bool(value)
    return has_entries and type(value) is type(node.value) and isinstance(value, dict | list)


def _style(text: str, root: Node | None) -> Style:
    """What is the custom in this text, by the first example of each."""
    indents: dict[type, int] = {}

    def look(node: Node) -> None:
        for entry in node.entries:
            inner = entry.node
            if inner.kind is Kind.LINES:
                if entry.key is not None and inner.column >= node.column:
                    indents.setdefault(type(inner.value), inner.column - node.column)
                look(inner)

    if root is not None and root.kind is Kind.LINES:
        look(root)
    return Style(line_break(text), indents.get(list, 2), indents.get(dict, 2))
