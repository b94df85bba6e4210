"""Server-sent events as bytes: where they end, and the data in them. Sans-io.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re
from collections.abc import Iterator

import msgspec

# A line ends with CRLF, LF or CR. A line end and another one after it: a blank line.
# A CR that is the last byte may be half of a CRLF, so it ends nothing yet.
_BLANK_LINE = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r(?=[^\n])|\n)")
_LINE = re.compile(rb"[^\r\n]+")


class Line(msgspec.Struct, frozen=True):
    """The value of a ``data`` field, and where it stands in the bytes searched."""

    value: bytes
    start: int


def end_of_whole_events(buffer: bytes) -> int:
    """Where the last whole event in ``buffer`` ends: just after its blank line; 0 where none is whole."""
    if buffer.endswith(b"\n\n"):
        return len(buffer)
    end = max(
        _after(buffer, b"\n\n"),
        _after(buffer, b"\n\r\n"),
        _after(buffer, b"\r\r\n"),
    )
    if b"\r" in buffer:
        end = max(end, _after_lone_cr(buffer, b"\r\r"), _after_lone_cr(buffer, b"\n\r"))
    return end


def _after(buffer: bytes, mark: bytes) -> int:
    found = buffer.rfind(mark)
    return 0 if found < 0 else found + len(mark)


def _after_lone_cr(buffer: bytes, mark: bytes) -> int:
    """Like :func:`_after`, for a ``mark`` whose final CR must be a line end of its own."""
    found = len(buffer)
    while (found := buffer.rfind(mark, 0, found)) >= 0:
        end = found + len(mark)
        if end < len(buffer) and buffer[end] != 0x0A:
            return end
        found = end - 1
    return 0


def end_of_first_event(buffer: bytes, start: int = 0) -> int:
    """Where the first event from ``start`` on ends: just after its blank line; 0 where it is not whole."""
    match = _BLANK_LINE.search(buffer, start)
    return 0 if match is None else match.end()


def event_spans(events: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each event; the last one may lack its blank line."""
    start = 0
    size = len(events)
    plain = b"\r" not in events
    while start < size:
        if plain:
            end = events.find(b"\n\n", start) + 2
            end = end if end > 1 else size
        else:
            end = end_of_first_event(events, start) or size
        yield start, end
        start = end


def data_lines(events: bytes, start: int, end: int) -> list[Line]:
    """The ``data`` fields of the event from ``start`` to ``end``; joined with line feeds they are its data."""
    lines: list[Line] = []
    for match in _LINE.finditer(events, start, end):
        line = match[0]
        if line.startswith(b"data:"):
            skipped = 6 if line.startswith(b"data: ") else 5
            lines.append(Line(line[skipped:], match.start() + skipped))
    return lines


def event_data(events: bytes, start: int, end: int) -> bytes | None:
    """The data of one event; None where it has no ``data`` field, as comments have none."""
    lines = data_lines(events, start, end)
    return b"\n".join(line.value for line in lines) if lines else None


def with_data(events: bytes) -> Iterator[bytes]:
    """The events that have data, each as it stands in ``events``: not comments and bare fields."""
    for start, end in event_spans(events):
        if data_lines(events, start, end):
            yield events[start:end]
