"""What requests add up to, as plain numbers: no lock and no file on the request path.

prometheus_client takes a lock for each value that changes and, with several workers, writes it to a memory-mapped
file; a request changes about ten. Here it adds to numbers of ours, found by one look-up, and :meth:`Tallies.fold`
brings prometheus_client's children up to them, for many requests at once.

Only the event loop's thread writes the numbers, and they only grow (but for those in flight). Folding, which one
thread at a time does, reads them and remembers how far it has come. So nothing is lost when the two overlap.
"""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter

from core.events import RequestCompleted, RequestFailed, RequestStarted
from telemetry import registry
from telemetry.registry import UNKNOWN, Metric
from telemetry.series import BatchHistogram, Series, counter, gauge, histogram

PARTS_A_STEP = 64
"""Series brought up to date in a row: 0.1 ms; 0.8 ms for files of histograms of which each has changed."""
_NANO = 1_000_000_000
"""Money is counted in whole 10⁻⁹ US dollars, so that no sum of requests is rounded."""


class Count:
    """What the child of a counter is to be told. Add to ``total``; it must not fall."""

    __slots__ = ("_child", "_folded", "_parts", "total")

    def __init__(self, child: Counter, parts: int = 1) -> None:
        """``parts``: so many of ``total`` are one to the child."""
        self.total = 0
        self._folded = 0
        self._child = child
        self._parts = parts

    def fold(self) -> None:
        """Tell the child what is new."""
        total = self.total
        if total != self._folded:
            self._child.inc((total - self._folded) / self._parts)
            self._folded = total


class Observations:
    """What the child of a histogram is to be told."""

    __slots__ = ("_bounds", "_child", "_counts", "_folded_counts", "_folded_sum", "_sum")

    def __init__(self, child: BatchHistogram, bounds: tuple[float, ...]) -> None:
        """``bounds`` are the upper ones of the buckets, without the last, +Inf."""
        self._child = child
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._folded_counts = self._counts.copy()
        self._folded_sum = 0.0

    def observe(self, value: float) -> None:
        # A bucket holds its upper bound: https://prometheus.io/docs/concepts/metric_types/#histogram
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def fold(self) -> None:
        """Tell the child what is new."""
        counts, total = self._counts.copy(), self._sum
        # The sum too: this may have come in between the two lines of an observation.
        if counts == self._folded_counts and total == self._folded_sum:
            return
        news = [count - folded for count, folded in zip(counts, self._folded_counts, strict=True)]
        self._child.observe_batch(news, total - self._folded_sum)
        self._folded_counts, self._folded_sum = counts, total


_Part = TypeVar("_Part", Count, Observations)


class _Parts(Generic[_Part]):
    """The counts or observations of one metric by its labels' values."""

    __slots__ = ("_make", "_parts")

    def __init__(self, make: Callable[[tuple[str, ...]], _Part]) -> None:
        self._make: Callable[[tuple[str, ...]], _Part] = make
        self._parts: dict[tuple[str, ...], _Part] = {}

    def __getitem__(self, labels: tuple[str, ...]) -> _Part:
        part = self._parts.get(labels)
        if part is None:
            part = self._parts[labels] = self._make(labels)
        return part

    def __iter__(self) -> Iterator[_Part]:
        # A copy: the event loop may add one meanwhile.
        return iter(list(self._parts.values()))


class _Tokens:
    """Where the tokens of one caller at one target are counted."""

    __slots__ = ("cached", "input", "output", "reasoning")

    def __init__(self, input_tokens: Count, output_tokens: Count) -> None:
        self.input = input_tokens
        self.output = output_tokens
        self.cached: Count | None = None
        self.reasoning: Count | None = None


class _Tally:
    """Where a request with these labels is counted. None: there was nothing of the kind yet, so there is no series."""

    __slots__ = ("cost", "duration", "overhead", "requests", "tokens", "ttft", "unpriced", "upstream")

    def __init__(self, requests: Count, duration: Observations, overhead: Observations) -> None:
        self.requests = requests
        self.duration = duration
        self.overhead = overhead
        self.ttft: Observations | None = None
        self.upstream: Observations | None = None
        self.tokens: _Tokens | None = None
        self.cost: Count | None = None
        self.unpriced: Count | None = None


class Tallies:
    """Counts the requests of one process. All but :meth:`fold` is for the event loop's thread alone."""

    def __init__(self, own: CollectorRegistry) -> None:
        """Registers its metrics in ``own``."""
        self._tallies: dict[tuple[str, str | None, str | None, str | None, int, str | None], _Tally] = {}
        self._in_flight: defaultdict[str, int] = defaultdict(int)
        self._in_flight_gauges = Series(gauge(registry.IN_FLIGHT, own))
        self._in_flight_folded: dict[str, int] = {}
        self._requests = _counts(registry.REQUESTS, own)
        self._duration = _observations(registry.REQUEST_DURATION, own)
        self._ttft = _observations(registry.TTFT, own)
        self._upstream = _observations(registry.UPSTREAM_DURATION, own)
        self._overhead = _observations(registry.OVERHEAD, own)
        self._input_tokens = _counts(registry.INPUT_TOKENS, own)
        self._output_tokens = _counts(registry.OUTPUT_TOKENS, own)
        self._cached_tokens = _counts(registry.CACHED_TOKENS, own)
        self._reasoning_tokens = _counts(registry.REASONING_TOKENS, own)
        self._cost = _counts(registry.COST, own, _NANO)
        self._unpriced = _counts(registry.UNPRICED, own)
        self._folding = threading.Lock()

    def started(self, event: RequestStarted) -> None:
        self._in_flight[event.endpoint] += 1

    def ended(self, event: RequestCompleted | RequestFailed) -> None:
        endpoint = event.endpoint
        labels = (endpoint, event.route, event.provider, event.model_label, event.status, event.token)
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = self._new_tally(event)
        self._in_flight[endpoint] -= 1
        tally.requests.total += 1
        tally.duration.observe(event.duration_seconds)
        tally.overhead.observe(event.overhead_seconds)
        seconds = event.ttft_seconds
        if seconds is not None:
            if tally.ttft is None:
                tally.ttft = self._ttft[_target(event)]
            tally.ttft.observe(seconds)
        seconds = event.upstream_seconds
        if seconds is not None:
            if tally.upstream is None:
                tally.upstream = self._upstream[_target(event)]
            tally.upstream.observe(seconds)
        usage = event.usage
        if usage is not None:
            tokens = tally.tokens
            if tokens is None:
                caller = _caller(event)
                tokens = tally.tokens = _Tokens(self._input_tokens[caller], self._output_tokens[caller])
            tokens.input.total += usage.input_tokens
            tokens.output.total += usage.output_tokens
            if usage.cached_tokens:
                if tokens.cached is None:
                    tokens.cached = self._cached_tokens[_caller(event)]
                tokens.cached.total += usage.cached_tokens
            if usage.reasoning_tokens:
                if tokens.reasoning is None:
                    tokens.reasoning = self._reasoning_tokens[_caller(event)]
                tokens.reasoning.total += usage.reasoning_tokens
        cost = event.cost_nano_usd
        if cost is not None:
            if tally.cost is None:
                tally.cost = self._cost[_target(event)]
            tally.cost.total += cost
        elif usage is not None:
            if tally.unpriced is None:
                tally.unpriced = self._unpriced[_target(event)]
            tally.unpriced.total += 1

    def fold(self) -> None:
        """Bring prometheus_client's values up to date. May be called from any thread."""
        for _ in self.fold_by_steps():
            pass

    def fold_by_steps(self) -> Iterator[None]:
        """The same, for a caller that has other things to do in between: thousands of labels take milliseconds."""
        self._fold_in_flight()
        parts: Iterator[Count | Observations] = chain(
            self._requests,
            self._input_tokens,
            self._output_tokens,
            self._cached_tokens,
            self._reasoning_tokens,
            self._cost,
            self._unpriced,
            self._duration,
            self._ttft,
            self._upstream,
            self._overhead,
        )
        while step := tuple(islice(parts, PARTS_A_STEP)):
            with self._folding:
                for part in step:
                    part.fold()
            yield

    def _fold_in_flight(self) -> None:
        with self._folding:
            for endpoint, count in list(self._in_flight.items()):
                if count != self._in_flight_folded.get(endpoint):
                    self._in_flight_gauges[(endpoint,)].set(count)
                    self._in_flight_folded[endpoint] = count

    def _new_tally(self, event: RequestCompleted | RequestFailed) -> _Tally:
        provider, model = target = _target(event)
        status = str(event.status) if 100 <= event.status <= 599 else UNKNOWN
        return _Tally(
            self._requests[(event.endpoint, event.route or UNKNOWN, provider, model, status, event.token or UNKNOWN)],
            self._duration[(event.endpoint, *target)],
            self._overhead[(event.endpoint,)],
        )


def _target(event: RequestCompleted | RequestFailed) -> tuple[str, str]:
    return event.provider or UNKNOWN, event.model_label or UNKNOWN


def _caller(event: RequestCompleted | RequestFailed) -> tuple[str, str, str]:
    return *_target(event), event.token or UNKNOWN


def _counts(metric: Metric, own: CollectorRegistry, parts: int = 1) -> _Parts[Count]:
    parent = counter(metric, own)
    return _Parts(lambda labels: Count(parent.labels(*labels), parts))


def _observations(metric: Metric, own: CollectorRegistry) -> _Parts[Observations]:
    parent = histogram(metric, own)
    return _Parts(lambda labels: Observations(parent.labels(*labels), metric.buckets))
