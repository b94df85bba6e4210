"""How much a stream has said, counted in passing: for streams that end without usage. Sans-io."""

import re

from proxy.dialects.base import USAGE, Dialect, Ending
from proxy.estimates import tokens_of_text
from proxy.sse import end_of_first_event

MAX_LESSONS = 6
"""How often in a row an event is looked at closely though the next ones turn out to be unlike it."""

MAX_LESSON_BYTES = 8 * 1024

MOST_OF_A_TOKEN = 6
"""Bytes: where events say less than this on average, each is one token."""

_NUMBERED = re.compile(rb'"sequence_number":')
# Characters of random number, by which providers hide the length of what an event says.
_PADDED = re.compile(rb'"(?:obfuscation|p)":"([^"\\\x00-\x1f]*)"')
# A string up to its end, or to its first quote: then what follows is not as expected.
_RUN = re.compile(rb'[^"\x00-\x1f]*').match


class Spoken:
    """Counts the text of events, one after the other.

    The events of one stream nearly always differ in what they say alone. Once one is known, those like it are told
    by a comparison of the bytes around their text: that is cheaper than looking for what an event might tell besides,
    and they tell nothing else, as the one that is known does not.
    """

    __slots__ = (
        "_after",
        "_before",
        "_dialect",
        "_lessons",
        "_number",
        "_rest",
        "events",
        "text_bytes",
    )

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._lessons = MAX_LESSONS
        # An event is these, one after the other: the bytes up to its number and that, where it has one; those up to its
        # text and that; those after it; padding and the bytes that end it, where there is padding.
        self._number = b""
        self._before = b""
        self._after = b""
        self._rest = b""
        self.events = 0
        """Those that say something."""
        self.text_bytes = 0

    @property
    def tokens(self) -> int:
        """What was said, as tokens."""
        if self.text_bytes < MOST_OF_A_TOKEN * self.events:
            # Most providers send each token as it comes.
            return self.events
        return tokens_of_text(self.text_bytes)

    def forget(self) -> None:
        """Begin anew: all that was counted so far has been told."""
        self.events = self.text_bytes = 0

    def pass_over(self, events: bytes, at: int = 0) -> int:
        """Count those of ``events`` (whole ones), from ``at`` on, that are like the one that is known.

        Returns where the first one begins that is not.
        """
        before, after, number, rest = self._before, self._after, self._number, self._rest
        if not before:
            return at
        size = len(events)
        begin = passed = at
        while passed < size:
            if number:
                if not events.startswith(number, at):
                    break
                at = _RUN(events, at + len(number)).end()  # type: ignore[union-attr]  # it matches nothing, too
            if not events.startswith(before, at):
                break
            start = at + len(before)
            at = end = _RUN(events, start).end()  # type: ignore[union-attr]
            if not events.startswith(after, at):
                break
            at += len(after)
            if rest:
                at = _RUN(events, at).end()  # type: ignore[union-attr]
                if not events.startswith(rest, at):
                    break
                at += len(rest)
            passed = at
            if end > start:
                self.events += 1
                self.text_bytes += end - start
        if passed > begin and self._lessons < MAX_LESSONS:
            # The last lesson was worth it.
            self._lessons += 1
        return passed

    def count(self, events: bytes) -> None:
        """Count ``events`` (whole ones), of which the first is unlike the one that is known."""
        at = 0
        size = len(events)
        speaks = self._dialect.speaks
        while at < size and (found := events.find(speaks, at)) >= 0:
            if self._lessons == 0:
                # As many bytes each as those said that were looked at.
                more = events.count(speaks, at)
                self.text_bytes += more * self.text_bytes // max(self.events, 1)
                self.events += more
                return
            self._lessons -= 1
            end = events.find(b"\n\n", found) + 2
            at = self.pass_over(events, self._learn(events, found, end if end > 1 else size))

    def _learn(self, events: bytes, found: int, end: int) -> int:
        """Count the event around ``found`` that ends at ``end``, which is returned.

        It is the one that is known from now on, if it is plain and says nothing but one text.
        """
        pattern = self._dialect.streamed_text
        ceiling = min(end, found + MAX_LESSON_BYTES)
        said = pattern.search(events, found, ceiling)
        if said is None:
            return end
        text_bytes = sum(map(len, pattern.findall(events, said.start(), ceiling)))
        if not text_bytes:
            return end
        self.events += 1
        self.text_bytes += text_bytes
        begin = events.rfind(b"\n\n", 0, found) + 2
        event = events[begin if begin > 1 else 0 : end]
        if said[1] and self._is_plain(event):
            start = said.start(1) - (end - len(event))
            self._know(event, start, start + len(said[1]))
        return end

    def _know(self, event: bytes, start: int, end: int) -> None:
        """``event`` has its text from ``start`` to ``end``."""
        number = _NUMBERED.search(event, 0, start)
        self._number = event[: number.end()] if number is not None else b""
        self._before = event[0 if number is None else _RUN(event, number.end()).end() : start]  # type: ignore[union-attr]
        padded = _PADDED.search(event, end)
        self._after = event[end:] if padded is None else event[end : padded.start(1)]
        self._rest = b"" if padded is None else event[padded.end(1) :]

    def _is_plain(self, event: bytes) -> bool:
        """Whether ``event`` is one whole event that says nothing of usage, failure or the stream's end."""
        dialect = self._dialect
        return (
            event.endswith(b"}\n\n")
            and b"\r" not in event
            and end_of_first_event(event) == len(event)
            and USAGE.search(event) is None
            and dialect.ending(event) is Ending.OPEN
            and dialect.failure(event) is None
        )
