"""What the pipeline asks of a wire format."""

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Protocol

from core.errors import GatewayError
from core.usage import Usage


class Ending(IntEnum):
    """What the events of a stream, so far, say about its end; it only ever grows."""

    OPEN = 0
    """More must come."""
    ALLOWED = 1
    """It may rightly end here, though more may come."""
    COMPLETE = 2
    """Its own last event has passed."""


class Dialect(Protocol):
    """One wire format. Stateless."""

    text: re.Pattern[bytes]
    """Finds what a model says in a whole answer: JSON strings, without their quotes, as its group."""
    streamed_text: re.Pattern[bytes]
    """Finds the same in the events of a stream."""
    speaks: bytes
    """Stands once in each event that may say something, and in no other but few."""

    def error_body(self, error: GatewayError) -> bytes:
        """The JSON body of an error answer."""
        ...

    def error_event(self, error: GatewayError, last: bytes = b"") -> bytes:
        """A whole SSE event, blank line included, that tells of a failure inside a stream, after the events ``last``."""
        ...

    def has_output(self, event: bytes) -> bool:
        """Whether ``event``, which has data, is more than the beginning of an answer: something is said, or it ends."""
        ...

    def ending(self, events: bytes, before: Ending = Ending.OPEN) -> Ending:
        """What ``events`` (whole events) say about the end of their stream, of which ``before`` is known already."""
        ...

    def failure(self, events: bytes) -> str | None:
        """What the provider says went wrong, when ``events`` (whole events) hold an error event; else None."""
        ...

    def counts_anywhere(self, head: bytes) -> bool:
        """Whether what begins with ``head`` states the provider's own counts wherever it states any. Else their place tells:
        providers repeat in their answers what clients sent, who may have put counts there."""
        ...

    def usage(self, counts: Mapping[str, object]) -> Usage:
        """Usage from the provider's ``usage`` object, whose members may be missing or of any type."""
        ...


USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
"""What stands before a usage object, in whatever dialect."""


def strings(*names: str) -> re.Pattern[bytes]:
    """Finds the members of these names that are strings; the group is the string without its quotes."""
    return re.compile(rb'"(?:%s)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"' % "|".join(names).encode(), re.DOTALL)


_MOST = 1 << 53
"""Counts beyond this are nonsense, and no reader of JSON elsewhere would take them whole (RFC 8259 section 6)."""


def count(counts: Mapping[str, object], *names: str) -> int:
    """The first of ``names`` that is a whole number ≥ 0 in ``counts``; else 0."""
    for name in names:
        value = counts.get(name)
        if type(value) is int and 0 <= value < _MOST:  # not a boolean, which is an int to isinstance
            return value
    return 0


def nested(counts: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The member ``name`` when it is an object, else an empty one."""
    value = counts.get(name)
    return value if isinstance(value, dict) else {}
