"""However the bytes of HTTP/1.1 are cut on their way, they say the same: for every golden message, in both directions."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.http1 import client, server
from tests.conformance.http1.client import receive
from tests.conformance.http1.corpus import answer_cases, request_cases
from tests.conformance.http1.server import serve

REQUESTS = request_cases()
ANSWERS = answer_cases()
few = settings(max_examples=150, deadline=None)

sizes = st.lists(st.integers(1, 8) | st.integers(1, 100) | st.integers(1, 70000), min_size=1, max_size=6)
"""Of pieces, over and over."""


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    at = 0
    # A big message in tiny pieces says no more than a small one, and takes long: `one byte at a time` is below.
    least = len(data) // 2000 + 1
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return
        after = at + max(size, least)
        yield data[at:after]
        at = after


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_may_come_one_byte_at_a_time(name: str) -> None:
    case = REQUESTS[name]
    assert [] == server.differences(case, await serve([bytes([byte]) for byte in case.sent]))


@few
@given(name=st.sampled_from(sorted(REQUESTS)), sizes=sizes, later=st.booleans())
def test_a_request_may_come_in_any_pieces(name: str, sizes: list[int], later: bool) -> None:
    case = REQUESTS[name]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [] == server.differences(case, runner.run(serve(cut(case.sent, sizes), later=later)))


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_may_be_cut_anywhere(name: str) -> None:
    """In two, at each of its bytes; big ones at some of them."""
    case = REQUESTS[name]
    for at in range(1, len(case.sent), len(case.sent) // 100 + 1):
        assert [] == server.differences(case, await serve([case.sent[:at], case.sent[at:]], later=at % 2 == 0)), at


@pytest.mark.parametrize("pouring", [False, True], ids=["read", "passed on"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_may_come_one_byte_at_a_time(name: str, pouring: bool) -> None:
    case = ANSWERS[name]
    pieces = [bytes([byte]) for byte in case.sent]
    assert [] == client.differences(
        case, await receive(pieces, case.method, ends=case.ends, pouring=pouring, turns=True)
    )


@few
@given(name=st.sampled_from(sorted(ANSWERS)), sizes=sizes, pouring=st.booleans(), turns=st.booleans())
def test_an_answer_may_come_in_any_pieces(name: str, sizes: list[int], pouring: bool, turns: bool) -> None:
    case = ANSWERS[name]
    asked = receive(cut(case.sent, sizes), case.method, ends=case.ends, pouring=pouring, turns=turns)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [] == client.differences(case, runner.run(asked))


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_may_be_cut_anywhere(name: str) -> None:
    """In two, at each of its bytes; big ones at some of them."""
    case = ANSWERS[name]
    for at in range(1, len(case.sent), len(case.sent) // 100 + 1):
        asked = receive(
            [case.sent[:at], case.sent[at:]], case.method, ends=case.ends, pouring=at % 2 == 0, turns=at % 3 == 0
        )
        assert [] == client.differences(case, await asked), at
