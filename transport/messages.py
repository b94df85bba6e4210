"""The interface of every way to a provider, and the messages that cross it."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from core.headers import Headers


class Clocks(msgspec.Struct, frozen=True):
    """Timeouts of one attempt in seconds; None is off. Each bounds one wait, none the whole."""

    connect_seconds: float | None
    first_byte_seconds: float | None
    idle_seconds: float | None


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One request to a provider, ready to be written."""

    method: str
    url: str
    headers: Headers
    """Without ``host`` and framing fields: the transport writes these."""
    body: bytes | AsyncIterator[bytes] | None
    body_length: int | None
    """Bytes of a streamed ``body`` when known, else None (chunked). Ignored for a body in memory."""
    clocks: Clocks


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Exactly one of these ends it: a ``read`` that gives ``b""``,
    a ``read`` that raises, or ``close``."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers:
        """Fields as received, names in lower case; hop-by-hop fields may be among them."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; ``b""`` at its complete end.

        Not reading is backpressure: no more than a bounded buffer is taken from the provider meanwhile.

        Raises:
            core.errors.UpstreamCut: the connection ended before the body did.
            core.errors.UpstreamTimeout: nothing came for `idle_seconds`.
            core.errors.UpstreamMalformed: the framing is broken.
        """
        ...

    def close(self) -> None:
        """Give the answer up. An unfinished one closes its connection at once. May be called again."""
        ...


class UpstreamClient(Protocol):
    """A way to providers; outlives generations and is used by many exchanges at a time."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Write the request and wait for the answer's head (interim 1xx answers are skipped).

        Redirects are not followed, cookies are not kept, nothing is decoded. Cancelling closes the connection.

        Raises:
            core.errors.ConnectFailed, core.errors.ConnectTimeout: no byte was written (`delivered: no`).
            core.errors.UpstreamTimeout: connected, but no head in `first_byte_seconds` (`delivered: maybe`).
            core.errors.UpstreamCut, core.errors.UpstreamMalformed: the connection or the head broke.
        """
        ...

    async def close(self) -> None:
        """Close every idle connection; answers under way are cut."""
        ...
