r"""Globs over names: ``*`` (crosses ``/``), ``?``, ``[…]``, ``{a,b}``, ``\`` to escape; case-sensitive.

The meaning is that of ``wcmatch.fnmatch`` with the flags DOTMATCH and BRACE
(https://facelessuser.github.io/wcmatch/fnmatch/); a property test holds every pattern against it. Braces are
expanded by wcmatch's own expander and brackets are translated by wcmatch; the stars are ours, because

- an alias needs to know what each star took, and
- names come from clients: a pattern with many stars must not cost exponential time, whatever version of wcmatch
  is installed. Each star but the last takes the first place where the text after it fits and never goes back
  (an atomic group): the text between two stars has one length, so a later place could only be worse.
  A match costs at most ``len(name) * len(pattern)`` steps.

What wcmatch reads as an odd literal and what is more likely a slip (an unclosed ``[`` or ``{``) is refused here.
"""

import re
from collections.abc import Callable, Iterable, Iterator

import bracex
from wcmatch import fnmatch

FLAGS = fnmatch.DOTMATCH | fnmatch.BRACE | fnmatch.CASE | fnmatch.FORCEUNIX
"""The flags that give the meaning. FORCEUNIX: the same on every system."""

MAX_PATTERN = 256
"""Characters of a pattern; longer ones are refused."""
MAX_NAME = 1024
"""Characters of a name; longer ones match nothing."""
MAX_ALTERNATIVES = 64
"""Alternatives that the braces of one pattern may stand for."""
# The expander is recursive: nesting is bounded before it sees the pattern.
_MAX_BRACES = 16

_POSIX_CLASS = re.compile(
    r"\[:(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)

FullMatch = Callable[[str], "re.Match[str] | None"]


class _Alternative:
    """One pattern without braces, taken apart."""

    __slots__ = ("fullmatch", "head", "literals", "name", "stars", "tail", "wildcards")

    def __init__(self, text: str) -> None:
        segments = [""]
        """Regular expressions of the texts between the stars."""
        plain = ""
        head: str | None = None
        tail = ""
        literals = wildcards = at = 0
        while at < len(text):
            end, char = _token(text, at)
            token = text[at:end]
            at = end
            if char is not None:
                literals += 1
                plain += char
                tail += char
                segments[-1] += re.escape(char)
                continue
            if head is None:
                head = plain
            tail = ""
            wildcards += 1
            if token[0] == "*":
                segments.append("")
            else:
                segments[-1] += "." if token == "?" else _bracket(token)
        self.literals = literals
        """Characters that stand for themselves."""
        self.wildcards = wildcards
        """Runs of ``*``, and ``?`` and ``[…]``."""
        self.stars = len(segments) - 1
        """Runs of ``*``: what can be captured."""
        self.name = plain if head is None else None
        """The only name that matches, where there is no wildcard."""
        self.head = plain if head is None else head
        """What every matching name begins with."""
        self.tail = tail
        """What every matching name ends with."""
        self.fullmatch: FullMatch | None = None if head is None else _compile(segments)


def _token(text: str, at: int) -> tuple[int, str | None]:
    """Where the token at ``at`` ends, and the character that it stands for, or None for a wildcard."""
    char = text[at]
    if char == "\\":
        if at + 1 == len(text):
            raise ValueError("it ends in a lone `\\`: write `\\\\` for the character itself")
        return at + 2, text[at + 1]
    if char == "*":
        while at < len(text) and text[at] == "*":
            at += 1
        return at, None
    if char == "?":
        return at + 1, None
    if char == "[":
        return _bracket_end(text, at), None
    if char in "{}":
        raise ValueError(f"its `{char}` is no part of a list like `{{a,b}}`: write `\\{char}` for the character itself")
    return at + 1, char


def _bracket_end(text: str, at: int) -> int:
    at += 1
    if text[at : at + 1] in ("!", "^"):
        at += 1
    if text[at : at + 1] == "]":  # in first place it stands for itself
        at += 1
    while at < len(text):
        if text[at] == "]":
            return at + 1
        posix = _POSIX_CLASS.match(text, at)
        at = posix.end() if posix else at + (2 if text[at] == "\\" else 1)
    raise ValueError("its `[` is never closed: write `\\[` for the character itself")


def _bracket(token: str) -> str:
    """wcmatch's regular expression of ``[…]``."""
    (pattern,), _ = fnmatch.translate(token, flags=FLAGS & ~fnmatch.BRACE)
    inner: str = pattern.removeprefix("^(?s:").removesuffix(")$")
    if inner == "(?!)":
        raise ValueError(f"`{token}` can match nothing: write the range from low to high")
    return inner


def _compile(segments: list[str]) -> FullMatch:
    first, *rest = segments
    expression = first
    for segment in rest[:-1]:
        expression += f"(?>(.*?){segment})"
    if rest:
        # A star in last place takes all there is; lazily it would go character by character.
        expression += f"(.*?){rest[-1]}" if rest[-1] else "(.*)"
    return re.compile(expression, re.DOTALL).fullmatch


class Glob:
    """One pattern, compiled. Equal to another of the same text."""

    __slots__ = ("alternatives", "captures_count", "exact", "names", "pattern", "specificity")

    def __init__(self, pattern: str) -> None:
        """
        Raises:
            ValueError: the pattern is empty, too long, stands for too many alternatives or is malformed;
                the message says what is wrong and how to mend it.
        """
        self.pattern = pattern
        self.alternatives = _alternatives(pattern)
        self.names: tuple[str, ...] = ()
        """Every name that matches, where the pattern has no wildcard (there may be several by braces); else empty."""
        if all(each.name is not None for each in self.alternatives):
            self.names = tuple(each.name for each in self.alternatives if each.name)
        self.exact = self.names == (pattern,)
        """Whether the pattern is simply a name."""
        self.specificity: tuple[int, int, int] = (
            0 if self.names else 1,
            -min(each.literals for each in self.alternatives),
            max(each.wildcards for each in self.alternatives),
        )
        """Sorts the most specific pattern first: exact; more literal characters; fewer wildcards. Braces count as their
        least specific alternative. With the place in the file as the last key it is a total order."""
        stars = {each.stars for each in self.alternatives}
        self.captures_count = stars.pop() if len(stars) == 1 else None
        """How many texts :meth:`captures` gives; None where the alternatives differ."""

    def matches(self, name: str) -> bool:
        """Whether the whole of ``name`` matches. Names that are empty or over `MAX_NAME` characters never do."""
        return self._match(name) is not None

    def captures(self, name: str) -> tuple[str, ...] | None:
        """What each ``*`` took, each as short as can be from the left; None where ``name`` does not match."""
        return self._match(name)

    def _match(self, name: str) -> tuple[str, ...] | None:
        if not 0 < len(name) <= MAX_NAME:
            return None
        for alternative in self.alternatives:
            if alternative.fullmatch is None:
                if alternative.name == name:
                    return ()
            elif found := alternative.fullmatch(name):
                return found.groups()
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Glob({self.pattern!r})"


def _alternatives(pattern: str) -> tuple[_Alternative, ...]:
    if not pattern:
        raise ValueError("an empty glob matches nothing: write `*` for every name")
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a glob of {len(pattern)} characters is too long: keep it within {MAX_PATTERN}")
    if pattern.count("{") > _MAX_BRACES:
        raise ValueError(f"glob `{pattern}`: more than {_MAX_BRACES} `{{`: split it into several globs")
    try:
        texts = bracex.expand(pattern, keep_escapes=True, limit=MAX_ALTERNATIVES)
    except bracex.ExpansionLimitException:
        raise ValueError(
            f"glob `{pattern}` stands for more than {MAX_ALTERNATIVES} alternatives: split it, or use `*`"
        ) from None
    try:
        return tuple(_Alternative(text) for text in dict.fromkeys(texts))
    except ValueError as error:
        raise ValueError(f"glob `{pattern}`: {error}") from None


class GlobIndex:
    """Many globs, each with a position; finds those that match a name without trying them all.

    Exact names are found by one look-up, patterns by the text that they begin with (or, failing that, end with):
    one look-up for each distinct length of such texts. Only patterns that begin and end in a wildcard are always tried.
    """

    __slots__ = ("_anywhere", "_exact", "_heads", "_tails")

    def __init__(self, entries: Iterable[tuple[Glob, int]]) -> None:
        """``entries`` are globs and their positions; a position may have several globs."""
        self._exact: dict[str, list[int]] = {}
        self._anywhere: list[tuple[int, FullMatch]] = []
        heads: dict[int, dict[str, list[tuple[int, FullMatch]]]] = {}
        tails: dict[int, dict[str, list[tuple[int, FullMatch]]]] = {}
        for glob, position in entries:
            for each in glob.alternatives:
                if each.fullmatch is None:
                    self._exact.setdefault(each.head, []).append(position)
                elif each.head:
                    table = heads.setdefault(len(each.head), {})
                    table.setdefault(each.head, []).append((position, each.fullmatch))
                elif each.tail:
                    table = tails.setdefault(len(each.tail), {})
                    table.setdefault(each.tail, []).append((position, each.fullmatch))
                else:
                    self._anywhere.append((position, each.fullmatch))
        self._heads = tuple(heads.items())
        self._tails = tuple(tails.items())

    def matching(self, name: str) -> Iterator[int]:
        """The positions whose glob matches ``name``, ascending, each once."""
        if not 0 < len(name) <= MAX_NAME:
            return
        candidates: list[tuple[int, FullMatch | None]] = [(position, None) for position in self._exact.get(name, ())]
        for length, table in self._heads:
            if found := table.get(name[:length]):
                candidates += found
        for length, table in self._tails:
            if found := table.get(name[-length:]):
                candidates += found
        candidates += self._anywhere
        candidates.sort(key=_position)
        last = -1
        for position, fullmatch in candidates:
            if position != last and (fullmatch is None or fullmatch(name)):
                last = position
                yield position


def _position(candidate: tuple[int, FullMatch | None]) -> int:
    return candidate[0]


class GlobSet:
    """Several patterns, joined by OR."""

    __slots__ = ("_index", "globs", "patterns")

    def __init__(self, patterns: Iterable[str | Glob]) -> None:
        """
        Raises:
            ValueError: as :class:`Glob` does, for the first pattern that is bad.
        """
        self.globs = tuple(each if isinstance(each, Glob) else Glob(each) for each in patterns)
        self.patterns = tuple(glob.pattern for glob in self.globs)
        self._index = GlobIndex((glob, position) for position, glob in enumerate(self.globs))

    def matches(self, name: str) -> bool:
        """Whether any pattern matches."""
        return self.first(name) is not None

    def first(self, name: str) -> str | None:
        """The earliest pattern that matches, or None."""
        for position in self._index.matching(name):
            return self.patterns[position]
        return None

    def __repr__(self) -> str:
        return f"GlobSet({list(self.patterns)!r})"
