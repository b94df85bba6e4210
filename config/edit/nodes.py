"""A document's text as a tree of the spans that its values take up, comments included.

What an entry of a block is made of: its own comments (the lines directly above it that begin at its column), the line
or lines of its value with what stands behind, and the comment lines that follow and begin further in. What is left
between two entries, such as empty lines, belongs to neither.
"""

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import cast

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    StreamEndEvent,
)

from config.document import Value
from config.scalars import read_plain

_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BREAK = re.compile("\r\n|\r|\n")
_REST_OF_LINE = re.compile(r"([ \t]*(?:#[^\r\n]*)?)(\r\n|\r|\n|\Z)")
_COMMENT_LINE = re.compile(r"( *)#[^\r\n]*(\r\n|\r|\n|\Z)")
_TO_NEXT_TOKEN = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_PROPERTY = re.compile(r"&[A-Za-z0-9_-]+")
_COLON = re.compile(r"[ \t]*:")
_HEAD = re.compile(r"[|>][-+0-9]*")


class Kind(Enum):
    """How a value is written."""

    INLINE = auto()
    """A scalar, an alias, or nothing at all; perhaps on several lines."""
    TEXT_BLOCK = auto()
    """`|` or `>`."""
    BRACKETS = auto()
    """`[…]` or `{…}`."""
    LINES = auto()
    """A mapping or list whose entries begin lines."""


class Node(msgspec.Struct, gc=False):
    """A value, at ``text[start:end]``; that of LINES and TEXT_BLOCK ends where a line begins."""

    kind: Kind
    value: Value
    start: int
    end: int
    anchor: str | None = None
    entries: "list[Entry]" = []
    column: int = 0
    """Of LINES: where the entries begin."""


class Entry(msgspec.Struct, gc=False):
    """A pair of a mapping, or an entry of a list."""

    start: int
    """Of the key, or of the `-`; in brackets, of the value."""
    node: Node
    key: str | None = None
    head: int = 0
    """Behind the colon or the `-`; 0 where there is none."""
    lead: int = 0
    """Where its own comments begin, which is at the beginning of a line; ``start`` where a line begins before it."""
    end: int = 0


class Unfamiliar(Exception):
    """A spelling that is read but not edited, such as keys behind `?`; carries the position."""

    def __init__(self, position: int) -> None:
        self.position = position
        super().__init__(position)


def read_tree(text: str) -> Node | None:
    """The tree of a document that :func:`config.document.parse` reads without faults; None where there is no value."""
    return _Reader(text).read()


def line_break(text: str) -> str:
    """How lines end; of a text of one line, as most do."""
    found = _BREAK.search(text)
    return found[0] if found else "\n"


def rest_of_line(text: str, position: int) -> tuple[str, int]:
    """The white space and comment from ``position`` on, and where the next line begins.

    Raises:
        Unfamiliar: there is something else.
    """
    found = _REST_OF_LINE.match(text, position)
    if found is None:
        raise Unfamiliar(position)
    return found[1], found.end()


def begins_line(text: str, position: int) -> bool:
    """Whether nothing but spaces stands before ``position`` on its line."""
    return not text[line_start(text, position) : position].strip(" ")


def line_start(text: str, position: int) -> int:
    """Where the line of ``position`` begins."""
    return max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1


def text_block_head(text: str, node: Node) -> int:
    """Behind the `|` or `>` of a TEXT_BLOCK."""
    found = _HEAD.search(text, node.start)
    assert found is not None
    return found.end()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._anchors: dict[str, Value] = {}

    def read(self) -> Node | None:
        loader = _Loader(self._text)
        self._next = cast(Callable[[], Event], loader.get_event)
        try:
            self._next()
            if isinstance(self._next(), StreamEndEvent):
                return None
            return self._node(self._next(), 0)
        finally:
            loader.dispose()

    def _node(self, event: Event, floor: int) -> Node:
        """``floor``: what stands before it belongs to others."""
        start, end = _span(event)
        if isinstance(event, AliasEvent):
            return Node(Kind.INLINE, self._anchors[str(event.anchor)], start, end)
        if isinstance(event, ScalarEvent):
            node = self._scalar(event, start, end)
        else:
            assert isinstance(event, CollectionStartEvent)
            node = self._collection(event, start, floor)
        if node.anchor is not None:
            self._anchors[node.anchor] = node.value
        return node

    def _scalar(self, event: ScalarEvent, start: int, end: int) -> Node:
        value = read_plain(event.value) if event.implicit[0] else str(event.value)
        if event.style not in ("|", ">"):
            return Node(Kind.INLINE, value, start, end, event.anchor)
        node = Node(Kind.TEXT_BLOCK, value, start, end, event.anchor)
        if "+" not in self._text[start : text_block_head(self._text, node)]:
            # Empty lines behind it are not part of the text. Lines of spaces may be.
            while _ends_with_empty_line(self._text, node.end):
                node.end = _before_break(self._text, node.end)
        return node

    def _collection(self, event: CollectionStartEvent, start: int, floor: int) -> Node:
        is_mapping = isinstance(event, MappingStartEvent)
        node = Node(
            Kind.BRACKETS if event.flow_style else Kind.LINES, {} if is_mapping else [], start, start, event.anchor
        )
        entries: list[Entry] = []
        position = start
        if event.anchor is not None:
            found = _PROPERTY.match(self._text, start)
            assert found is not None
            position = found.end()
        has_brackets = event.flow_style and self._text[self._token(position)] in "{["
        if has_brackets:
            position = self._token(position) + 1
        while not isinstance(following := self._next(), CollectionEndEvent):
            entry = self._pair(following, position) if is_mapping else self._item(following, position, event)
            if not event.flow_style:
                self._bound(entry, entries[-1].end if entries else floor)
            entries.append(entry)
            position = entry.end
        node.entries = entries
        if is_mapping:
            node.value = {str(entry.key): entry.node.value for entry in entries}
        else:
            node.value = [entry.node.value for entry in entries]
        if has_brackets:
            node.end = _span(following)[1]
        elif event.flow_style:  # a pair alone, as in `[key: value]`
            node.kind, node.end, node.entries = Kind.INLINE, entries[-1].end, []
        else:
            node.start, node.end = entries[0].lead, entries[-1].end
            node.column = entries[0].start - line_start(self._text, entries[0].start)
        return node

    def _pair(self, event: Event, position: int) -> Entry:
        start, end = _span(event)
        key = self._node(event, start)
        mark = self._token(position)
        if mark < start and self._text[mark] == ",":  # behind the pair before, in brackets
            mark = self._token(mark + 1)
        if mark < start and self._text[mark] == "?":
            start = mark
            colon = self._token(end)
            head = colon + 1 if self._text[colon : colon + 1] == ":" else end
        else:
            found = _COLON.match(self._text, end)
            head = found.end() if found else 0
        node = self._node(self._next(), head or end)
        return Entry(start, node, str(key.value), head, start, max(node.end, head, end))

    def _item(self, event: Event, position: int, parent: CollectionStartEvent) -> Entry:
        if parent.flow_style:
            start, _ = _span(event)
            node = self._node(event, start)
            return Entry(start, node, lead=start, end=node.end)
        dash = self._token(position)
        if self._text[dash : dash + 1] != "-":
            raise Unfamiliar(dash)
        node = self._node(event, dash + 1)
        return Entry(dash, node, None, dash + 1, dash, max(node.end, dash + 1))

    def _token(self, position: int) -> int:
        found = _TO_NEXT_TOKEN.match(self._text, position)
        assert found is not None
        return found.end()

    def _bound(self, entry: Entry, floor: int) -> None:
        """Find where the entry's lines begin and end; ``floor``: where those of the one before do."""
        text = self._text
        begin = line_start(text, entry.start)
        column = entry.start - begin
        if not entry.head:
            raise Unfamiliar(entry.start)
        if entry.node.kind not in (Kind.LINES, Kind.TEXT_BLOCK):
            _, entry.end = rest_of_line(text, entry.end)
        while (comment := _COMMENT_LINE.match(text, entry.end)) and len(comment[1]) > column:
            entry.end = comment.end()
        if not begins_line(text, entry.start):
            return
        entry.lead = begin
        while entry.lead > floor:
            above = line_start(text, _before_break(text, entry.lead))
            comment = _COMMENT_LINE.match(text, above)
            if above < floor or comment is None or len(comment[1]) != column:
                break
            if above == 0:  # at the top of a file: about all of it
                entry.lead = begin
                break
            entry.lead = above


def _span(event: Event) -> tuple[int, int]:
    assert event.start_mark is not None  # every event of a parser has both
    assert event.end_mark is not None
    return event.start_mark.index, event.end_mark.index


def _before_break(text: str, position: int) -> int:
    """Before the line break that ends at ``position``."""
    return position - 2 if text.endswith("\r\n", 0, position) else position - 1


def _ends_with_empty_line(text: str, position: int) -> bool:
    """Whether a line break ends at ``position`` and another one directly before it."""
    if not text.endswith(("\n", "\r"), 0, position):
        return False
    return text.endswith(("\n", "\r"), 0, _before_break(text, position))
