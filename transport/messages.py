"""The interface of every way to a provider, and the messages that cross it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from core.headers import Headers
from core.secret import Secret


class Clocks(msgspec.Struct, frozen=True):
    """Timeouts of one attempt in seconds; None is off. Each bounds one wait, none the whole."""

    connect_seconds: float | None
    first_byte_seconds: float | None
    idle_seconds: float | None


class ConnectionOptions(msgspec.Struct, frozen=True, cache_hash=True):
    """How a provider is reached besides its address. Connections are shared among requests of equal options only."""

    proxy_url: Secret | None = None
    """``http(s)://[user:password@]host:port`` of a proxy that is asked to CONNECT; None: straight to the provider."""
    ca_file: str | None = None
    """PEM bundle of the authorities to trust; None: the system's."""
    cert_file: str | None = None
    """PEM certificate that the gateway shows to the provider."""
    key_file: str | None = None
    """Its key; None: in ``cert_file`` too."""
    allow_private: bool = True
    """Whether the provider may have an address that is none of the internet's (:mod:`transport.private_addresses`)."""
    allow_private_proxy: bool = True
    """The same of the proxy."""


STRAIGHT = ConnectionOptions()
"""No proxy, the system's authorities, no certificate of our own."""


Pieces = tuple[bytes | memoryview, ...]
"""A body in memory, to be sent one piece after the other: a long one need not be copied to be joined."""


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One request to a provider, ready to be written."""

    method: str
    url: str
    headers: Headers
    """Without ``host`` and framing fields: the transport writes these."""
    body: bytes | Pieces | AsyncIterator[bytes] | None
    body_length: int | None
    """Bytes of a streamed ``body`` when known, else None (chunked). Ignored for a body in memory."""
    clocks: Clocks
    options: ConnectionOptions = STRAIGHT


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Exactly one of these ends it: a ``read`` that gives ``b""``,
    a ``pass_on`` that returns, either of them that raises, or ``close``."""

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

    async def pass_on(self, take: Callable[[bytes], bool], ready: Callable[[], Awaitable[None]]) -> None:
        """Give the rest of the body to ``take``, piece by piece, until its complete end.

        ``take`` is called where the piece is read, without a switch of tasks. When it returns False the provider is
        read no further until ``ready()`` has been awaited; no clock runs meanwhile.

        Raises:
            core.errors.UpstreamError: as ``read`` does.
            Exception: whatever ``take`` or ``ready`` raised, as it was; the connection is closed.
        """
        ...

    def close(self) -> None:
        """Give the answer up. An unfinished one closes its connection at once. May be called again."""
        ...


async def pass_on_by_reading(
    answer: UpstreamResponse, take: Callable[[bytes], bool], ready: Callable[[], Awaitable[None]]
) -> None:
    """:meth:`UpstreamResponse.pass_on` for answers that have no socket of their own to be called from."""
    try:
        while piece := await answer.read():
            if not take(piece):
                await ready()
    except BaseException:
        answer.close()
        raise


class UpstreamClient(Protocol):
    """A way to providers; outlives generations and is used by many exchanges at a time."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Write the request and wait for the answer's head (interim 1xx answers are skipped).

        Redirects are not followed and cookies are not kept. Only an answer that is encoded though the request asked
        for `identity` is decoded. Cancelling closes the connection.

        Raises:
            core.errors.ConnectFailed, core.errors.ConnectTimeout: no byte was written (`delivered: no`).
            core.errors.PrivateAddressRefused: as ``options`` want it; nothing was connected to.
            core.errors.UpstreamTimeout: connected, but no head in `first_byte_seconds` (`delivered: maybe`).
            core.errors.UpstreamCut, core.errors.UpstreamMalformed: the connection or the head broke.
        """
        ...

    async def close(self) -> None:
        """Close every idle connection; answers under way are cut."""
        ...
