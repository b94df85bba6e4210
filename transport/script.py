"""What a provider does with a request, written down: computed by plain code, played by :mod:`transport.scripted`.

::

    Script((Head(200, headers), Send(b"data: 1\\n\\n"), Wait(0.02), Send(b"data: 2\\n\\n"), Cut()))

A script that runs out of steps ends its answer properly. The steps before :class:`Head` are the silence before the
answer; without a ``Head`` the connection ends without one.
"""

from collections.abc import Callable, Iterable

import msgspec

from core.headers import Headers
from transport.messages import UpstreamRequest


class Refuse(msgspec.Struct, frozen=True):
    """The connection is refused. Only as the first step."""


class Unreachable(msgspec.Struct, frozen=True):
    """The connection is never made, as with a host that drops what comes. Only as the first step."""


class Head(msgspec.Struct, frozen=True):
    """The answer's status and header fields."""

    status: int
    headers: Headers = Headers()


class Send(msgspec.Struct, frozen=True):
    """Bytes of the body, given by one read. Never empty."""

    data: bytes


class Wait(msgspec.Struct, frozen=True):
    """Silence for a while."""

    seconds: float


class Stall(msgspec.Struct, frozen=True):
    """Silence until the other side gives up."""


class Cut(msgspec.Struct, frozen=True):
    """The connection ends here, before the answer does."""


Step = Refuse | Unreachable | Head | Send | Wait | Stall | Cut


class Script(msgspec.Struct, frozen=True):
    """The steps in order; they may be made as they are played."""

    steps: Iterable[Step]


class Received(msgspec.Struct, frozen=True):
    """A request's body after it has come in whole."""

    length: int
    """Bytes in all."""
    sha256: str
    """Of all of them, hexadecimal."""
    kept: bytes
    """The first ``keep_bytes`` of them."""


class Receive(msgspec.Struct, frozen=True):
    """Take the request's body first, then go by ``then``. No more than ``keep_bytes`` are held in memory."""

    then: Callable[[Received], Script]
    keep_bytes: int


Respond = Callable[[UpstreamRequest], Script | Receive]
"""What a scripted provider does with a request: pure, the same for the same request."""
