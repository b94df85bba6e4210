"""What the pipeline asks of a wire format."""

from collections.abc import Mapping
from typing import Protocol

from core.errors import GatewayError
from core.usage import Usage


class Dialect(Protocol):
    """One wire format. Stateless."""

    def error_body(self, error: GatewayError) -> bytes:
        """The JSON body of an error answer."""
        ...

    def error_event(self, error: GatewayError) -> bytes:
        """A whole SSE event, blank line included, that tells of a failure inside a stream."""
        ...

    def is_final(self, events: bytes) -> bool:
        """Whether ``events`` (whole events) hold the one after which a stream may rightly end."""
        ...

    def usage(self, counts: Mapping[str, object]) -> Usage:
        """Usage from the provider's ``usage`` object, whose members may be missing or of any type."""
        ...


def count(counts: Mapping[str, object], *names: str) -> int:
    """The first of ``names`` that is a whole number ≥ 0 in ``counts``; else 0."""
    for name in names:
        value = counts.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return 0


def nested(counts: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The member ``name`` when it is an object, else an empty one."""
    value = counts.get(name)
    return value if isinstance(value, dict) else {}
