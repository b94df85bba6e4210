"""HTTP header fields, in order, with lower-case names (RFC 9110 section 5.1: names are case-insensitive)."""

from collections.abc import Iterable, Iterator


class Headers:
    """An immutable sequence of ``(lower-case name, value)`` pairs."""

    __slots__ = ("_first", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """``pairs`` must have lower-case names already; :meth:`parse` folds them."""
        self._pairs = tuple(pairs)
        self._first: dict[str, str] | None = None

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> "Headers":
        """From pairs as they came off the wire, in any case."""
        return cls((name.lower(), value) for name, value in pairs)

    def get(self, name: str) -> str | None:
        """The first value of the lower-case ``name``, or None."""
        first = self._first
        if first is None:
            # Made when first asked for. In reverse, so that the first value of a name is the one that stays.
            first = self._first = dict(reversed(self._pairs))
        return first.get(name)

    def get_all(self, name: str) -> list[str]:
        """Every value of the lower-case ``name``, in order."""
        value = self.get(name)
        if value is None:
            return []
        if self._first is not None and len(self._first) == len(self._pairs):
            return [value]
        return [value for field, value in self._pairs if field == name]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        # Values may carry credentials; names alone are enough to tell two messages apart.
        return f"Headers({[name for name, _ in self._pairs]})"
