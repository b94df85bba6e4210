"""Plain numbers that prometheus_client's are brought up to; tests/property/test_tallies.py says that they agree."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from core.events import RequestCompleted, RequestFailed, RequestStarted
from core.usage import Usage
from telemetry import registry
from telemetry.series import histogram
from telemetry.tallies import PARTS_A_STEP, Observations, Tallies

Ended = Callable[..., RequestCompleted | RequestFailed]
CALLER = {"provider": "openai", "model": "gpt-4o*", "token": "team"}


@pytest.fixture
def own() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_histogram_told_at_once_is_as_one_told_one_by_one() -> None:
    """prometheus_client has no public way to do it: this holds ours to its own."""
    bounds = registry.OVERHEAD.buckets
    values = [0.0, *bounds, *(bound * 1.01 for bound in bounds), 1e9]
    one, other = CollectorRegistry(), CollectorRegistry()
    told_one_by_one = histogram(registry.OVERHEAD, one).labels("chat")
    observations = Observations(histogram(registry.OVERHEAD, other).labels("chat"), bounds)
    for value in values:
        told_one_by_one.observe(value)
        observations.observe(value)
    for _ in range(2):
        observations.fold()
        assert pytest.approx(samples(one)) == samples(other)


def samples(own: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in own.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_series_begins_at_zero_and_shows_its_count_when_it_is_folded(own: CollectorRegistry, ended: Ended) -> None:
    tallies = Tallies(own)
    assert own.get_sample_value("sluice_input_tokens_total", CALLER) is None
    tallies.ended(ended())
    assert 0 == own.get_sample_value("sluice_input_tokens_total", CALLER)
    tallies.fold()
    assert 11 == own.get_sample_value("sluice_input_tokens_total", CALLER)
    tallies.fold()
    assert 11 == own.get_sample_value("sluice_input_tokens_total", CALLER)


def test_tokens_of_several_routes_and_endpoints_are_one_callers(own: CollectorRegistry, ended: Ended) -> None:
    tallies = Tallies(own)
    for route, endpoint, cached in (("gold", "chat", 3), (None, "chat", 0), ("gold", "responses", 2)):
        tallies.ended(ended(route=route, endpoint=endpoint, usage=Usage(10, 0, cached)))
    tallies.fold()
    assert [30, 0, 5] == [
        own.get_sample_value(f"sluice_{kind}_tokens_total", CALLER) for kind in ("input", "output", "cached")
    ]


def test_statuses_that_share_a_label_are_added_up(own: CollectorRegistry, ended: Ended) -> None:
    tallies = Tallies(own)
    for status in (7, 600, 600):
        tallies.ended(ended(status=status))
    tallies.fold()
    labels = {**CALLER, "endpoint": "chat", "route": "gold", "status": "-"}
    assert 3 == own.get_sample_value("sluice_requests_total", labels)


def test_requests_in_flight_go_down_again(own: CollectorRegistry, ended: Ended) -> None:
    tallies = Tallies(own)
    for expected, begin, end in ((2, 2, 0), (1, 1, 2), (1, 0, 0), (0, 0, 1)):
        for _ in range(begin):
            tallies.started(RequestStarted(endpoint="chat"))
        for _ in range(end):
            tallies.ended(ended())
        tallies.fold()
        assert expected == own.get_sample_value("sluice_requests_in_flight", {"endpoint": "chat"})


def test_many_series_are_folded_by_steps(own: CollectorRegistry, ended: Ended) -> None:
    tallies = Tallies(own)
    for number in range(PARTS_A_STEP):
        tallies.ended(ended(token=f"team-{number}"))
    steps = list(tallies.fold_by_steps())
    assert len(steps) > 3
    last = {**CALLER, "token": f"team-{PARTS_A_STEP - 1}"}
    assert 3 == own.get_sample_value("sluice_cached_tokens_total", last)


@pytest.mark.usefixtures("hasty_threads")
def test_nothing_is_lost_when_other_threads_fold_meanwhile(own: CollectorRegistry, ended: Ended) -> None:
    tallies = Tallies(own)
    done = threading.Event()

    def fold() -> None:
        while not done.is_set():
            tallies.fold()

    threads = [threading.Thread(target=fold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(5000):
        tallies.started(RequestStarted(endpoint="chat"))
        tallies.ended(ended(token=f"team-{number % 50}", duration_seconds=1.0))
    done.set()
    for thread in threads:
        thread.join()
    tallies.fold()
    target = {"endpoint": "chat", "provider": "openai", "model": "gpt-4o*"}
    assert 5000 == own.get_sample_value("sluice_request_duration_seconds_count", target)
    assert 5000 == own.get_sample_value("sluice_request_duration_seconds_sum", target)
    assert 0 == own.get_sample_value("sluice_requests_in_flight", {"endpoint": "chat"})
    tokens = [
        own.get_sample_value("sluice_input_tokens_total", {**CALLER, "token": f"team-{number}"}) for number in range(50)
    ]
    assert [1100.0] * 50 == tokens
