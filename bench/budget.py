"""What Sluice may cost, and what a run found: the budget is this table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.results import Row, Run

SUBJECT = "sluice"
TWO_WORKERS = "sluice-2"
MANAGED = "sluice-managed"
ACCOUNTING = "sluice-accounting"
REDIS = "sluice-redis"
_NGINX = "nginx"


_Found = Callable[[Run], float | None]


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of the budget: a figure of Sluice (beside nginx's, where both are compared) and its bound."""

    what: str
    bound: float
    at_most: bool
    """Else: at least."""
    form: str
    found: _Found
    """The figure; None when the run did not measure it."""


def _row(run: Run, name: str) -> Row | None:
    return next((row for row in run.rows if row.name == name), None)


def _of_sluice(value: Callable[[Row], float | None], factor: float = 1.0) -> _Found:
    """A figure of the row of one worker, in another unit."""

    def found(run: Run) -> float | None:
        row = _row(run, SUBJECT)
        figure = None if row is None else value(row)
        return None if figure is None else figure * factor

    return found


def _share(part: str, whole: str, value: Callable[[Row], float | None]) -> _Found:
    """What one row has of a figure, as a share of what the other has."""

    def found(run: Run) -> float | None:
        rows = _row(run, part), _row(run, whole)
        own, other = (None if row is None else value(row) for row in rows)
        return None if own is None or not other else own / other

    return found


def _over(one: str, other: str, value: Callable[[Row], float | None], factor: float) -> _Found:
    """By how much a figure of one row is above the other's, in another unit."""

    def found(run: Run) -> float | None:
        rows = _row(run, one), _row(run, other)
        more, less = (None if row is None else value(row) for row in rows)
        return None if more is None or less is None else (more - less) * factor

    return found


def _streams_held(run: Run) -> float | None:
    row = _row(run, SUBJECT)
    if row is None or row.memory is None or run.parameters.quick:  # A quick run holds few on purpose.
        return None
    return run.parameters.memory_streams - row.memory.median.failed


def _prompt_seconds(body_bytes: int) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        return next((one.median.p50_seconds for one in row.prompts if one.median.body_bytes == body_bytes), None)

    return value


def _cpu_seconds_per_request(row: Row) -> float | None:
    return row.json.median.proxy_cpu_seconds_per_request if row.json else None


def _json_rate(row: Row) -> float | None:
    return row.json.median.requests_per_second if row.json else None


def _stream_rate(row: Row) -> float | None:
    return row.streams.median.requests_per_second if row.streams else None


def _added_p50_seconds(row: Row) -> float | None:
    return row.latency.median.added_p50_seconds if row.latency else None


def _added_p99_seconds(row: Row) -> float | None:
    return row.latency.median.added_p99_seconds if row.latency else None


def _added_first_event_seconds(row: Row) -> float | None:
    return row.first_event.median.added_p50_seconds if row.first_event else None


def _bytes_per_stream(row: Row) -> float | None:
    return row.memory.median.bytes_per_stream if row.memory else None


def _idle_bytes(row: Row) -> float | None:
    return row.start.idle_memory_bytes if row.start else None


def _ready_seconds(row: Row) -> float | None:
    return row.start.ready_seconds if row.start else None


def _requests_per_cpu_second(row: Row) -> float | None:
    return row.workers.median.requests_per_cpu_second if row.workers else None


def _busiest_share(run: Run) -> float | None:
    row = _row(run, TWO_WORKERS)
    return row.workers.median.busiest_share if row is not None and row.workers else None


def _most_connections_share(run: Run) -> float | None:
    row = _row(run, TWO_WORKERS)
    return row.workers.median.most_connections_share if row is not None and row.workers else None


BUDGET = (
    Limit("CPU of a JSON request, µs", 50, True, ".1f", _of_sluice(_cpu_seconds_per_request, 1e6)),
    Limit("JSON requests/s, as a share of nginx's", 0.25, False, ".2f", _share(SUBJECT, _NGINX, _json_rate)),
    Limit(
        "JSON requests/s with 10,000 tokens and the audit, of those without",
        0.95,
        False,
        ".2f",
        _share(MANAGED, SUBJECT, _json_rate),
    ),
    Limit(
        "JSON requests/s with limits, prices, the ledger and two webhooks, of those without",
        0.95,
        False,
        ".2f",
        _share(ACCOUNTING, SUBJECT, _json_rate),
    ),
    Limit("streamed events/s, as a share of nginx's", 0.95, False, ".2f", _share(SUBJECT, _NGINX, _stream_rate)),
    Limit(
        "streamed events/s with 10,000 tokens and the audit, of those without",
        0.95,
        False,
        ".2f",
        _share(MANAGED, SUBJECT, _stream_rate),
    ),
    Limit(
        "streamed events/s with limits, prices, the ledger and two webhooks, of those without",
        0.95,
        False,
        ".2f",
        _share(ACCOUNTING, SUBJECT, _stream_rate),
    ),
    Limit(
        "added latency of limits in Redis over those in memory, p50, ms",
        1.0,
        True,
        ".2f",
        _over(REDIS, ACCOUNTING, _added_p50_seconds, 1e3),
    ),
    Limit("added latency at 1,000 requests/s, p50, ms", 0.3, True, ".2f", _of_sluice(_added_p50_seconds, 1e3)),
    Limit("added latency at 1,000 requests/s, p99, ms", 2.0, True, ".2f", _of_sluice(_added_p99_seconds, 1e3)),
    Limit("added time to the first event, p50, ms", 0.3, True, ".2f", _of_sluice(_added_first_event_seconds, 1e3)),
    Limit("streams held open, without those lost", 8000, False, ",.0f", _streams_held),
    Limit("memory of an open stream, KiB", 24, True, ".1f", _of_sluice(_bytes_per_stream, 1 / 1024)),
    Limit("time of a 100 KB prompt, over nginx's", 2, True, ".2f", _share(SUBJECT, _NGINX, _prompt_seconds(100_000))),
    Limit("time of a 1 MB prompt, over nginx's", 2, True, ".2f", _share(SUBJECT, _NGINX, _prompt_seconds(1_000_000))),
    Limit("time of a 20 MB prompt, over nginx's", 2, True, ".2f", _share(SUBJECT, _NGINX, _prompt_seconds(20_000_000))),
    Limit(
        "requests a CPU second with two workers, as a share of one's",
        0.9,
        False,
        ".2f",
        _share(TWO_WORKERS, SUBJECT, _requests_per_cpu_second),
    ),
    Limit("share of the work of the busier of two workers", 0.65, True, ".2f", _busiest_share),
    Limit("share of the connections that one of them has", 0.65, True, ".2f", _most_connections_share),
    Limit("memory when idle, MB", 80, True, ".0f", _of_sluice(_idle_bytes, 1e-6)),
    Limit("ready to serve, s", 1, True, ".2f", _of_sluice(_ready_seconds)),
)


def lines(run: Run) -> Sequence[tuple[Limit, float]]:
    """The limits that the run can be held against, with what it found."""
    found = [(limit, limit.found(run)) for limit in BUDGET]
    return [(limit, value) for limit, value in found if value is not None]


def within(limit: Limit, found: float) -> bool:
    """Whether the figure keeps to its bound."""
    return found <= limit.bound if limit.at_most else found >= limit.bound
