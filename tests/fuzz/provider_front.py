"""Anything at all, in any pieces, as the answer of a provider."""

import asyncio
from collections.abc import Iterator

from tests.conformance.http1.client import Outcome, receive
from tests.conformance.http1.corpus import answer_cases
from tests.fuzz.loop import run_in_loop
from tests.fuzz.target import pieces, seed, split

ERRORS = frozenset({"UpstreamMalformed", "UpstreamCut", "waiting"})


def run(data: bytes) -> None:
    choice, sizes, sent = split(data)
    method = "HEAD" if choice & 1 else "GET"
    ends = bool(choice & 2)
    whole, cut = run_in_loop(_both(sent, sizes, method, ends=ends, pouring=bool(choice & 4), turns=bool(choice & 8)))
    for outcome in (whole, cut):
        assert outcome.error is None or outcome.error in ERRORS, outcome.error
        assert outcome.status is None or 200 <= outcome.status <= 999
        if method == "HEAD":
            assert b"" == outcome.body
    if whole.error is None and cut.error is None:
        assert (whole.status, whole.headers, whole.body) == (cut.status, cut.headers, cut.body)
    # What is broken stays broken, however it comes; but what stands behind an answer to HEAD may come too late to be seen.
    assert (whole.error is None) == (cut.error is None) or method == "HEAD", (whole, cut)
    # What was given before is the same.
    assert whole.body.startswith(cut.body) or cut.body.startswith(whole.body)


async def _both(
    sent: bytes, sizes: list[int], method: str, *, ends: bool, pouring: bool, turns: bool
) -> tuple[Outcome, Outcome]:
    whole = await receive([sent], method, ends=ends)
    cut = await receive(pieces(sent, sizes), method, ends=ends, pouring=pouring, turns=turns)
    await asyncio.sleep(0)
    return whole, cut


def seeds() -> Iterator[bytes]:
    for case in answer_cases().values():
        if len(case.sent) < 4000:
            choice = (case.method == "HEAD") + 2 * case.ends
            yield seed(case.sent, choice=choice)
            yield seed(case.sent, 1, choice=choice + 12)
            yield seed(case.sent, 7, 30, 2, choice=choice + 4)
