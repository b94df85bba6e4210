"""Spellings on which the readers of YAML disagree, so that a document may not use them.

libyaml takes what ruamel.yaml refuses, or reads otherwise: anchors whose names go on with punctuation, a comment that
touches the head of a block scalar, tabs between values, `...` at the end. None of it is of use in a configuration,
and without it every reader takes every document alike, which a property test shows.
"""

import re
from bisect import bisect_right

from yaml.events import AliasEvent, CollectionStartEvent, ScalarEvent

_ANCHOR = re.compile(r"[&*][A-Za-z0-9_-]+(?=[\s,\]}]|\Z)")
_BLOCK_HEAD = re.compile(r"(?:&\S+\s+)?[|>][-+0-9]*(?=\s|\Z)")


class Spelling:
    """Looks at the text of one document as its events come."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._has_tabs = "\t" in text
        # Quoted and block scalars, where tabs may stand; ascending.
        self._begins: list[int] = []
        self._ends: list[int] = []

    def dispute(self, event: ScalarEvent | AliasEvent | CollectionStartEvent) -> str | None:
        """What is wrong with how ``event`` is spelled; None for nearly all."""
        assert event.start_mark is not None  # every event of a parser has both
        assert event.end_mark is not None
        begin = event.start_mark.index
        if event.anchor is not None and not _ANCHOR.match(self._text, begin):
            return "the names of anchors and aliases are made of letters, digits, `-` and `_`, and white space follows"
        if isinstance(event, ScalarEvent):
            if event.style in ("|", ">") and not _BLOCK_HEAD.match(self._text, begin):
                return "the head of a block scalar is `|` or `>` with signs and digits: put a space before the comment"
            if self._has_tabs and event.style:
                self._begins.append(begin)
                self._ends.append(event.end_mark.index)
        return None

    def stray_tab(self) -> int | None:
        """Where the first tab stands that is neither in a quoted or block scalar nor in a comment. At the end."""
        position = self._text.find("\t")
        while position >= 0:
            before = bisect_right(self._begins, position) - 1
            free = self._ends[before] if before >= 0 else 0
            if position >= free:
                if not self._in_comment(free, position):
                    return position
                free = position + 1
            position = self._text.find("\t", free)
        return None

    def _in_comment(self, free: int, position: int) -> bool:
        """Whether a comment begins on the line of ``position``, after ``free``."""
        line = max(free, self._text.rfind("\n", 0, position) + 1, self._text.rfind("\r", 0, position) + 1)
        return re.search(r"(?:^|\s)#", self._text[line:position]) is not None
