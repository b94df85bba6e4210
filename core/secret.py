"""Secrets: values that are read when they are used and shown to nobody."""

import hmac
from collections.abc import Callable
from typing import NoReturn

_MASK = "[secret]"


class Secret:
    """A handle on a secret text.

    The value is fetched at every :meth:`reveal`, so that a rotated file or vault entry serves the next
    request without a reload. No rendering of the handle shows the value: ``str``, ``repr`` and ``format`` give
    a mask, pickling and copying fail, and ``==`` tells handles apart, not values: these :meth:`matches` compares.
    """

    __slots__ = ("_read", "label")

    def __init__(self, read: Callable[[], str], label: str) -> None:
        """``read`` gives the current value; ``label`` says where it comes from and may be shown."""
        self._read = read
        self.label = label

    @classmethod
    def literal(cls, value: str, label: str = "literal") -> "Secret":
        """A secret whose value never changes."""
        return cls(lambda: value, label)

    def reveal(self) -> str:
        """The current value. Call it where the secret is used and keep no copy."""
        return self._read()

    def matches(self, candidate: str) -> bool:
        """Whether ``candidate`` equals the current value, compared in constant time."""
        # A candidate may come off the wire with lone surrogates, which must not raise.
        return hmac.compare_digest(_bytes(self._read()), _bytes(candidate))

    def __repr__(self) -> str:
        return f"Secret({self.label!r})"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")

    # Identity alone: an equality on values would invite comparisons that are not constant-time.
    __hash__ = object.__hash__


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
