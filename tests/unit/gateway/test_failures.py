"""When a configuration is taken for worse than the one before it."""

import pytest

from core.events import RequestCompleted, RequestFailed
from gateway.failures import FailureWatch


def event(kind: type[RequestCompleted] | type[RequestFailed], revision: str, **members: object) -> object:
    everything = dict.fromkeys(kind.__struct_fields__)
    return kind(**{**everything, "status": 200, **members, "revision": revision})  # type: ignore[arg-type]  # any members


class Requests:
    """Tells a watch of requests."""

    def __init__(self) -> None:
        self.watch = FailureWatch()
        self.told = 0
        self.watch.on_worse = self._tell

    def _tell(self) -> None:
        self.told += 1

    def completed(self, revision: str, count: int) -> None:
        for _ in range(count):
            self.watch.completed(event(RequestCompleted, revision))  # type: ignore[arg-type]  # any members

    def failed(self, revision: str, count: int, status: int = 502, error_code: str = "upstream_error") -> None:
        for _ in range(count):
            self.watch.failed(event(RequestFailed, revision, status=status, error_code=error_code))  # type: ignore[arg-type]  # any members


@pytest.mark.parametrize(
    ("before", "since", "is_worse"),
    [
        # completed, failed
        ((0, 0), (44, 6), True),
        ((0, 0), (45, 5), False),
        # Fewer than 50 tell nothing, before as well as since.
        ((0, 0), (0, 49), False),
        ((0, 49), (44, 6), True),
        ((45, 5), (40, 10), False),
        ((45, 5), (39, 11), True),
        ((0, 60), (0, 60), False),
        # As many as since count, the newest: of the 60 before these all had failed.
        ((900, 60), (0, 60), False),
        ((60, 0), (100, 11), False),
        ((60, 0), (100, 13), True),
    ],
)
def test_the_share_of_failures_is_compared_with_that_before(
    before: tuple[int, int], since: tuple[int, int], is_worse: bool
) -> None:
    requests = Requests()
    requests.completed("old", before[0])
    requests.failed("old", before[1])
    requests.watch.begin("new", 0.1)
    requests.completed("new", since[0])
    requests.failed("new", since[1])
    assert (is_worse, int(is_worse)) == (requests.watch.worse, requests.told)


@pytest.mark.parametrize(
    ("status", "error_code", "counts"),
    [
        (500, "internal_error", True),
        (503, "no_target_available", True),
        (200, "upstream_disconnected", True),
        (404, "model_not_found", False),
        (429, "rate_limit_exceeded", False),
        (499, "client_closed", False),
        (200, "client_closed", False),
    ],
)
def test_what_is_the_callers_own_counts_neither_way(status: int, error_code: str, counts: bool) -> None:
    requests = Requests()
    requests.watch.begin("new", 0.1)
    requests.failed("new", 100, status, error_code)
    assert counts is requests.watch.worse


def test_requests_that_began_before_the_edit_do_not_speak_for_it() -> None:
    requests = Requests()
    requests.watch.begin("new", 0.1)
    requests.failed("old", 100)
    requests.completed("new", 50)
    requests.watch.end()
    requests.failed("new", 100)
    assert (False, 0) == (requests.watch.worse, requests.told)


def test_a_second_edit_is_compared_with_what_the_first_has_shown() -> None:
    requests = Requests()
    requests.watch.begin("one", 0.1)
    requests.failed("one", 50)
    assert 1 == requests.told
    requests.watch.begin("two", 0.1)
    requests.failed("two", 50)
    assert (False, 1) == (requests.watch.worse, requests.told)
