"""Provider's answer bytes in, client's answer bytes out. Sans-io: fed by whoever reads, written by whoever writes."""

import re
from collections.abc import Callable

import msgspec

from core.usage import Usage
from proxy.body import Document, MalformedDocument, Span
from proxy.dialects.base import USAGE, Dialect, Ending
from proxy.spoken import Spoken
from proxy.sse import data_lines, end_of_first_event, end_of_whole_events, event_data, event_spans
from proxy.unasked import without_usage

MAX_TAIL_BYTES = 1 << 20
"""An event that grows beyond this is passed on before its end is seen."""

MAX_USAGE_BYTES = 16 * 1024
"""A longer object is no usage."""

_NAME = b'"model"'
# A JSON object up to its `model`, with nothing nested before it.
_BEFORE_MODEL = re.compile(
    rb'\s*\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.0-9A-Za-z]+)\s*,\s*)*?"model"\s*:\s*("[^"\\\r\n]*")'
)
# On one line: where a provider's JSON is broken, what is read may not run on into its next event.
_MODEL = re.compile(rb'"model"[ \t]*:[ \t]*("[^"\\\x00-\x1f]*(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*)*")')
_BRACE = re.compile(rb"[{}]")
_COUNTS = msgspec.json.Decoder(dict[str, object])


class _Holder(msgspec.Struct):
    """What may hold the counts."""

    usage: dict[str, object] | None = None
    response: msgspec.Raw = msgspec.Raw(b"null")


_HOLDER = msgspec.json.Decoder(_Holder)


class EventRelay:
    """A stream of server-sent events, passed on as whole events.

    The tail after the last blank line is held back, so that an event of our own, an error, stands alone when the
    provider's stream breaks. Where the client asked for another name than the provider knows, the ``model`` strings
    at the top level or under ``response`` are spliced. All other bytes are untouched, comments included.

    An event over ``MAX_TAIL_BYTES`` is *torn*: passed on in pieces, of which only the first can be spliced.
    """

    __slots__ = (
        "_anywhere",
        "_dialect",
        "_edits",
        "_passed",
        "_tail",
        "_torn",
        "ending",
        "failure",
        "last",
        "spoken",
        "usage",
    )

    def __init__(self, dialect: Dialect, model: str | None, *, usage_unasked: bool = False) -> None:
        """``model`` is the name to show the client, or None to leave the provider's. With ``usage_unasked`` the client did
        not ask for the usage that the stream tells: the chunk that does so is taken out.
        """
        self._dialect = dialect
        self._edits: list[Callable[[bytes], bytes]] = []
        if usage_unasked:
            self._edits.append(without_usage)
        if model is not None:
            self._edits.append(EventRenamer(msgspec.json.encode(model)))
        self._tail = bytearray()
        self._torn = False
        self._anywhere: bool | None = None
        """Whether counts anywhere in the torn event are the provider's own; None: none is torn."""
        self._passed = b""
        """The end of what has been passed on of a torn event: what is looked for may begin there."""
        self.usage: Usage | None = None
        """The last usage seen."""
        self.spoken = Spoken(dialect)
        """What has been said since that."""
        self.ending = Ending.OPEN
        """What the stream has said about its end."""
        self.failure: str | None = None
        """What the provider itself says went wrong, once an error event of its own has passed."""
        self.last = b""
        """The whole events that were read last, as the provider sent them."""

    @property
    def may_end(self) -> bool:
        """Whether the stream is complete if it politely ends here."""
        return self.ending is not Ending.OPEN or self.failure is not None

    @property
    def ended(self) -> bool:
        """Whether the provider has said its last word, so that none of ours may follow."""
        return self.ending is Ending.COMPLETE or self.failure is not None

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that ``chunk`` completes, as the client gets them; ``b""`` where it gets none."""
        if self._torn:
            return self._feed_torn(chunk)
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
            return self._read(events)
        end = end_of_whole_events(chunk)
        if end == len(chunk):
            return self._read(chunk)
        self._tail += chunk[end:]
        return self._overflow() if end == 0 else self._read(chunk[:end])

    def _overflow(self) -> bytes:
        if len(self._tail) <= MAX_TAIL_BYTES:
            return b""
        self._torn = True
        piece = self._take_tail()
        self._anywhere = self._dialect.counts_anywhere(piece)
        self._passed = piece[-MAX_USAGE_BYTES:]
        return self._read(piece)

    def _feed_torn(self, chunk: bytes) -> bytes:
        known = len(self._passed)
        data = self._passed + chunk
        end = end_of_first_event(data, max(0, known - 3))
        if end == 0:
            self._passed = data[-MAX_USAGE_BYTES:]
            self._observe(data)
            return chunk
        self._observe(data[:end])
        self._torn = False
        self._anywhere = None
        self._passed = b""
        rest = chunk[end - known :]
        return chunk[: end - known] + (self.feed(rest) if rest else b"")

    def _take_tail(self) -> bytes:
        tail, self._tail = bytes(self._tail), bytearray()
        return tail

    def end(self) -> bytes:
        """What is left when the provider's stream has ended properly: an event without its blank line."""
        tail = self._take_tail()
        return self._read(tail) if tail else b""

    def break_off(self, event: bytes) -> bytes:
        """``event`` as the last one of a stream that broke: the held tail is dropped."""
        self._take_tail()
        return b"\n\n" + event if self._torn else event

    def _observe(self, events: bytes) -> None:
        if b'"usage"' in events and USAGE.search(events) is not None:
            usage, end = last_usage(events, self._dialect, self._anywhere)
            if usage is not None:
                self.usage = usage
                if usage.is_known:
                    self.spoken.forget()
                    # What came behind it at the same time was counted too.
                    self._count(events, end)
        if self.ending is not Ending.COMPLETE:
            self.ending = self._dialect.ending(events, self.ending)
        if self.failure is None:
            self.failure = self._dialect.failure(events)

    def _count(self, events: bytes, at: int = 0) -> int:
        """Count what ``events`` say from ``at`` on. Returns up to where they say nothing else."""
        spoken = self.spoken
        passed = spoken.pass_over(events, at)
        if passed < len(events):
            spoken.count(events[passed:] if passed else events)
        return passed

    def _read(self, events: bytes) -> bytes:
        self.last = events
        passed = self._count(events)
        if passed < len(events):
            self._observe(events[passed:] if passed else events)
        for edit in self._edits:
            events = edit(events)
        return events


class EventRenamer:
    """Puts another name in the place of the answer's own ``model`` strings, event after event.

    The events of one stream nearly always begin with the same bytes up to their ``model``. Once these are known, all
    of a batch are replaced at once, where it is certain that looking at each event would have done the same.
    """

    __slots__ = ("_begin", "_model", "_renamed")

    def __init__(self, model: bytes) -> None:
        """``model`` is a JSON string."""
        self._model = model
        self._begin: bytes | None = None
        """A blank line, and what an event began with after it, up to the end of its ``model``."""
        self._renamed = b""

    def __call__(self, events: bytes) -> bytes:
        """``events`` (whole ones) with the name replaced; all other bytes as they are."""
        named = events.count(_NAME)
        if named == 0:
            return events
        renamed = self._at_once(events, named)
        if renamed is None and self._learn(events):
            renamed = self._at_once(events, named)
        return rename_in_events(events, self._model) if renamed is None else renamed

    def _at_once(self, events: bytes, named: int) -> bytes | None:
        """None unless each ``"model"`` there is belongs to an event that begins as known."""
        if self._begin is None or b"\r" in events:
            return None
        pieces = (b"\n\n" + events).split(self._begin)
        return self._renamed.join(pieces)[2:] if len(pieces) == named + 1 else None

    def _learn(self, events: bytes) -> bool:
        found = _plain_model(events, 0, end_of_first_event(events) or len(events))
        if found is None:
            return False
        self._begin = b"\n\n" + events[: found[1]]
        self._renamed = b"\n\n" + events[: found[0]] + self._model
        return True


def last_usage(events: bytes, dialect: Dialect, anywhere: bool | None = None) -> tuple[Usage | None, int]:
    """The last usage that any of ``events`` states, and where that event ends; else None and 0.

    ``anywhere`` is that of :func:`find_usage`.
    """
    usage, behind = None, 0
    for start, end in event_spans(events):
        if USAGE.search(events, start, end) is not None:
            # An event that is torn has no whole data; its counts may be whole all the same.
            data = event_data(events, start, end) or events[start:end]
            found = find_usage(data, dialect, anywhere)
            if found is not None:
                usage, behind = found, end
    return usage, behind


def find_usage(document: bytes, dialect: Dialect, anywhere: bool | None = None) -> Usage | None:
    """The usage of a JSON answer: at its top level or under ``response``; else the last one that stands anywhere.

    The place counts: some providers break their usage down further on, into objects of the same name. ``anywhere``: whether
    another place will do; None: as the dialect says of any answer.
    """
    try:
        holder = _HOLDER.decode(document)
        if holder.usage is None:
            holder = _HOLDER.decode(holder.response)
        if holder.usage is not None:
            return dialect.usage(holder.usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # what can be read of it may do
    if anywhere is None:
        anywhere = dialect.counts_anywhere(b"")
    return _usage_anywhere(document, dialect) if anywhere else None


def _usage_anywhere(data: bytes, dialect: Dialect) -> Usage | None:
    """The last usage object in ``data`` that can be read.

    A quoted name followed by a colon is a member's name wherever it stands: inside a string its quotes would be escaped.
    """
    usage = None
    position = 0
    while match := USAGE.search(data, position):
        start = match.end()
        position = _object_end(data, start)
        try:
            usage = dialect.usage(_COUNTS.decode(data[start:position]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return usage


def _object_end(data: bytes, start: int) -> int:
    """Where the object that begins at ``start`` ends, or where it has grown too long for one of counts.

    Usage objects hold numbers and objects, so that counting braces is enough.
    """
    limit = min(len(data), start + MAX_USAGE_BYTES)
    depth = 0
    for brace in _BRACE.finditer(data, start, limit):
        depth += 1 if brace[0] == b"{" else -1
        if depth == 0:
            return brace.end()
    return limit


def rename_in_events(events: bytes, model: bytes) -> bytes:
    """``events`` with the answer's own model strings replaced by the JSON string ``model``."""
    pieces: list[bytes] = []
    position = 0
    for start, end in event_spans(events):
        for found in _models_in_event(events, start, end):
            pieces += (events[position : found[0]], model)
            position = found[1]
    if not pieces:
        return events
    pieces.append(events[position:])
    return b"".join(pieces)


def _plain_model(events: bytes, start: int, end: int) -> Span | None:
    """The usual case, told without parsing: the event is one line of data, and its ``model`` stands at the top level
    before anything nested. None where it is not so plain, or there is none."""
    first = events.find(_NAME, start, end)
    if first < 0:
        return None
    head = events[start:first]
    if (
        head.startswith(b"data:")
        and head.count(b"{") == 1
        and b"[" not in head
        and b"\n" not in head
        and b"\r" not in head
        and events.find(_NAME, first + 1, end) < 0
        and events.find(b"\ndata", first, end) < 0
        and events.find(b"\rdata", first, end) < 0
        and (match := _MODEL.match(events, first)) is not None
    ):
        return match.span(1)
    return None


def _plain_model_of_document(document: bytes) -> Span | None:
    """As :func:`_plain_model`, for a whole JSON answer."""
    match = _BEFORE_MODEL.match(document)
    if match is None or document.find(_NAME, match.end()) >= 0:
        return None
    return match.span(1)


def _models_in_event(events: bytes, start: int, end: int) -> list[Span]:
    plain = _plain_model(events, start, end)
    if plain is not None:
        return [plain]
    lines = data_lines(events, start, end)
    spans = model_spans(b"\n".join(line.value for line in lines))
    found: list[Span] = []
    offset = 0  # of the line in the joined data; a string cannot go over its end
    for line in lines:
        after = offset + len(line.value) + 1
        found += [(s - offset + line.start, e - offset + line.start) for s, e in spans if offset <= s < after]
        offset = after
    return found


def model_spans(document: bytes) -> list[Span]:
    """Where a JSON answer states its ``model`` as a string, at the top level and under ``response``, in order.

    None where the bytes cannot be read: the client is owed the provider's answer in any case.
    """
    try:
        outer = Document(document)
        spans = _model_span(outer, 0)
        inner = outer.raw("response") or b""
        if inner.startswith(b"{"):
            spans += _model_span(Document(inner), outer.spans["response"][0])
    except MalformedDocument:
        return []
    return sorted(spans)


def _model_span(document: Document, offset: int) -> list[Span]:
    if not (document.raw("model") or b"").startswith(b'"'):
        return []
    start, end = document.spans["model"]
    return [(offset + start, offset + end)]


def rename(document: bytes, model: bytes) -> bytes:
    """A JSON answer with its ``model`` strings replaced by the JSON string ``model``."""
    plain = _plain_model_of_document(document)
    if plain is not None:
        return document[: plain[0]] + model + document[plain[1] :]
    for start, end in reversed(model_spans(document)):
        document = document[:start] + model + document[end:]
    return document
