"""Counting requests in plain numbers and folding them now and then gives what prometheus_client would have counted."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.events import RequestCompleted, RequestFailed, RequestStarted
from core.usage import Usage
from telemetry import registry
from telemetry.registry import Metric
from telemetry.tallies import Tallies

Step = RequestStarted | RequestCompleted | RequestFailed | None

# The bounds themselves are where a bucket may be missed.
seconds = st.floats(0, 400) | st.sampled_from([*registry.REQUEST_DURATION.buckets, *registry.OVERHEAD.buckets])
tokens = st.integers(0, 2**40)
# Few names: requests must meet in a series, and `-` is both a name and the label of what is not known.
names = st.sampled_from(["a", "b", "-"])
endings = st.builds(
    lambda kind, **members: kind(**members),
    kind=st.sampled_from([RequestCompleted, RequestFailed]),
    request_id=st.just("req_1"),
    client_request_id=st.none(),
    method=st.just("POST"),
    endpoint=names,
    status=st.sampled_from([0, 99, 200, 429, 499, 599, 600]),
    dialect=st.just("openai-chat"),
    token=st.none() | names,
    token_id=st.none(),
    owner=st.none(),
    remote_ip=st.just("192.0.2.1"),
    requested_model=st.none(),
    route=st.none() | names,
    provider=st.none() | names,
    model=st.none(),
    model_label=st.none() | names,
    credential=st.none(),
    stream=st.booleans(),
    attempts=st.just(1),
    duration_seconds=seconds,
    overhead_seconds=seconds,
    ttft_seconds=st.none() | seconds,
    upstream_seconds=st.none() | seconds,
    usage=st.none() | st.builds(Usage, tokens, tokens, st.just(0) | tokens, st.just(0) | tokens),
    cost_nano_usd=st.none() | tokens,
    revision=st.just("abc"),
    bytes_in=st.just(1),
    bytes_out=st.just(1),
)
steps: st.SearchStrategy[list[Step]] = st.lists(st.none() | st.builds(RequestStarted, endpoint=names) | endings)


class Direct:
    """Each request is told to prometheus_client at once, metric by metric."""

    def __init__(self, own: CollectorRegistry) -> None:
        def made(kind: Callable[..., Any], metric: Metric, **more: Any) -> Any:
            return kind(metric.name, metric.help, metric.labels, registry=own, **more)

        self.in_flight = made(Gauge, registry.IN_FLIGHT)
        self.requests = made(Counter, registry.REQUESTS)
        self.input = made(Counter, registry.INPUT_TOKENS)
        self.output = made(Counter, registry.OUTPUT_TOKENS)
        self.cached = made(Counter, registry.CACHED_TOKENS)
        self.reasoning = made(Counter, registry.REASONING_TOKENS)
        self.cost, self.unpriced = made(Counter, registry.COST), made(Counter, registry.UNPRICED)
        self.duration, self.overhead, self.ttft, self.upstream = (
            made(Histogram, metric, buckets=metric.buckets)
            for metric in (registry.REQUEST_DURATION, registry.OVERHEAD, registry.TTFT, registry.UPSTREAM_DURATION)
        )

    def observe(self, event: RequestStarted | RequestCompleted | RequestFailed) -> None:
        if isinstance(event, RequestStarted):
            self.in_flight.labels(event.endpoint).inc()
            return
        provider, model, token = event.provider or "-", event.model_label or "-", event.token or "-"
        status = str(event.status) if 100 <= event.status <= 599 else "-"
        self.in_flight.labels(event.endpoint).dec()
        self.requests.labels(event.endpoint, event.route or "-", provider, model, status, token).inc()
        self.duration.labels(event.endpoint, provider, model).observe(event.duration_seconds)
        self.overhead.labels(event.endpoint).observe(event.overhead_seconds)
        if event.ttft_seconds is not None:
            self.ttft.labels(provider, model).observe(event.ttft_seconds)
        if event.upstream_seconds is not None:
            self.upstream.labels(provider, model).observe(event.upstream_seconds)
        if event.usage is not None:
            self.input.labels(provider, model, token).inc(event.usage.input_tokens)
            self.output.labels(provider, model, token).inc(event.usage.output_tokens)
            if event.usage.cached_tokens:
                self.cached.labels(provider, model, token).inc(event.usage.cached_tokens)
            if event.usage.reasoning_tokens:
                self.reasoning.labels(provider, model, token).inc(event.usage.reasoning_tokens)
            if event.cost_nano_usd is None:
                self.unpriced.labels(provider, model).inc()
        if event.cost_nano_usd is not None:
            self.cost.labels(provider, model).inc(event.cost_nano_usd / 1e9)


def samples(own: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in own.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@settings(max_examples=200, deadline=None)
@given(steps)
def test_folding_now_and_then_counts_as_telling_at_once(steps: list[Step]) -> None:
    folded, told = CollectorRegistry(), CollectorRegistry()
    tallies, direct = Tallies(folded), Direct(told)
    for step in steps:
        if step is None:
            tallies.fold()
            continue
        direct.observe(step)
        if isinstance(step, RequestStarted):
            tallies.started(step)
        else:
            tallies.ended(step)
    tallies.fold()
    # Sums of floats depend on the order in which they are added up, by the last digits.
    assert pytest.approx(samples(told), rel=1e-9, abs=1e-9) == samples(folded)
