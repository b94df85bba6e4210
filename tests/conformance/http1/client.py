"""`transport.provider_connection.ProviderConnection` under the corpus: one request, and what came of the bytes."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from core.errors import UpstreamError
from core.headers import Headers
from core.tasks import Tasks
from tests.conformance.http1.corpus import AnswerCase
from tests.conformance.http1.wire import MemoryTransport
from transport.decoding import decoded
from transport.messages import Clocks
from transport.provider_connection import ProviderConnection

_NO_CLOCKS = Clocks(None, None, None)
MAX_DECODED_BYTES = 1 << 20
# Turns of the loop in which nothing but the connection's own steps can be under way.
_QUIET_TURNS = 20


class _Keeper:
    """Keeps every connection for ever."""

    keep_alive_seconds = 3600.0

    def __init__(self) -> None:
        self.events: list[str] = []

    def came_back(self, connection: ProviderConnection) -> None:
        self.events.append("came back")

    def gone(self, connection: ProviderConnection) -> None:
        self.events.append("gone")


@dataclass(slots=True)
class Outcome:
    """What the caller got."""

    status: int | None = None
    headers: Headers | None = None
    body: bytes = b""
    error: str | None = None
    """The class of the error; ``waiting`` when the answer has no end."""
    reused: bool = False


async def receive(
    pieces: Iterable[bytes], method: str = "GET", *, ends: bool = False, pouring: bool = False, turns: bool = False
) -> Outcome:
    """Ask with ``method`` and feed ``pieces`` as the answer; the provider ends the connection then when it ``ends``.

    ``pouring``: the body is taken by ``pass_on`` instead of ``read``. ``turns``: the caller runs after each piece.
    """
    keeper = _Keeper()
    connection = ProviderConnection(asyncio.get_running_loop(), keeper)
    transport = MemoryTransport(connection)
    outcome = Outcome()
    tasks = Tasks()
    waiter = connection.begin(b"request", method == "HEAD", _NO_CLOCKS, None)
    connection.send_out()  # a turn of the event loop later, in life

    async def ask() -> None:
        try:
            # As transport.client does for requests that asked for `identity`.
            answer = decoded(await waiter, MAX_DECODED_BYTES)
            outcome.status, outcome.headers = answer.status, answer.headers
            if pouring:
                await answer.pass_on(take, ready)
            else:
                while piece := await answer.read():
                    outcome.body += piece
        except UpstreamError as error:
            outcome.error = type(error).__name__

    def take(piece: bytes) -> bool:
        assert piece, "an empty piece"
        outcome.body += piece
        return len(outcome.body) % 3 != 0

    async def ready() -> None:
        await asyncio.sleep(0)

    try:
        tasks.spawn(ask(), "ask")
        for piece in pieces:
            transport.feed(piece)
            if turns:
                await asyncio.sleep(0)
        if ends:
            transport.feed_eof()
        for _ in range(_QUIET_TURNS):
            await asyncio.sleep(0)
        for _ in range(100_000):
            if not len(tasks) or not transport.busy:
                break
            await asyncio.sleep(0)
        for _ in range(_QUIET_TURNS):
            await asyncio.sleep(0)
        if len(tasks):
            outcome.error = "waiting"
        outcome.reused = connection.usable
        assert b"request" == transport.written
        # Told once that it is gone, and of nothing then.
        assert keeper.events.count("gone") <= 1
        assert "gone" not in keeper.events[:-1]
        assert outcome.reused or outcome.error == "waiting" or "gone" in keeper.events
        return outcome
    finally:
        await tasks.cancel()
        transport.abort()
        await asyncio.sleep(0)


def differences(case: AnswerCase, outcome: Outcome) -> list[str]:
    """In what ``outcome`` is not what its case says."""
    found: list[str] = []

    def hold(what: str, expected: object, got: object) -> None:
        if expected != got:
            found.append(f"{what}: {expected!r:.500} was expected, {got!r:.500} came")

    hold("error", case.error, outcome.error)
    if case.error is None or outcome.status is not None:
        # A fault that comes together with the head is told in its place: then no byte has gone to anybody.
        hold("status", case.status, outcome.status)
    if case.error is None:
        hold("body", case.body, outcome.body)
    elif not case.body.startswith(outcome.body):
        # How much of it was given before the fault depends on what came with it.
        found.append(f"body: {outcome.body!r:.500} is not the beginning of {case.body!r:.500}")
    if case.reused is not None:
        hold("reused", case.reused, outcome.reused)
    for name, values in case.fields.items():
        hold(name, list(values), None if outcome.headers is None else outcome.headers.get_all(name))
    return found
