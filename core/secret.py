"""Secrets: values that are read when they are used and shown to nobody."""

import hmac
import weakref
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

_MASK = "[secret]"


class Secret:
    """A handle on a secret text.

    The value is fetched at every :attr:`reveal`, so that a rotated file or vault entry serves the next
    request without a reload. No rendering of the handle shows the value: ``str``, ``repr`` and ``format`` give
    a mask, pickling and copying fail, and ``==`` tells handles apart, not values: these :meth:`matches` compares.
    """

    __slots__ = ("__weakref__", "label", "reveal")

    def __init__(self, read: Callable[[], str], label: str) -> None:
        """``read`` gives the current value, and its own ``repr`` must not; ``label`` says where it comes from, for all
        to see.
        """
        # The reader itself, not a method that calls it: the request path pays for one call.
        self.reveal: Final = read
        """Gives the current value. Call it where the secret is used and keep no copy."""
        self.label: Final = label
        _alive[id(self)] = self

    @classmethod
    def literal(cls, value: str, label: str = "literal") -> "Secret":
        """A secret whose value never changes."""
        # A closure: unlike a bound method or a partial it is rendered without what it holds.
        return cls(lambda: value, label)

    def matches(self, candidate: str) -> bool:
        """Whether ``candidate`` equals the current value, compared in constant time."""
        # A candidate may come off the wire with lone surrogates, which must not raise.
        return hmac.compare_digest(_bytes(self.reveal()), _bytes(candidate))

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


_alive: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()


def values_in_use() -> Iterator[str]:
    """The current value of every handle that somebody still holds, for what masks them; may be asked in any thread.

    A value that cannot be had now is left out.
    """
    # One step of the interpreter's, so that handles that another thread makes meanwhile do no harm.
    for reference in _alive.valuerefs():
        secret = reference()
        if secret is None:
            continue
        try:
            value = secret.reveal()
        except Exception:  # noqa: S112  whoever uses the secret is told; who masks what is known must not fail for it
            continue
        yield value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
