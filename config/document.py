"""YAML text → plain values, each with its place in the file.

The parser of PyYAML (libyaml where it is built in) is asked for one event at a time and the values are composed
here, for three reasons: plain scalars get the meaning of YAML 1.2 (:mod:`config.scalars`), every value keeps its
line and column, and no single call into C holds the interpreter's lock for longer than one event, so that a large
document is read in a thread without stopping the event loop.

What YAML allows and a configuration does not, each told with its place and a mend: duplicate keys, keys that are
not text, merge keys (`<<`, which YAML 1.2 does not have), tags, directives, several documents, disputed spellings
(:mod:`config.spelling`), and aliases that contain themselves or expand beyond :data:`MAX_ALIASED_VALUES`.
"""

import re
from collections.abc import Callable
from typing import NoReturn, cast

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from config.faults import AnyRemark, ConfigFaults, Fault, Path
from config.scalars import Scalar, read_plain
from config.spelling import Spelling

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_ALIASED_VALUES = 100_000
"""How many values all aliases of a document may repeat: a few nested ones could otherwise stand for billions."""
ALIASED_VALUE_CHARACTERS = 100
"""A long text counts as one more value for each so many characters: every step looks at all of them again."""

Value = Scalar | list["Value"] | dict[str, "Value"]
"""What a document is made of."""

# libyaml where the wheel has it, else the parser in Python: the same events from both.
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML's printable characters (section 5.1) without the line breaks that YAML 1.1 and 1.2 disagree on
# (NEL, LS, PS) and without a byte order mark inside the text.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK = re.compile("\r\n|\r|\n")

_MENDS = (
    ("mapping values are not allowed", "check the indentation, or put a value with `: ` inside in quotes"),
    ("cannot start any token", "indent with spaces, and put a value that begins with this character in quotes"),
    ("did not find expected key", "check the indentation and that every quote and bracket is closed"),
    ("could not find expected ':'", "write `key: value`, and check the indentation"),
    ("did not find expected '-' indicator", "every entry of this list begins with `- ` at the same indentation"),
    ("did not find expected ',' or '}'", "close the mapping with `}` and part its entries with commas"),
    ("did not find expected ',' or ']'", "close the list with `]` and part its entries with commas"),
    ("found unexpected end of stream", "close the quote"),
    ("block sequence entries are not allowed", "put the list on the lines after the key"),
    ("did not find expected node content", "a value is missing here"),
    ("found unknown escape character", "write the backslash twice, or use single quotes"),
    ("expected alphabetic or numeric character", 'put a value that begins with `*` or `&` in quotes: `"*"`'),
    ("found undefined tag handle", "tags are not supported: put the value in quotes"),
    ("found incompatible YAML document", "remove the %YAML directive"),
)


# gc=False: there are as many as values in the document, they form no cycles, and a collection that had to look at
# all of them would stop the event loop.
class Place(msgspec.Struct, gc=False):
    """Where a value stands. Lines and columns count from 1, columns in characters."""

    file: str
    line: int
    column: int
    key_line: int = 0
    """Of the key that leads to the value; 0 in a list and at the root."""
    key_column: int = 0
    block: bool = False
    """Whether the value shows better by its key: a block collection or nothing at all."""
    inner: "dict[str, Place] | list[Place] | None" = None

    @property
    def keys(self) -> "dict[str, Place]":
        """Places under the keys of a mapping."""
        return self.inner if isinstance(self.inner, dict) else {}

    @property
    def items(self) -> "list[Place]":
        """Places of the entries of a list."""
        return self.inner if isinstance(self.inner, list) else []

    def parts(self) -> "list[Place]":
        """The places under it, two levels down: small parts of a large document."""
        inner = [*self.keys.values(), *self.items]
        return [part for place in inner for part in (*place.keys.values(), *place.items)]

    def find(self, path: Path) -> "tuple[Place, bool]":
        """The place of ``path``, and whether it is in the document; else that of its nearest ancestor."""
        place = self
        for step in path:
            match place.inner, step:
                case dict() as entries, str() if step in entries:
                    place = entries[step]
                case list() as items, int() if step < len(items):
                    place = items[step]
                case _:
                    return place, False
        return place, True

    def locate(self, fault: AnyRemark, at_key: bool = False) -> AnyRemark:
        """``fault`` with file, line and column, by its path: of the value, or of its key."""
        place, found = self.find(fault.path)
        by_key = place.key_line and (place.block or (at_key and found))
        line, column = (place.key_line, place.key_column) if by_key else (place.line, place.column)
        return msgspec.structs.replace(fault, file=place.file, line=line, column=column)


class Document(msgspec.Struct):
    """One file as read. With ``faults`` it is unusable, but what could be read may be checked further."""

    value: dict[str, Value]
    place: Place
    faults: tuple[Fault, ...] = ()
    empty: bool = False
    """Whether it holds nothing but comments."""


def parse(data: bytes, file: str) -> Document:
    """Read one file's bytes; never raises: what is wrong is in the document's ``faults``. Nothing gives ``{}``."""
    reader = _Reader(file)
    try:
        value, place = reader.read(decode_text(data, file))
    except ConfigFaults as stop:  # the text cannot be read on from there
        return Document({}, Place(file, 1, 1), (*reader.faults, *stop.faults))
    empty = value is None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        reader.fault(place.line, place.column, "the document must be a mapping: `key: value` lines")
        value = {}
    return Document(value, place, tuple(reader.faults), empty)


def decode_text(data: bytes, file: str) -> str:
    """The text of a file, if it is text that may be YAML at all; also for files of other formats.

    Raises:
        ConfigFaults: too large, not UTF-8, or with characters that YAML forbids; with the place.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _fault(file, 1, 1, f"the file is larger than {MAX_DOCUMENT_BYTES // 1024**2} MiB: split it by `include`")
    if data.startswith(b"\xef\xbb\xbf"):
        raise _fault(file, 1, 1, "begins with a byte order mark: save the file as UTF-8 without BOM")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _fault(file, 1, 1, "is UTF-16: save the file as UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        position = _position(data[: error.start].decode())
        byte = data[error.start]
        raise _fault(file, *position, f"byte 0x{byte:02x} is not UTF-8: save the file as UTF-8") from None
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        code = ord(forbidden[0])
        escape = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
        position = _position(text[: forbidden.start()])
        mend = f"remove it, or write `{escape}` in double quotes"
        raise _fault(file, *position, f"the character U+{code:04X} is not allowed: {mend}")
    return text


def _position(before: str) -> tuple[int, int]:
    lines = _LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


def _fault(file: str, line: int, column: int, message: str) -> ConfigFaults:
    return ConfigFaults([Fault((), message, file, line, column)])


class _Reader:
    """Composes one document; collects what does not prevent reading on."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        # Anchor → value, place, how much it counts as; None while the anchored value is still being read.
        self._anchors: dict[str, tuple[Value, Place, int] | None] = {}
        self._aliased = 0

    def read(self, text: str) -> tuple[Value, Place]:
        loader = _Loader(text)
        self._spelling = Spelling(text)
        self._next = cast(Callable[[], Event], loader.get_event)
        try:
            found = self._document()
        except yaml.MarkedYAMLError as error:
            self._stop(*_syntax_error(error, text.rstrip()))
        finally:
            loader.dispose()
        tab = self._spelling.stray_tab()
        if tab is not None:
            self._stop(_position(text[:tab]), "a tab between values: indent and part with spaces")
        return found

    def fault(self, line: int, column: int, message: str) -> None:
        self.faults.append(Fault((), message, self.file, line, column))

    def _stop(self, position: tuple[int, int], message: str) -> NoReturn:
        raise _fault(self.file, *position, message)

    def _document(self) -> tuple[Value, Place]:
        self._next()  # the start of the stream
        event = self._next()
        if isinstance(event, StreamEndEvent):
            return None, Place(self.file, 1, 1)
        assert isinstance(event, DocumentStartEvent)
        if event.version not in (None, (1, 2)) or event.tags:
            self._stop(_mark(event), "directives are not supported: remove the line that begins with `%`")
        value, place, _ = self._value(self._next(), 0)
        event = self._next()
        assert isinstance(event, DocumentEndEvent)
        if event.explicit:
            self._stop(_mark(event), "an end of the document is not supported: remove the line `...`")
        event = self._next()
        if not isinstance(event, StreamEndEvent):
            self._stop(_mark(event), "a second document begins here: keep one in a file, and use `include` for more")
        return value, place

    def _value(self, event: Event, depth: int) -> tuple[Value, Place, int]:
        """The value that begins with ``event``, its place, and as how many values it counts."""
        line, column = _mark(event)
        assert isinstance(event, ScalarEvent | AliasEvent | CollectionStartEvent)
        dispute = self._spelling.dispute(event)
        if dispute is not None:
            self._stop((line, column), dispute)
        if isinstance(event, ScalarEvent):
            place = Place(self.file, line, column)
            value: Value = self._scalar(event, place)
            count = 1 + len(event.value) // ALIASED_VALUE_CHARACTERS
        elif isinstance(event, AliasEvent):
            return self._alias(event)
        else:
            if depth == MAX_DEPTH:
                self._stop((line, column), f"nested more than {MAX_DEPTH} deep")
            if event.tag is not None:
                self._refuse_tag(event)
            place = Place(self.file, line, column, block=not event.flow_style)
            self._open_anchor(event)
            if isinstance(event, MappingStartEvent):
                value, count = self._mapping(place, depth)
            else:
                value, count = self._sequence(place, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, place, count
        return value, place, count

    def _sequence(self, place: Place, depth: int) -> tuple[list[Value], int]:
        values: list[Value] = []
        places: list[Place] = []
        total = 1
        while not isinstance(event := self._next(), SequenceEndEvent):
            value, inner, count = self._value(event, depth + 1)
            values.append(value)
            places.append(inner)
            total += count
        place.inner = places
        return values, total

    def _mapping(self, place: Place, depth: int) -> tuple[dict[str, Value], int]:
        values: dict[str, Value] = {}
        places: dict[str, Place] = {}
        total = 1
        while not isinstance(event := self._next(), MappingEndEvent):
            key, key_count = self._key(event, depth)
            key_line, key_column = _mark(event)
            value, inner, count = self._value(self._next(), depth + 1)
            total += count + key_count - 1
            if key is None:
                continue
            if key in values:
                first = places[key]
                self.fault(key_line, key_column, f"duplicate key `{key}`: it is set on line {first.key_line} already")
                continue
            inner.key_line, inner.key_column = key_line, key_column
            values[key] = value
            places[key] = inner
        place.inner = places
        return values, total

    def _key(self, event: Event, depth: int) -> tuple[str | None, int]:
        """The key that begins with ``event``, and as how many values it counts; None when it is none, which is told."""
        key, place, count = self._value(event, depth + 1)
        if not isinstance(key, str):
            self.fault(place.line, place.column, f"a key must be text, this is {_kind(key)}: put it in quotes")
            return None, count
        if key == "<<" and isinstance(event, ScalarEvent) and event.implicit[0]:
            self.fault(
                place.line,
                place.column,
                "merge keys (`<<`) are not part of YAML 1.2: write the keys out, or use an alias for the whole value",
            )
            return None, count
        return key, count

    def _scalar(self, event: ScalarEvent, place: Place) -> Scalar:
        self._open_anchor(event)
        if event.tag is not None:
            self._refuse_tag(event)
        elif event.implicit[0]:
            place.block = not event.value
            try:
                return read_plain(event.value)
            except ValueError:
                self.fault(place.line, place.column, "a number of so many digits cannot be read")
        return str(event.value)

    def _refuse_tag(self, event: ScalarEvent | CollectionStartEvent) -> None:
        self.fault(*_mark(event), "tags (`!…`) are not supported: remove it, and put text in quotes")

    def _open_anchor(self, event: ScalarEvent | CollectionStartEvent) -> None:
        if event.anchor is None:
            return
        if event.anchor in self._anchors:
            self._stop(
                _mark(event),
                "this anchor is set before already: give each its own name, and put text that begins with `&` in quotes",
            )
        self._anchors[event.anchor] = None

    def _alias(self, event: AliasEvent) -> tuple[Value, Place, int]:
        line, column = _mark(event)
        if event.anchor not in self._anchors:
            self._stop(
                (line, column),
                "no anchor of this name stands before this alias: put text that begins with `*` in quotes",
            )
        anchored = self._anchors[event.anchor]
        if anchored is None:
            self._stop((line, column), "this alias stands inside its own anchor")
        value, place, count = anchored
        self._aliased += count
        if self._aliased > MAX_ALIASED_VALUES:
            much = f"{MAX_ALIASED_VALUES:,} values (a long text counts as several)"
            self._stop((line, column), f"aliases stand for more than {much}: write fewer")
        # A fault of the whole value points at the alias, a fault inside it at the anchored text.
        return value, Place(self.file, line, column, inner=place.inner), count


def _mark(event: Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None  # every event of a parser has one
    return mark.line + 1, mark.column + 1


def _kind(value: Value) -> str:
    if value is None:
        return "empty or null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "a mapping"


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> tuple[tuple[int, int], str]:
    """Where and what, from the parser's error: ``context`` is what it was reading, ``problem`` what it met.

    ``text`` is what it read, without white space at its end: an error that is found there says nothing of its place,
    so that of what began last and was never ended is told.
    """
    mark, began = error.problem_mark, error.context_mark
    problem = str(error.problem or error.context)
    if began is not None and (mark is None or mark.index >= len(text)):
        mark = began
    message = f"not YAML: {problem}"
    if began is not None and mark is not None and began.line != mark.line:
        message += f" ({error.context} that begins on line {began.line + 1})"
    message += next((f": {mend}" for words, mend in _MENDS if words in problem), "")
    if mark is None or mark.index >= len(text):
        return _position(text), message
    return (mark.line + 1, mark.column + 1), message
