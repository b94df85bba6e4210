"""Where in a document secrets stand, and what is shown in their place.

A place is told by names instead of numbers (:data:`Place`), so that it stays the same where entries of a list move.
What the schema does not know, such as a misspelled key, may hold a secret too and is not shown either.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto

import msgspec

from config.document import Value
from config.edit.values import name_of
from config.faults import Path
from config.json_schema import ANYTHING, Shape, shape
from config.references import Reference, ReferenceFault, parse_template
from config.scalars import Scalar

KEPT = "${kept}"
"""Stands in a document for a secret that is shown to nobody; sent back at the same place, it means that secret."""

Step = str | tuple[str, str]
Place = tuple[Step, ...]
"""The way to a value: keys of mappings; of an entry of a list its name, as ``("name", "openai")``, or ``*``."""

EACH = "*"

# `$${` is an escape (config.references): what follows is no reference.
_KEPT = re.compile(r"(?<!\$)\$\{kept\}")
_PIECE = re.compile(r"\$\$\{|\$\{[^{}]*\}|.", re.DOTALL)
_SECRET_WORDS = re.compile(r"key|secret|token|password|credential|auth", re.IGNORECASE)

_HIDDEN = frozenset(
    {
        ("providers", EACH, "headers", EACH),
        ("providers", EACH, "credentials", EACH, "command", "environment", EACH),
        ("oauth", "providers", EACH, "token_parameters", EACH),
        ("oauth", "providers", EACH, "placement", "headers", EACH),
        ("tokens", EACH, "sha256"),
    }
)
"""Places of ordinary texts that are secrets all the same: they may stand in the file, and are not shown."""
_NO_PROXY = frozenset(
    {
        ("providers", EACH, "proxy_url", "direct"),
        ("providers", EACH, "credentials", EACH, "proxy_url", "direct"),
        ("oauth", "providers", EACH, "proxy_url", "direct"),
    }
)
"""A word in the place of a secret."""
_URLS = frozenset(
    {
        ("providers", EACH, "base_url"),
        ("webhooks", EACH, "url"),
        ("secrets", "vault", "address"),
        ("server", "public_url"),
    }
)

_SECRET_PATHS = frozenset({("webhooks", EACH, "url")})
"""Addresses whose path is often all that opens them, as it is with those that chat services give out."""


class Manner(Enum):
    """How the text of a place is shown."""

    SHOWN = auto()
    URL = auto()
    """Without user, password, and the values in its query; of some places without the path, too."""
    SECRET = auto()
    """References alone."""


class Ground(msgspec.Struct, frozen=True):
    """What is known of a place."""

    shape: Shape
    pattern: tuple[str, ...] = ()
    """The way to it, with ``*`` for each entry of a list and each key that the schema leaves open."""
    hidden: bool = False
    """It is nowhere in the schema."""

    @property
    def is_secret(self) -> bool:
        """Whether a secret belongs here, which may be sealed."""
        return self.shape.secret

    @property
    def is_designated(self) -> bool:
        """Whether what stands here is a secret, whatever it looks like."""
        return self.hidden or self.shape.secret or self.pattern in _HIDDEN

    def under(self, key: str) -> "Ground":
        """Of the value under a mapping's ``key``."""
        if self._hides("object"):
            return _nowhere(self.pattern)
        known = self.shape.properties.get(key)
        if known is not None:
            return Ground(known, (*self.pattern, key))
        if self.shape.values is not None:
            return Ground(self.shape.values, (*self.pattern, EACH))
        if self.shape.properties or (
            self.pattern[:3] == ("providers", EACH, "options") and _SECRET_WORDS.search(key) is not None
        ):
            return _nowhere(self.pattern)
        return Ground(ANYTHING, (*self.pattern, key))

    def knows(self, key: str) -> bool:
        """Whether ``key`` may stand in a mapping here."""
        return not self.shape.properties or key in self.shape.properties or self.shape.values is not None

    @property
    def entries(self) -> "Ground":
        """Of each entry of a list."""
        if self._hides("array"):
            return _nowhere(self.pattern)
        return Ground(self.shape.items or ANYTHING, (*self.pattern, EACH))

    def manner(self, value: Scalar) -> Manner:
        """How ``value`` is shown here."""
        if value is None or isinstance(value, bool):
            return Manner.SHOWN
        if self.is_designated:
            return Manner.SHOWN if (*self.pattern, value) in _NO_PROXY else Manner.SECRET
        if not isinstance(value, str):
            return Manner.SHOWN
        if not self.shape.takes_text or not _is_template(value):
            # In the wrong place, or nearly a reference: whatever it was meant to be.
            return Manner.SECRET
        return Manner.URL if self.pattern in _URLS or "://" in value else Manner.SHOWN

    def _hides(self, kind: str) -> bool:
        """Whether all below is hidden: a collection where none should be, or one in the place of a secret."""
        return self.hidden or self.shape.secret or bool(self.shape.types and kind not in self.shape.types)


def _nowhere(pattern: tuple[str, ...]) -> Ground:
    return Ground(ANYTHING, pattern, hidden=True)


def whole() -> Ground:
    """The ground of a whole document."""
    return Ground(shape())


def entry_ground(section: str) -> Ground:
    """The ground of the entries of a list such as `providers`."""
    return whole().under(section).entries


class Spot(msgspec.Struct, frozen=True):
    """A scalar of a document, where it stands, and what is known of that place."""

    path: Path
    place: Place
    value: Scalar
    ground: Ground

    @property
    def exact_place(self) -> Place:
        """Its place, with the numbers of entries that have no name: what is told of one says nothing of another."""
        return exact_place(self.place, self.path)

    @property
    def is_masked(self) -> bool:
        """Whether it is not shown as it is."""
        return masked(self.value, self.ground) != self.value


def spots(value: Value, ground: Ground, path: Path = (), place: Place = ()) -> Iterator[Spot]:
    """All scalars of ``value``, in its order."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from spots(inner, ground.under(key), (*path, key), (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from spots(inner, ground.entries, (*path, number), (*place, step_of(inner)))
    else:
        yield Spot(path, place, value, ground)


def shared_secrets(document: Value) -> frozenset[int]:
    """Texts of a document as it was read, by their identity, that are secrets at one place and, by an anchor and its
    alias, stand at others too."""
    return frozenset(id(spot.value) for spot in spots(document, whole()) if spot.is_masked)


def step_of(entry: Value) -> Step:
    """What tells an entry of a list from the others."""
    return name_of(entry) or EACH


def exact_place(place: Place, path: Path) -> Place:
    """``place``, whose last steps ``path`` leads by, with the numbers of entries that have no name."""
    named = place[: len(place) - len(path)] if path else place
    steps = zip(place[len(named) :], path, strict=True)
    return (
        *named,
        *((EACH, str(number)) if isinstance(number, int) and step == EACH else step for step, number in steps),
    )


def render_place(place: Place) -> str:
    """``providers[openai].credentials[main].api_key``, for messages."""
    text = ""
    for step in place:
        if isinstance(step, tuple):
            text += f"[{step[1]}]"
        else:
            text += f".{step}" if text else step
    return text


def says_kept(text: Value) -> bool:
    """Whether ``text`` asks for a secret that was not shown."""
    return isinstance(text, str) and _KEPT.search(text) is not None


def masked(value: Scalar, ground: Ground) -> Scalar:
    """What is shown of ``value``: itself, or a text that holds :data:`KEPT`."""
    match ground.manner(value):
        case Manner.SHOWN:
            return value
        case Manner.URL:
            return _masked_url(str(value), path_too=ground.pattern in _SECRET_PATHS)
        case Manner.SECRET:
            return _masked_secret(value) if isinstance(value, str) else KEPT


def written(reference: Reference) -> str:
    """The reference as a document has it, without its default."""
    if reference.scheme == "sealed":
        return f"${{sealed:{reference.parts['key_id']}:{reference.parts['text']}}}"
    return reference.label


def _is_template(text: str) -> bool:
    try:
        parse_template(text)
    except ReferenceFault:
        return False
    return True


def _masked_secret(text: str) -> str:
    try:
        template = parse_template(text)
    except ReferenceFault:
        return KEPT
    shown = ""
    for piece in template:
        if isinstance(piece, str):
            shown += KEPT
        elif piece.default is None:
            shown += written(piece)
        else:  # which may be a secret
            shown += f"{written(piece)[:-1]}:-{KEPT if piece.default else ''}}}"
    return shown


def _masked_url(text: str, *, path_too: bool = False) -> str:
    """``text`` without user, password, values of the query, fragment and, ``path_too``, path; references stay, but for
    their defaults."""
    pieces = _PIECE.findall(text)
    end = next((number for number, piece in enumerate(pieces) if piece in "?#"), len(pieces))
    head, rest = pieces[:end], pieces[end:]
    scheme = next((number + 3 for number in range(len(head) - 2) if head[number : number + 3] == [":", "/", "/"]), 0)
    slash = next((number for number in range(scheme, len(head)) if head[number] in "/\\"), len(head))
    at = _last(head[scheme:slash], "@")
    if at is None and ("@" in pieces) and (not scheme or not _is_host(head[scheme:slash])):
        # A password with a `/` or `?` in it, which no reader of addresses takes for one.
        last = _last(pieces[scheme:], "@")
        assert last is not None
        rest = [] if path_too else pieces[scheme + last :]
        return "".join([*pieces[:scheme], KEPT, *rest]) if last else text
    user = head[scheme : scheme + at] if at is not None else []
    path = head[slash + 1 :] if path_too else []
    shown = "".join(head[:scheme]) + _part(user)
    for piece in head[scheme + len(user) : len(head) - len(path)]:
        shown += _default_masked(piece, path_too=path_too)
    return shown + _part(path, "/") + _rest(rest)


def _rest(pieces: list[str]) -> str:
    """A query and a fragment."""
    hash_at = pieces.index("#") if "#" in pieces else len(pieces)
    query, fragment = pieces[1:hash_at] if pieces[:1] == ["?"] else [], pieces[hash_at + 1 :]
    shown = "?" if pieces[:1] == ["?"] else ""
    pair: list[str] = []
    for piece in [*query, "&"]:
        if piece != "&":
            pair.append(piece)
            continue
        equals = pair.index("=") + 1 if "=" in pair else 0
        shown += "".join(pair[:equals]) + _part(pair[equals:]) + "&"
        pair = []
    shown = shown[:-1]
    return f"{shown}#{_part(fragment)}" if hash_at < len(pieces) else shown


def _part(pieces: list[str], between: str = ":") -> str:
    """A part of an address that is a secret unless it is made of references."""
    is_shown = all(piece == between or (piece.startswith("${") and ":-" not in piece) for piece in pieces)
    return "".join(pieces) if is_shown else KEPT


def _default_masked(piece: str, *, path_too: bool) -> str:
    if not piece.startswith("${") or ":-" not in piece:
        return piece
    address, _, default = piece[:-1].partition(":-")
    return f"{address}:-{_masked_url(default, path_too=path_too)}}}"


def _last(pieces: list[str], wanted: str) -> int | None:
    found = [number for number, piece in enumerate(pieces) if piece == wanted]
    return found[-1] if found else None


def _is_host(pieces: list[str]) -> bool:
    """Whether a name and perhaps a port: no beginning of a user and a password."""
    return (
        re.fullmatch(
            r"[^:]*(?::[0-9]*)?|\[[0-9a-fA-F:.]*\](?::[0-9]*)?",
            "".join(piece if len(piece) == 1 else "x" for piece in pieces),
        )
        is not None
    )
