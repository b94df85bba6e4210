import asyncio
from collections.abc import AsyncIterator, Iterator
from time import perf_counter

import pytest

from core.errors import ConnectFailed, ConnectTimeout, Delivered, UpstreamCut, UpstreamError, UpstreamTimeout
from core.headers import Headers
from transport.messages import Clocks, UpstreamRequest, UpstreamResponse
from transport.script import Cut, Head, Receive, Received, Refuse, Script, Send, Stall, Step, Unreachable, Wait
from transport.scripted import ScriptedClient

NEVER = Clocks(None, None, None)
HEAD = Head(200, Headers([("content-type", "text/plain")]))


def request(body: bytes | AsyncIterator[bytes] | None = b"", clocks: Clocks = NEVER) -> UpstreamRequest:
    return UpstreamRequest("POST", "echo://test/", Headers(), body, None, clocks)


def playing(*steps: Step) -> ScriptedClient:
    return ScriptedClient(lambda _request: Script(steps))


async def transcript(answer: UpstreamResponse) -> list[bytes | type[Exception]]:
    """What the reads gave, the exception that ended them included."""
    said: list[bytes | type[Exception]] = []
    try:
        while piece := await answer.read():
            said.append(piece)
    except UpstreamError as error:
        said.append(type(error))
    return said


async def test_the_steps_are_played_in_order_and_the_answer_ends() -> None:
    answer = await playing(Wait(0.01), HEAD, Send(b"one"), Wait(0.01), Send(b"two")).send(request())
    assert (200, "text/plain") == (answer.status, answer.headers.get("content-type"))
    assert [b"one", b"two"] == await transcript(answer)
    assert b"" == await answer.read()


@pytest.mark.parametrize(
    ("steps", "kind", "delivered"),
    [
        ((Refuse(),), ConnectFailed, Delivered.NO),
        ((Unreachable(),), ConnectTimeout, Delivered.NO),
        ((Cut(),), UpstreamCut, Delivered.MAYBE),
        ((), UpstreamCut, Delivered.MAYBE),
        ((Send(b"no head"),), UpstreamCut, Delivered.MAYBE),
        ((Stall(),), UpstreamTimeout, Delivered.MAYBE),
        ((Wait(60), HEAD), UpstreamTimeout, Delivered.MAYBE),
        ((Wait(0.03), Wait(0.03), HEAD), UpstreamTimeout, Delivered.MAYBE),
    ],
)
async def test_failures_before_the_head(
    steps: tuple[Step, ...], kind: type[UpstreamError], delivered: Delivered
) -> None:
    begun = perf_counter()
    with pytest.raises(kind) as failed:
        await playing(*steps).send(request(clocks=Clocks(0.05, 0.05, None)))
    assert delivered is failed.value.delivered
    assert perf_counter() - begun < 20


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((Send(b"half"), Cut(), Send(b"rest")), [b"half", UpstreamCut]),
        ((Send(b"half"), Stall()), [b"half", UpstreamTimeout]),
        ((Send(b"half"), Wait(5), Send(b"rest")), [b"half", UpstreamTimeout]),
        ((Wait(0.04), Send(b"a"), Wait(0.04), Send(b"b")), [b"a", b"b"]),
        ((Send(b"a"), Head(200)), [b"a", UpstreamCut]),
    ],
)
async def test_failures_within_the_body(steps: tuple[Step, ...], said: list[bytes | type[Exception]]) -> None:
    answer = await playing(HEAD, *steps).send(request(clocks=Clocks(None, None, 0.06)))
    assert said == await transcript(answer)


async def test_closing_an_answer_ends_the_read_that_waits_for_it() -> None:
    answer = await playing(HEAD, Send(b"one"), Stall()).send(request())
    assert b"one" == await answer.read()
    reading = asyncio.ensure_future(answer.read())
    await asyncio.sleep(0.01)
    answer.close()
    answer.close()
    with pytest.raises(UpstreamCut):
        await asyncio.wait_for(reading, 60)
    with pytest.raises(UpstreamCut):
        await answer.read()


async def test_closing_the_client_cuts_answers_and_refuses_requests() -> None:
    client = playing(HEAD, Stall())
    reading = asyncio.ensure_future((await client.send(request())).read())
    await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(UpstreamCut):
        await asyncio.wait_for(reading, 60)
    with pytest.raises(ConnectFailed):
        await client.send(request())


async def test_a_cancelled_send_leaves_nothing_behind() -> None:
    sending = asyncio.ensure_future(playing(Stall()).send(request()))
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def streamed() -> AsyncIterator[bytes]:
    for piece in (b"ab", b"", b"cdef"):
        yield piece


@pytest.mark.parametrize(
    ("body", "kept", "length"),
    [(b"abcdef", b"abc", 6), (streamed, b"abc", 6), (b"", b"", 0), (None, b"", 0)],
)
async def test_a_body_is_taken_whole_and_kept_in_part(body: object, kept: bytes, length: int) -> None:
    received: list[Received] = []

    def then(got: Received) -> Script:
        received.append(got)
        return Script((HEAD, Send(b"thanks")))

    client = ScriptedClient(lambda _request: Receive(then, keep_bytes=3))
    answer = await client.send(request(body() if callable(body) else body))  # type: ignore[arg-type]
    assert [b"thanks"] == await transcript(answer)
    assert (length, kept) == (received[0].length, received[0].kept)
    if length:
        assert "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721" == received[0].sha256


async def test_the_answer_depends_on_the_request() -> None:
    client = ScriptedClient(lambda asked: Script((HEAD, Send(asked.url.encode()))))
    assert [b"echo://test/"] == await transcript(await client.send(request()))


async def test_steps_are_made_as_they_are_read() -> None:
    made: list[int] = []

    def steps() -> Iterator[Step]:
        yield HEAD
        for number in range(1000):
            made.append(number)
            yield Send(b"%d" % number)

    answer = await ScriptedClient(lambda _request: Script(steps())).send(request())
    assert [b"0", b"1"] == [await answer.read(), await answer.read()]
    assert [0, 1] == made


async def test_others_run_while_an_answer_without_waits_is_read() -> None:
    answer = await playing(HEAD, *(Send(b"x") for _ in range(100))).send(request())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(other())
    await transcript(answer)
    running.cancel()
    assert turns >= 50
