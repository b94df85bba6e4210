"""What a run gives: plain values with their units in their names, kept as JSON beside the table."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

FORMAT = 2
"""Of the JSON files; raised when a reader of older ones would be misled."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How much goes through when each client sends its next request as soon as it has its answer (wrk)."""

    requests_per_second: float
    """Whole answers; a stream that the window's end cuts is not counted."""
    events_per_second: float | None
    """Of whole streams; None for JSON."""
    p50_seconds: float
    p99_seconds: float
    proxy_cpu_seconds_per_request: float | None
    """Delivered bytes count here, also of streams that the window's end cuts; None where there is no proxy."""
    proxy_busy: float | None
    """Share of one core, as are the following."""
    upstream_busy: float
    client_busy: float
    elsewhere_busy: float
    """Spent by the rest of the machine meanwhile: a run is clean when this is small."""
    failed: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Times at a constant rate that waits for no answer; `added` is over the direct row of the same round."""

    p50_seconds: float
    p99_seconds: float
    added_p50_seconds: float | None
    added_p99_seconds: float | None
    late_p99_seconds: float
    """How late the load generator itself was."""
    elsewhere_busy: float
    failed: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the proxy's processes while streams are held open."""

    streams: int
    bytes: int
    bytes_per_stream: float
    """The slope between a fifth of the streams and all of them, so that what is paid once does not count."""
    failed: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Long requests of one size, one after the other on one connection."""

    body_bytes: int
    p50_seconds: float
    """From the request's first byte to the end of the answer."""
    peak_growth_bytes: int | None
    """How far the proxy's resident memory rose above what it was before, at most (over the rounds: the most).
    None where there is no proxy, and where the system does not say."""
    elsewhere_busy: float
    failed: int


@dataclass(frozen=True, slots=True)
class Workers:
    """JSON requests at many connections, to a gateway that may use more than one core."""

    processes: int
    """How many had connections."""
    requests_per_second: float
    requests_per_cpu_second: float
    """Over the CPU time of all of the gateway's processes."""
    busiest_share: float
    """Of the workers' CPU time, the part of the one with the most: they all do the same work. 1 with one worker."""
    most_connections_share: float
    """Of the clients' connections, the part of the worker that holds the most, halfway through."""
    elsewhere_busy: float
    failed: int


@dataclass(frozen=True, slots=True)
class Start:
    """From the start of the program to its first answer, and what it holds then."""

    ready_seconds: float
    idle_memory_bytes: int


Result = Rate | Latency | Memory | tuple[Prompt, ...] | Workers
"""What one measure finds of one row in one round; of prompts, one for each size."""

T = TypeVar("T", Rate, Latency, Memory, Prompt, Workers)

_TOGETHER: dict[str, Callable[[Sequence[Any]], Any]] = {"failed": sum, "peak_growth_bytes": max}
"""What rounds come to, where that is not the median."""


@dataclass(frozen=True, slots=True)
class Measured(Generic[T]):
    """One measure of one row: each value's median over the rounds (of `failed` the sum, of a peak the most), and these."""

    median: T
    rounds: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Everything about one contender; None where it was not asked for or does not apply."""

    name: str
    what: str
    start: Start | None
    json: Measured[Rate] | None
    streams: Measured[Rate] | None
    latency: Measured[Latency] | None
    first_event: Measured[Latency] | None
    memory: Measured[Memory] | None
    prompts: tuple[Measured[Prompt], ...]
    """By size."""
    workers: Measured[Workers] | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran: nothing that names the machine."""

    cpu: str
    cores: int
    system: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core did what."""

    proxy: int
    upstream: int
    client: int
    workers: tuple[int, ...]
    """For a proxy that may use two: these are shared with the load unless there are four."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How much of what."""

    quick: bool
    rounds: int
    json_connections: int
    json_seconds: int
    stream_connections: int
    stream_seconds: int
    latency_requests_per_second: float
    latency_seconds: float
    first_event_streams_per_second: float
    first_event_seconds: float
    memory_streams: int
    prompts: tuple[tuple[int, int], ...]
    """Size of the body in bytes, and how many of it."""
    workers_connections: int
    workers_seconds: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the bench."""

    format: int
    date: str
    revision: str
    dirty: bool
    """The working tree differed from the revision (the results themselves aside)."""
    machine: Machine
    cores: Cores
    versions: dict[str, str]
    parameters: Parameters
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def measured(rounds: Sequence[T]) -> Measured[T] | None:
    """The rounds with their medians; None without any."""
    if not rounds:
        return None
    medians: dict[str, float | int | None] = {}
    for each in dataclasses.fields(rounds[0]):
        values = [getattr(one, each.name) for one in rounds]
        present = [value for value in values if value is not None]
        together = _TOGETHER.get(each.name, statistics.median)
        medians[each.name] = type(present[0])(together(present)) if present else None
    return Measured(msgspec.convert(medians, type(rounds[0])), tuple(rounds))


def failures(row: Row) -> int:
    """Requests of the row that failed, over all measures."""
    parts = (row.json, row.streams, row.latency, row.first_event, row.memory, *row.prompts, row.workers)
    return sum(part.median.failed for part in parts if part is not None)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` (not empty) do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
