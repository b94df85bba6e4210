"""Provider's answer bytes in, client's answer bytes out. Sans-io: fed by whoever reads, written by whoever writes."""

import re

import msgspec

from core.usage import Usage
from proxy.body import Document, MalformedDocument
from proxy.dialects.base import Dialect

MAX_TAIL_BYTES = 1 << 20
"""An event that grows beyond this is passed on before its end is seen."""

_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_BRACE = re.compile(rb"[{}]")
_COUNTS = msgspec.json.Decoder(dict[str, object])


def end_of_whole_events(buffer: bytes) -> int:
    """Where the last whole event in ``buffer`` ends: just after its blank line; 0 where none is whole.

    A line ends with CRLF, LF or CR (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
    A CR at the very end may be half of a CRLF, so it ends nothing yet.
    """
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


class EventRelay:
    """A stream of server-sent events, passed on as whole events.

    The tail after the last blank line is held back, so that an event of our own, an error, stands alone when the
    provider's stream breaks. Where the client asked for another name than the provider knows, the ``model`` strings
    at the top level or under ``response`` are spliced. All other bytes are untouched, comments included.
    """

    __slots__ = ("_dialect", "_model", "_tail", "_torn", "final", "usage")

    def __init__(self, dialect: Dialect, model: str | None) -> None:
        """``model`` is the name to show the client, or None to leave the provider's."""
        self._dialect = dialect
        self._model = None if model is None else msgspec.json.encode(model)
        self._tail = bytearray()
        self._torn = False
        self.usage: Usage | None = None
        """The last usage seen."""
        self.final = False
        """Whether an event after which the stream may rightly end has passed."""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that ``chunk`` completes, as the client gets them; ``b""`` where it completes none."""
        tail = self._tail
        if tail:
            # A blank line is at most four bytes, so only the last three of the tail can be part of a new one.
            window = bytes(tail[-3:]) + chunk
            end = end_of_whole_events(window)
            tail += chunk
            if end == 0:
                return self._overflow()
            end += len(tail) - len(window)
            events, self._tail = bytes(tail[:end]), tail[end:]
        else:
            end = end_of_whole_events(chunk)
            if end == len(chunk):
                events = chunk
            else:
                self._tail += chunk[end:]
                if end == 0:
                    return self._overflow()
                events = chunk[:end]
        if self._torn:
            # It begins with the rest of an event whose head went out already.
            self._torn = False
            self._observe(events)
            return events
        return self._read(events)

    def _overflow(self) -> bytes:
        if len(self._tail) <= MAX_TAIL_BYTES and not self._torn:
            return b""
        self._torn = True
        piece = self._take_tail()
        self._observe(piece)
        return piece

    def _take_tail(self) -> bytes:
        tail, self._tail = bytes(self._tail), bytearray()
        return tail

    def end(self) -> bytes:
        """What is left when the provider's stream has ended properly: an event without its blank line."""
        tail = self._take_tail()
        if self._torn or not tail:
            return tail
        return self._read(tail)

    def break_off(self, event: bytes) -> bytes:
        """``event`` as the last one of a stream that broke: the held tail is dropped."""
        self._take_tail()
        return b"\n\n" + event if self._torn else event

    def _observe(self, events: bytes) -> None:
        if b'"usage"' in events:
            found = find_usage(events, self._dialect)
            if found is not None:
                self.usage = found
        if not self.final:
            self.final = self._dialect.is_final(events)

    def _read(self, events: bytes) -> bytes:
        self._observe(events)
        if self._model is not None and b'"model"' in events:
            return rename_in_events(events, self._model)
        return events


def find_usage(data: bytes, dialect: Dialect) -> Usage | None:
    """The last usage object in ``data`` that can be read.

    A quoted name followed by a colon is a member's name wherever it stands: inside a string its quotes would be escaped.
    """
    usage = None
    for match in _USAGE.finditer(data):
        text = _object_at(data, match.end())
        if text is None:
            continue
        try:
            usage = dialect.usage(_COUNTS.decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return usage


def _object_at(data: bytes, start: int) -> bytes | None:
    """The object that begins at ``start``. Usage objects hold numbers and objects, so that counting braces is enough."""
    depth = 0
    for brace in _BRACE.finditer(data, start):
        depth += 1 if brace[0] == b"{" else -1
        if depth == 0:
            return data[start : brace.end()]
    return None


def rename_in_events(events: bytes, model: bytes) -> bytes:
    """``events`` with the answer's own model strings replaced by the JSON string ``model``."""
    pieces: list[bytes] = []
    position = 0
    for match in _MODEL.finditer(events):
        if match.start() < position:
            continue
        line_start = events.rfind(b"\n", 0, match.start()) + 1
        prefix = events[line_start : match.start()]
        if prefix.count(b"{") == 1 and b"[" not in prefix:
            # The usual case: the member stands at the top level before anything nested.
            pieces += (events[position : match.start(1)], model)
            position = match.end(1)
            continue
        line_end = events.find(b"\n", match.end())
        line_end = len(events) if line_end < 0 else line_end
        data_start = events.find(b"{", line_start, match.start())
        if data_start < position:
            # The line was dealt with at an earlier match.
            continue
        pieces += (events[position:data_start], rename(events[data_start:line_end], model))
        position = line_end
    if not pieces:
        return events
    pieces.append(events[position:])
    return b"".join(pieces)


def rename(document: bytes, model: bytes) -> bytes:
    """A JSON answer with its ``model`` string, at the top level or under ``response``, replaced.

    Bytes that cannot be read are returned as they are: the client is owed the provider's answer in any case.
    """
    try:
        outer = Document(document)
        spans = []
        if (outer.raw("model") or b"").startswith(b'"'):
            spans.append(outer.spans["model"])
        inner = outer.raw("response") or b""
        if inner.startswith(b"{"):
            response = Document(inner)
            if (response.raw("model") or b"").startswith(b'"'):
                offset = outer.spans["response"][0]
                start, end = response.spans["model"]
                spans.append((offset + start, offset + end))
    except MalformedDocument:
        return document
    for start, end in sorted(spans, reverse=True):
        document = document[:start] + model + document[end:]
    return document
