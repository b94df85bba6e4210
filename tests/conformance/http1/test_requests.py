"""Every request of the corpus, as the server takes it: in memory, and over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from core.tasks import Tasks
from gateway.listeners import Listener, bind
from tests.conformance.http1.corpus import PLACE, RequestCase, request_cases
from tests.conformance.http1.server import PROBE, Recorder, differences, read_answers_to, serve
from tests.conformance.http1.wire import Malformed
from transport.server import ServerLimits

CASES = request_cases()
AT_ONCE = 16
GRACE_SECONDS = 60.0
QUIET_SECONDS = 0.2


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 150
    assert len(CASES) == sum(path.read_text().count("[[case]]") for path in (PLACE / "requests").glob("*.toml"))


@pytest.mark.parametrize("name", CASES)
async def test_a_request_gets_what_the_rfcs_say(name: str) -> None:
    assert [] == differences(CASES[name], await serve([CASES[name].sent]))


@pytest.mark.parametrize("name", CASES)
async def test_a_handler_that_answers_later_changes_nothing(name: str) -> None:
    assert [] == differences(CASES[name], await serve([CASES[name].sent], later=True))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a listener of the gateway's, with the recording handler behind it."""
    sockets = bind("127.0.0.1:0", "")
    tasks = Tasks()
    listener = Listener(sockets, Recorder(later=tasks), ServerLimits, max_connections=lambda: 1000)
    listener.start()
    number = int(sockets[0].getsockname()[1])
    try:
        yield number
    finally:
        listener.stop_accepting()
        await listener.close()
        await tasks.cancel()


def statuses(case: RequestCase, written: bytearray) -> list[int]:
    """Of the answers that are there so far; none where one of them is not whole yet."""
    try:
        answers = read_answers_to(case.seen, bytes(written), ended=False)
    except Malformed:
        return []
    return [answer.status for answer in answers if answer.status >= 200]


async def asked(case: RequestCase, port: int) -> list[str]:
    """What a client on a socket finds otherwise than the case says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    written = bytearray()

    async def read(enough: Callable[[], bool] = lambda: False) -> None:
        while not enough() and (data := await reader.read(65536)):
            written.extend(data)

    # A case that leaves the connection open is followed by a last request, so that its end shows where it is.
    last = PROBE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if case.fate == "kept" else b""
    expected = [status for status in case.answers if status >= 200] + ([200] if last else [])
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(case.sent + last)
            await writer.drain()
        try:
            if case.fate == "waiting":
                async with asyncio.timeout(GRACE_SECONDS):
                    await read(lambda: expected == statuses(case, written))
                # What is expected has come: nothing else does.
            async with asyncio.timeout(QUIET_SECONDS if case.fate == "waiting" else GRACE_SECONDS):
                await read()
        except ConnectionError as error:
            return [f"{case.name}: {error!r} before the end of {bytes(written)!r}"]
        except TimeoutError:
            ended = False
        else:
            ended = True
        answers = read_answers_to(case.seen, bytes(written), ended=ended)
        got = [answer.status for answer in answers if answer.status >= 200]
        if got != expected or ended == (case.fate == "waiting"):
            return [f"{case.name}: {expected} was expected and {got} came; the end: {ended}"]
        return []
    finally:
        writer.transport.abort()


async def test_the_same_over_real_sockets(port: int) -> None:
    cases = list(CASES.values())
    found: list[str] = []
    for start in range(0, len(cases), AT_ONCE):
        for faults in await asyncio.gather(*(asked(case, port) for case in cases[start : start + AT_ONCE])):
            found += faults
    assert [] == found
