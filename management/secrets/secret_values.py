"""Documents on their way out, without their secrets, and in again.

The YAML text is shown with :data:`management.secrets.secret_places.KEPT` in the place of each secret, all else byte for byte.
Sent back, that keeps the secret. Comments are shown as they are: the operator's own words. Pure.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

import msgspec
import yaml
from yaml.events import AliasEvent, CollectionEndEvent, Event, MappingStartEvent, ScalarEvent, StreamEndEvent

from config.document import Place as SourcePlace
from config.document import Value, parse
from config.edit.render import scalar
from config.edit.values import is_same
from config.faults import ConfigFaults, Fault, Path
from config.scalars import Scalar, read_plain
from management.secrets.kept_secrets import KeptSecret, KeptSecrets
from management.secrets.secret_places import KEPT, Ground, Place, Step, masked, says_kept, spots, step_of, whole

_SHARED = (
    f"`{KEPT}` is used in several places by an anchor that stand for different secrets: write the values out where the "
    "aliases stand"
)
_NOT_SHOWN = "a secret is written here in a way that cannot be shown without it: put it in quotes, in the file itself"


def masked_document(data: bytes, file: str = "") -> bytes:
    """The text of one file of a document, root or included, with its secrets masked.

    Raises:
        ConfigFaults: it cannot be read, so that nobody knows what in it is a secret; or a secret is used as a key.
    """
    present = _Text(data, file)
    document = present.masked()
    again = parse(document, file)
    if again.faults or not is_same(again.value, present.masked_value()):
        raise ConfigFaults([Fault((), _NOT_SHOWN, file, 1, 1)])
    return document


def restored_document(data: bytes, present: bytes, file: str = "") -> bytes:
    """``data`` with each secret put back that ``present``, the same file as it is now, has at the same place.

    Raises:
        ConfigFaults: ``data`` cannot be read; or `${kept}` stands where ``present`` has no secret.
    """
    if KEPT.encode() not in data:
        return data
    parsed = parse(data, file)
    if parsed.faults:
        raise ConfigFaults(parsed.faults)
    now = _Text(present, file)
    if data == now.masked():
        return present
    kept = now.kept()
    intended = kept.restore(parsed.value)
    if kept.faults:
        raise ConfigFaults([parsed.place.locate(fault) for fault in kept.faults])
    new = _Text(data, file)
    for write in (partial(_as_it_is_written, now.text), _in_quotes):
        written = new.restored(kept, write)
        again = parse(written, file)
        if not again.faults and is_same(again.value, intended):
            return written
    raise ConfigFaults([Fault((), _SHARED, file, *_first_kept(parsed.value, parsed.place))])


def _first_kept(value: Value, place: SourcePlace) -> tuple[int, int]:
    path = next(spot.path for spot in spots(value, whole()) if says_kept(spot.value))
    found, _ = place.find(path)
    return found.line, found.column


# libyaml where the wheel has it, as in config.document.
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ANCHOR_ALONE = (
    "an anchor (`&…`) without a value is not shown, as it may be a secret without its quotes: put text that begins with "
    "`&` in quotes, in the file itself"
)
_ANCHOR = re.compile(r"&[A-Za-z0-9_-]+(?:[ \t\r\n]|#[^\r\n]*)*")
_HEAD = re.compile(r"[|>][-+0-9]*")
_REST_OF_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_EMPTY_LINES = re.compile(r"(?:\r\n|\r(?!\n)|\n)((?:\r\n|\r(?!\n)|\n)+)\Z")


class _Node(msgspec.Struct, eq=False):
    """A value at ``text[start:end]``, which aliases may lead to as well. An anchor before it is not part of it."""

    value: Value
    start: int
    end: int
    head: int = 0
    """Of a block of text: behind its `|` or `>`; else 0."""
    is_key: bool = False
    entries: "list[tuple[str | None, _Node]]" = []


class _Text:
    """The text of one file with its values."""

    def __init__(self, data: bytes, file: str) -> None:
        """
        Raises:
            ConfigFaults: :func:`config.document.parse` finds some.
        """
        document = parse(data, file)
        if document.faults:
            raise ConfigFaults(document.faults)
        self.text = data.decode()
        self._file = file
        composer = _Composer(self.text)
        self._root = composer.compose()
        self._anchors_alone = composer.anchors_alone
        self._value = document.value
        self._place = document.place
        # By the identity of a node: its text may be used in several places, of which each may make a secret of it.
        self._shown: dict[int, tuple[_Node, Scalar]] = {}
        if self._root is not None:
            for _, _, node, ground in _scalars(self._root, whole()):
                shown = masked(cast(Scalar, node.value), ground)
                if id(node) in self._shown and self._shown[id(node)][1] != shown:
                    shown = KEPT
                self._shown[id(node)] = node, shown

    def masked(self) -> bytes:
        """The text with its secrets masked."""
        if self._anchors_alone:
            raise ConfigFaults([self._fault(self._anchors_alone[0], _ANCHOR_ALONE)])
        hidden = [(node, shown) for node, shown in self._shown.values() if shown != node.value]
        key = next((node for node, _ in hidden if node.is_key), None)
        if key is not None:
            raise ConfigFaults([self._fault(key.start, _NOT_SHOWN)])
        return self._spliced((node.start, node.end, self._mask(node, shown)) for node, shown in hidden)

    def _fault(self, index: int, message: str) -> Fault:
        before = re.split("\r\n|\r|\n", self.text[:index])
        return Fault((), message, self._file, len(before), len(before[-1]) + 1)

    def masked_value(self) -> Value:
        """The values of :meth:`masked`."""
        return {} if self._root is None else self._masked_value(self._root)

    def kept(self) -> KeptSecrets:
        """What may be asked for."""
        kept = KeptSecrets()
        if self._root is not None:
            for path, place, node, _ in _scalars(self._root, whole()):
                kept.add(place, KeptSecret(self._shown[id(node)][1], cast(Scalar, node.value), path, node))
        return kept

    def restored(self, kept: KeptSecrets, write: "Callable[[str, _Node, KeptSecret], tuple[int, str]]") -> bytes:
        """The text with what its values ask for; ``write`` gives the end and the text of what stands for one."""
        splices: dict[int, tuple[int, int, str]] = {}
        assert self._root is not None
        for path, place, node, _ in _scalars(self._root, whole()):
            if isinstance(node.value, str) and says_kept(node.value) and id(node) not in splices:
                found = kept.find(place, node.value, path)
                assert isinstance(found, KeptSecret)
                splices[id(node)] = (node.start, *write(self.text, node, found))
        return self._spliced(splices.values())

    def _mask(self, node: _Node, shown: Scalar) -> str:
        text = scalar(shown, quote='"')
        if not node.head:
            return text
        # What stands behind the head of a block is a comment, and ends the line.
        rest = _REST_OF_LINE.match(self.text, node.head)
        assert rest is not None
        return text + rest[0]

    def _masked_value(self, node: _Node) -> Value:
        if id(node) in self._shown:
            return self._shown[id(node)][1]
        if isinstance(node.value, dict):
            return {str(key): self._masked_value(inner) for key, inner in node.entries}
        return [self._masked_value(inner) for _, inner in node.entries]

    def _spliced(self, splices: Iterable[tuple[int, int, str]]) -> bytes:
        pieces: list[str] = []
        end = 0
        for start, stop, text in sorted(splices):
            pieces += self.text[end:start], text
            end = stop
        return "".join([*pieces, self.text[end:]]).encode()


def _in_quotes(_: str, node: _Node, secret: KeptSecret) -> tuple[int, str]:
    return node.end, scalar(secret.value, quote='"')


def _as_it_is_written(present: str, text: str, node: _Node, secret: KeptSecret) -> tuple[int, str]:
    """As it stands in the ``present`` text."""
    old = secret.source
    assert isinstance(old, _Node)
    if not old.head:
        return node.end, present[old.start : old.end]
    rest, kept = _REST_OF_LINE.match(text, node.end), _REST_OF_LINE.match(present, old.head)
    assert rest is not None
    assert kept is not None
    if rest[0] != kept[0]:
        return _in_quotes(text, node, secret)
    return rest.end(), present[old.start : old.end]


def _scalars(
    node: _Node, ground: Ground, path: Path = (), place: Place = ()
) -> "Iterator[tuple[Path, Place, _Node, Ground]]":
    if isinstance(node.value, dict):
        for key, inner in node.entries:
            name = str(key)
            yield from _scalars(inner, ground.under(name), (*path, name), (*place, name))
    elif isinstance(node.value, list):
        for number, (_, inner) in enumerate(node.entries):
            step: Step = step_of(inner.value)
            yield from _scalars(inner, ground.entries, (*path, number), (*place, step))
    else:
        yield path, place, node, ground


class _Composer:
    """Makes nodes of a text that :func:`config.document.parse` reads without faults."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._anchors: dict[str, _Node] = {}
        self.anchors_alone: list[int] = []
        """Where an anchor stands that nothing follows."""

    def compose(self) -> _Node | None:
        """The root; None where there is no value."""
        loader = _Loader(self._text)
        self._next = cast(Callable[[], Event], loader.get_event)
        try:
            self._next()
            if isinstance(self._next(), StreamEndEvent):
                return None
            root = self._node(self._next())
            return root if isinstance(root.value, dict) else None
        finally:
            loader.dispose()

    def _node(self, event: Event) -> _Node:
        if isinstance(event, AliasEvent):
            return self._anchors[str(event.anchor)]
        assert event.start_mark is not None  # every event of a parser has both
        assert event.end_mark is not None
        start, end = event.start_mark.index, event.end_mark.index
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            found = _ANCHOR.match(self._text, start)
            assert found is not None
            if isinstance(event, ScalarEvent):
                if event.implicit[0] and not event.value:
                    self.anchors_alone.append(start)
                start = min(found.end(), end)
        if isinstance(event, ScalarEvent):
            node = self._scalar(event, start, end)
        elif isinstance(event, MappingStartEvent):
            node = self._mapping(start)
        else:
            node = self._list(start)
        if anchor is not None:
            self._anchors[str(anchor)] = node
        return node

    def _scalar(self, event: ScalarEvent, start: int, end: int) -> _Node:
        value = read_plain(event.value) if event.implicit[0] else str(event.value)
        if event.style not in ("|", ">"):
            return _Node(value, start, end)
        head = _HEAD.match(self._text, start)
        assert head is not None
        empty = None if "+" in head[0] else _EMPTY_LINES.search(self._text, start, end)
        return _Node(value, start, end if empty is None else empty.start(1), head.end())

    def _mapping(self, start: int) -> _Node:
        values: dict[str, Value] = {}
        node = _Node(values, start, start)
        entries: list[tuple[str | None, _Node]] = []
        while not isinstance(event := self._next(), CollectionEndEvent):
            key = self._node(event)
            key.is_key = True
            inner = self._node(self._next())
            values[str(key.value)] = inner.value
            entries.append((str(key.value), inner))
        node.entries = entries
        return node

    def _list(self, start: int) -> _Node:
        entries: list[tuple[str | None, _Node]] = []
        while not isinstance(event := self._next(), CollectionEndEvent):
            entries.append((None, self._node(event)))
        return _Node([inner.value for _, inner in entries], start, start, entries=entries)
