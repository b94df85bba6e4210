"""Anything at all, in any pieces, to the server's side of a connection."""

from collections.abc import Iterator

from tests.conformance.http1.corpus import request_cases
from tests.conformance.http1.reference import next_request
from tests.conformance.http1.server import Outcome, serve
from tests.fuzz.loop import run_in_loop
from tests.fuzz.target import pieces, seed, split
from transport.server import ServerLimits

# Small, so that small inputs reach them.
LIMITS = ServerLimits(header_bytes=2048, header_count=16, url_bytes=256, requests_per_connection=50)
STATUSES = frozenset({100, 200, 204, 304, 400, 413, 414, 417, 431, 501, 505})


def run(data: bytes) -> None:
    choice, sizes, sent = split(data)
    whole = run_in_loop(serve([sent], limits=LIMITS))
    cut = run_in_loop(serve(pieces(sent, sizes), later=bool(choice & 1), limits=LIMITS))
    for outcome in (whole, cut):
        # serve() has read the answers already: what is no well-formed HTTP has raised.
        assert {each.status for each in outcome.answers} <= STATUSES, outcome.answers
        _hold_framing(sent, outcome)
    # However it came, it says the same: which of several faults is told of, the order of arrival may decide.
    assert _accepted(whole) == _accepted(cut)
    assert (whole.fate, whole.seen) == (cut.fate, cut.seen)


def _accepted(outcome: Outcome) -> list[tuple[int, bytes]]:
    finals = [each for each in outcome.answers if each.status >= 200]
    return [(each.status, each.body) if each.status < 400 else (400, b"") for each in finals]


def _hold_framing(sent: bytes, outcome: Outcome) -> None:
    """Each request that was told of begins where the one before it ended, and nowhere else."""
    at = 0
    for number, seen in enumerate(outcome.seen):
        expected, at = next_request(sent, at)
        assert (expected.method, expected.target) == (seen.method, seen.target)
        if seen.body is None:
            assert number == len(outcome.seen) - 1, "a request behind one that was broken or is not whole"
        else:
            assert expected.body == seen.body
    finals = [each.status for each in outcome.answers if each.status >= 200]
    assert not any(status >= 400 for status in finals[:-1]), "an answer behind a refusal"
    assert not finals or finals[-1] < 400 or outcome.fate == "closed", "a refusal that does not close"


def seeds() -> Iterator[bytes]:
    for case in request_cases().values():
        if len(case.sent) < 4000:
            yield seed(case.sent)
            yield seed(case.sent, 1, choice=1)
            yield seed(case.sent, 7, 30, 2)
