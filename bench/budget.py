"""What Sluice may cost, and what a run found: the budget is this table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.results import Row, Run

SUBJECT = "sluice"
_NGINX = "nginx"


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of the budget: a figure of Sluice's row (and nginx's, where both are compared) and its bound."""

    what: str
    bound: float
    at_most: bool
    """Else: at least."""
    form: str
    found: Callable[[Row, Row | None], float | None]
    """The figure; None when the run did not measure it."""


def _cpu_microseconds(row: Row, _nginx: Row | None) -> float | None:
    seconds = row.json.median.proxy_cpu_seconds_per_request if row.json else None
    return None if seconds is None else seconds * 1e6


def _json_vs_nginx(row: Row, nginx: Row | None) -> float | None:
    if row.json is None or nginx is None or nginx.json is None:
        return None
    return row.json.median.requests_per_second / nginx.json.median.requests_per_second


def _streams_vs_nginx(row: Row, nginx: Row | None) -> float | None:
    if row.streams is None or nginx is None or nginx.streams is None:
        return None
    return row.streams.median.requests_per_second / nginx.streams.median.requests_per_second


def _added_p50(row: Row, _nginx: Row | None) -> float | None:
    return _milliseconds(row.latency.median.added_p50_seconds if row.latency else None)


def _added_p99(row: Row, _nginx: Row | None) -> float | None:
    return _milliseconds(row.latency.median.added_p99_seconds if row.latency else None)


def _added_first_event(row: Row, _nginx: Row | None) -> float | None:
    return _milliseconds(row.first_event.median.added_p50_seconds if row.first_event else None)


def _ready(row: Row, _nginx: Row | None) -> float | None:
    return row.start.ready_seconds if row.start else None


def _idle_megabytes(row: Row, _nginx: Row | None) -> float | None:
    return row.start.idle_memory_bytes / 1e6 if row.start else None


def _kibibytes_per_stream(row: Row, _nginx: Row | None) -> float | None:
    return row.memory.median.bytes_per_stream / 1024 if row.memory else None


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


BUDGET = (
    Limit("CPU of a JSON request, µs", 50, True, ".1f", _cpu_microseconds),
    Limit("JSON requests/s, as a share of nginx's", 0.25, False, ".2f", _json_vs_nginx),
    Limit("streamed events/s, as a share of nginx's", 0.95, False, ".2f", _streams_vs_nginx),
    Limit("added latency at 1,000 requests/s, p50, ms", 0.3, True, ".2f", _added_p50),
    Limit("added latency at 1,000 requests/s, p99, ms", 2.0, True, ".2f", _added_p99),
    Limit("added time to the first event, p50, ms", 0.3, True, ".2f", _added_first_event),
    Limit("memory of an open stream, KiB", 24, True, ".1f", _kibibytes_per_stream),
    Limit("memory when idle, MB", 80, True, ".0f", _idle_megabytes),
    Limit("ready to serve, s", 1, True, ".2f", _ready),
)


def lines(run: Run) -> Sequence[tuple[Limit, float]]:
    """The limits that the run can be held against, with what it found."""
    rows = {row.name: row for row in run.rows}
    if SUBJECT not in rows:
        return []
    found = [(limit, limit.found(rows[SUBJECT], rows.get(_NGINX))) for limit in BUDGET]
    return [(limit, value) for limit, value in found if value is not None]


def within(limit: Limit, found: float) -> bool:
    """Whether the figure keeps to its bound."""
    return found <= limit.bound if limit.at_most else found >= limit.bound
