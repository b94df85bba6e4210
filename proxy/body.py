"""A JSON request or answer whose top level is known and whose every other byte is left alone."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from core.errors import InvalidRequest

T = TypeVar("T")

Span = tuple[int, int]
"""Start and end of a value in the document's bytes."""

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY = re.compile(rb'[ \t\n\r]*"[^"\\]*(?:\\.[^"\\]*)*"[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_SEPARATOR = re.compile(rb"[ \t\n\r]*([,}])")
_NAME_END = re.compile(rb'"[ \t\n\r]*:')
_TWICE = "the body names a member twice: send each name once"


MAX_MEMBERS = 1024
"""Members at the top level of a document. APIs know some dozens; a few million would take seconds to read."""

_COPIED_BYTES = 256 * 1024
"""Larger documents are not copied, to be measured or to have a value replaced."""

MAX_NAMES = 500_000
"""Names in a whole document, at most: counted before anything is built of them."""


class MalformedDocument(ValueError):
    """The bytes are not one JSON object with unique names."""


class Document:
    """A JSON object as bytes, with the spans of its top-level members.

    Values are never re-encoded: what is not edited keeps its spelling, its order and its white space.
    """

    __slots__ = ("_members", "_spans", "_starts", "data")

    def __init__(self, data: bytes) -> None:
        """Raises MalformedDocument, worded for the sender, when ``data`` is no JSON object with unique names."""
        self.data = data
        if _has_too_many_names(data):
            raise MalformedDocument(f"the body has more than {MAX_NAMES} names")
        try:
            self._members: Mapping[str, msgspec.Raw] = _DECODER.decode(data)
        except msgspec.ValidationError:
            raise MalformedDocument("the body must be a JSON object") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedDocument(f"the body is not valid JSON: {error}") from None
        except RecursionError:
            raise MalformedDocument("the body is nested too deeply") from None
        if len(self._members) > MAX_MEMBERS:
            raise MalformedDocument(f"the body has more than {MAX_MEMBERS} members")
        self._starts: dict[str, int] = {}
        """Where each member begins, after the brace or comma before it."""
        self._spans = None if self._is_compact() else self._locate()

    @property
    def spans(self) -> dict[str, Span]:
        """Where each member's value stands in ``data``, by name, in order."""
        if self._spans is None:
            self._spans = self._count_off()
        return self._spans

    def _is_compact(self) -> bool:
        """Whether the bytes are as few as these members can be written with: as JSON.stringify and SDKs write them.

        Then there is no white space, no escape in a name and no second member of any name: each would take bytes.
        """
        members = self._members
        least = 4 * len(members) + 1 + sum(map(len, members))
        rest = len(self.data) - least
        if rest < 0 or not members:
            return False
        if rest > _COPIED_BYTES:
            return rest == sum(memoryview(raw).nbytes for raw in members.values())
        # A copy of little, in one call, costs less than looking at each.
        return rest == len(b"".join(members.values()))

    def _count_off(self) -> dict[str, Span]:
        """Where each value stands in a compact document."""
        spans: dict[str, Span] = {}
        for name, begin, start, end in self._counted():
            self._starts[name] = begin
            spans[name] = (start, end)
        return spans

    def _counted(self) -> Iterator[tuple[str, int, int, int]]:
        """Each member of a compact document: its name, where it begins, where its value begins and ends."""
        begin = 1
        for name, raw in self._members.items():
            start = begin + len(name) + 3
            end = start + memoryview(raw).nbytes
            yield name, begin, start, end
            begin = end + 1

    def _locate(self) -> dict[str, Span]:
        """Where each member's value stands, by walking over names and skipping values by their length.

        The decoder keeps the last of several members of one name at the place of the first, so a repeated name
        shows as a value that is not there, or as members left over.
        Two readers may disagree on which of them counts (RFC 8259 section 4), hence the refusal.
        """
        data = self.data
        spans: dict[str, Span] = {}
        position = data.index(b"{") + 1
        closed = not self._members
        for name, raw in self._members.items():
            key = _KEY.match(data, position)
            assert key is not None, "there are fewer names in the bytes than were read from them"
            start = key.end()
            value = memoryview(raw)
            end = start + value.nbytes
            separator = _SEPARATOR.match(data, end)
            if separator is None or not data.startswith(value, start):
                raise MalformedDocument(_TWICE)
            spans[name] = (start, end)
            self._starts[name] = position
            position = separator.end()
            closed = separator[1] == b"}"
        if not closed:
            raise MalformedDocument(_TWICE)
        return spans

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def raw(self, name: str) -> bytes | None:
        """The member's value as it is spelled, or None where there is no such member."""
        value = self._members.get(name)
        return None if value is None else bytes(value)

    def size(self, name: str) -> int:
        """How many bytes the member's value is spelled with; 0 where there is no such member."""
        value = self._members.get(name)
        return 0 if value is None else memoryview(value).nbytes

    def with_value(self, name: str, value: bytes) -> bytes | tuple[bytes | memoryview, ...]:
        """The bytes with the value of a member that there is replaced by the JSON ``value``; long ones in pieces."""
        start, end = self._span(name)
        if len(self.data) > _COPIED_BYTES:
            view = memoryview(self.data)
            return view[:start], value, view[end:]
        return b"".join((self.data[:start], value, self.data[end:]))

    def _span(self, name: str) -> Span:
        """Of one member, without a look at those behind it."""
        if self._spans is not None:
            return self._spans[name]
        return next((start, end) for each, _, start, end in self._counted() if each == name)

    def edited(self, replace: Mapping[str, bytes], remove: frozenset[str] = frozenset()) -> bytes:
        """The bytes with members replaced (or added at the end) and removed; all others stay as they are.

        ``replace`` maps names to JSON values. A name in both is replaced.
        """
        data = self.data
        spans = self.spans
        kept = [name for name in spans if name in replace or name not in remove]
        added = [msgspec.json.encode(name) + b":" + value for name, value in replace.items() if name not in spans]
        if len(kept) < len(spans):
            # With members taken out there are commas to move.
            members = [self._member(name, replace.get(name)) for name in kept]
            return data[: data.index(b"{") + 1] + b",".join(members + added) + data[data.rindex(b"}") :]
        pieces: list[bytes] = []
        position = 0
        for name, (start, end) in spans.items():
            value = replace.get(name)
            if value is not None:
                pieces += (data[position:start], value)
                position = end
        if added:
            close = data.rindex(b"}")
            pieces += (data[position:close], b"," if kept else b"", b",".join(added))
            position = close
        pieces.append(data[position:])
        return b"".join(pieces)

    def _member(self, name: str, value: bytes | None) -> bytes:
        """A member as it is spelled, with the white space before it, and with another value unless None."""
        start, end = self.spans[name]
        return self.data[self._starts[name] : end] if value is None else self.data[self._starts[name] : start] + value


def _has_too_many_names(data: bytes) -> bool:
    if len(data) <= 3 * MAX_NAMES or data.count(b":") <= MAX_NAMES:
        # A name takes three bytes at least.
        return False
    return sum(1 for _ in itertools.islice(_NAME_END.finditer(data), MAX_NAMES + 1)) > MAX_NAMES


def text_member(document: Document, name: str) -> str | None:
    """The member as a string; None where it is missing or null.

    Raises:
        InvalidRequest: it is something else.
    """
    return _typed(document, name, str, "a string")


def flag_member(document: Document, name: str) -> bool:
    """The member as a boolean; False where it is missing or null.

    Raises:
        InvalidRequest: it is something else.
    """
    return bool(_typed(document, name, bool, "true or false"))


def _typed(document: Document, name: str, kind: type[T], wanted: str) -> T | None:
    if name not in document:
        return None
    raw = document.raw(name)
    if raw is None or raw == b"null":
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"`{name}` must be {wanted}", param=name, code="invalid_type") from None
