"""A way to providers that exist only as scripts: for the `echo` provider, and in tests as the upstream's double.

It keeps the clocks of :class:`transport.messages.Clocks` and raises what the HTTP client raises, so that whatever
stands above cannot tell the two apart.
"""

import asyncio
import hashlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from core.errors import ConnectFailed, Delivered, UpstreamCut, UpstreamTimeout
from core.headers import Headers
from transport import failures
from transport.messages import Pieces, UpstreamRequest, pass_on_by_reading
from transport.script import Cut, Head, Receive, Received, Refuse, Respond, Script, Send, Stall, Step, Unreachable, Wait


class ScriptedClient:
    """:class:`transport.messages.UpstreamClient` that plays ``respond(request)``."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._playing: weakref.WeakSet[_Line] = weakref.WeakSet()
        self._closed = False

    async def send(self, request: UpstreamRequest) -> "_ScriptedAnswer":
        """See :meth:`transport.messages.UpstreamClient.send`."""
        if self._closed:
            raise ConnectFailed("The gateway is closing its connections to providers.", delivered=Delivered.NO)
        line = _Line()
        self._playing.add(line)
        steps = iter((await _script(self._respond, request)).steps)
        silence = _Silence(line, request.clocks.first_byte_seconds, "The provider did not begin to answer in time.")
        for step in steps:
            match step:
                case Head(status=status, headers=headers):
                    return _ScriptedAnswer(status, headers, steps, line, request.clocks.idle_seconds)
                case Refuse():
                    raise ConnectFailed("The provider refused the connection.", delivered=Delivered.NO)
                case Unreachable():
                    await line.quiet(request.clocks.connect_seconds)
                    raise failures.connect_timeout()
                case Wait() | Stall():
                    await silence.keep(step)
                case Cut() | Send():
                    break
        raise _cut()

    async def close(self) -> None:
        """See :meth:`transport.messages.UpstreamClient.close`."""
        self._closed = True
        for line in list(self._playing):
            line.hang_up()


class _ScriptedAnswer:
    """:class:`transport.messages.UpstreamResponse` out of the steps after a head."""

    __slots__ = ("_idle_seconds", "_line", "_steps", "headers", "status")

    def __init__(
        self, status: int, headers: Headers, steps: Iterator[Step], line: "_Line", idle_seconds: float | None
    ) -> None:
        self.status = status
        self.headers = headers
        self._steps = steps
        self._line = line
        self._idle_seconds = idle_seconds

    async def read(self) -> bytes:
        silence = _Silence(self._line, self._idle_seconds, "The provider stopped sending in the middle of its answer.")
        for step in self._steps:
            if self._line.down:
                break
            match step:
                case Send(data=data):
                    # A socket would let others run between two readings.
                    await asyncio.sleep(0)
                    return data
                case Wait() | Stall():
                    await silence.keep(step)
                case _:
                    self.close()
        if self._line.down:
            raise _cut()
        return b""

    async def pass_on(self, take: Callable[[bytes], bool], ready: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`transport.messages.UpstreamResponse.pass_on`."""
        await pass_on_by_reading(self, take, ready)

    def close(self) -> None:
        self._line.hang_up()


class _Line:
    """The connection that there is not: up, until either side hangs up."""

    __slots__ = ("__weakref__", "_down")

    def __init__(self) -> None:
        self._down = asyncio.Event()

    @property
    def down(self) -> bool:
        return self._down.is_set()

    def hang_up(self) -> None:
        self._down.set()

    async def quiet(self, seconds: float | None) -> None:
        """Return after ``seconds`` (None: never).

        Raises:
            core.errors.UpstreamCut: the line went down meanwhile.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._down.wait()
        except TimeoutError:
            return
        raise _cut()


class _Silence:
    """A clock over consecutive waits: they may not add up to more than its limit."""

    __slots__ = ("_left", "_line", "_message")

    def __init__(self, line: _Line, limit_seconds: float | None, message: str) -> None:
        self._line = line
        self._left = limit_seconds
        self._message = message

    async def keep(self, step: Wait | Stall) -> None:
        seconds = step.seconds if isinstance(step, Wait) else None
        if self._left is not None and (seconds is None or seconds >= self._left):
            await self._line.quiet(self._left)
            self._line.hang_up()
            raise UpstreamTimeout(self._message)
        await self._line.quiet(seconds)
        if self._left is not None and seconds is not None:
            self._left -= seconds


async def _script(respond: Respond, request: UpstreamRequest) -> Script:
    plan = respond(request)
    if isinstance(plan, Receive):
        plan = plan.then(await _receive(request.body, plan.keep_bytes))
    return plan


async def _receive(body: bytes | Pieces | AsyncIterator[bytes] | None, keep_bytes: int) -> Received:
    if body is None or isinstance(body, bytes):
        body = (body or b"",)
    pieces = _each(body) if isinstance(body, tuple) else body
    length, digest, kept = 0, hashlib.sha256(), bytearray()
    async for piece in pieces:
        length += len(piece)
        digest.update(piece)
        kept += piece[: max(0, keep_bytes - len(kept))]
    return Received(length, digest.hexdigest(), bytes(kept))


async def _each(body: Pieces) -> AsyncIterator[bytes]:
    for piece in body:
        yield bytes(piece)


def _cut() -> UpstreamCut:
    return UpstreamCut("The connection to the provider ended before the answer was complete.")
