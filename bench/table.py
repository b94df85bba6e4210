"""The results as Markdown, for the terminal and for docs/performance.md."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.budget import SUBJECT, Limit, lines, within
from bench.results import Latency, Measured, Memory, Prompt, Rate, Row, Run, Start, Workers
from bench.workload import EVENTS_PER_STREAM

_FULL = 0.9
"""A core that is busier than this is what limits a rate."""
_NOISY = 0.1
_LATE_SECONDS = 0.001
_NOTHING = "-"
T = TypeVar("T")
_Columns = Sequence[tuple[str, Callable[[T], str]]]
_Timed = Measured[Rate] | Measured[Latency] | Measured[Prompt] | Measured[Workers]


def render(run: Run, budget: bool = True) -> str:
    """The whole run as Markdown: what ran where, one table a measure, Sluice against its budget, notes."""
    given = run.parameters
    sections = (
        (
            f"Chat completions as JSON, {given.json_connections} connections",
            _rate_table({row.name: row.json for row in run.rows}, streamed=False),
        ),
        (
            f"Streams, {given.stream_connections} open, {EVENTS_PER_STREAM} events each, 1 ms apart",
            _rate_table({row.name: row.streams for row in run.rows}, streamed=True),
        ),
        (
            f"Time to the whole JSON answer at {given.latency_requests_per_second:,.0f} requests/s",
            _latency_table({row.name: row.latency for row in run.rows}),
        ),
        (
            f"Time to a stream's first event at {given.first_event_streams_per_second:,.0f} streams/s",
            _latency_table({row.name: row.first_event for row in run.rows}),
        ),
        ("Long prompts, one after the other on one connection", _prompts_table(run.rows)),
        (
            f"Two workers, {given.workers_connections} connections with JSON chat completions",
            _workers_table({row.name: row.workers for row in run.rows}),
        ),
        ("Start and memory", _start_table(run.rows)),
        ("Sluice against its budget", _budget_table(run) if budget else ""),
    )
    tables = [f"**{title}**\n\n{table}" for title, table in sections if table]
    rows = [f"{row.name}: {row.what}." for row in run.rows]
    notes = "\n".join(f"- {note}" for note in (*rows, *run.notes, *_warnings(run)))
    return "\n\n".join((_heading(run), *tables, notes)) + "\n"


def _heading(run: Run) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    revision = run.revision[:12] + (" with changes" if run.dirty else "")
    rounds = f"medians of {run.parameters.rounds} rotated rounds" if run.parameters.rounds > 1 else "one round"
    quick = " (quick)" if run.parameters.quick else ""
    return (
        f"Run of {run.date}{quick}, revision {revision}, {rounds}; {run.machine.cpu}, {run.machine.cores} cores, "
        f"{run.machine.system}, Linux {run.machine.kernel}; {versions}."
    )


def _rate_table(measured: dict[str, Measured[Rate] | None], streamed: bool) -> str:
    rates = {name: one.median for name, one in measured.items() if one is not None}
    nginx = rates.get("nginx")
    nginx_rate = None if nginx is None else nginx.requests_per_second
    nginx_cpu = None if nginx is None else nginx.proxy_cpu_seconds_per_request
    each, answers = (EVENTS_PER_STREAM, "streams/s") if streamed else (1, "requests/s")
    columns: list[tuple[str, Callable[[Rate], str]]] = [
        (answers, lambda rate: f"{'' if _limited_by_proxy(rate) else '≥ '}{rate.requests_per_second:,.0f}"),
        ("vs nginx", lambda rate: _ratio(rate.requests_per_second, nginx_rate)),
        ("p50 ms", lambda rate: _ms(rate.p50_seconds)),
        ("p99 ms", lambda rate: _ms(rate.p99_seconds)),
        ("core of the proxy", lambda rate: _percent(rate.proxy_busy)),
        ("of the load", lambda rate: _percent(rate.upstream_busy + rate.client_busy)),
        (
            f"CPU µs {'an event' if streamed else 'a request'}",
            lambda rate: _number(rate.proxy_cpu_seconds_per_request, 1e6 / each),
        ),
        ("vs nginx by CPU", lambda rate: _ratio(nginx_cpu, rate.proxy_cpu_seconds_per_request)),
        ("failed", lambda rate: str(rate.failed)),
    ]
    if streamed:
        columns.insert(1, ("events/s", lambda rate: _number(rate.events_per_second, 1, ",.0f")))
    return _table(columns, rates)


def _limited_by_proxy(rate: Rate) -> bool:
    """Whether the rate is the proxy's own limit, or else only the least that it can do."""
    return rate.proxy_busy is None or rate.proxy_busy >= _FULL


def _latency_table(measured: dict[str, Measured[Latency] | None]) -> str:
    columns: _Columns[Latency] = (
        ("p50 ms", lambda found: _ms(found.p50_seconds)),
        ("p99 ms", lambda found: _ms(found.p99_seconds)),
        ("added p50 ms", lambda found: _ms(found.added_p50_seconds)),
        ("added p99 ms", lambda found: _ms(found.added_p99_seconds)),
        ("failed", lambda found: str(found.failed)),
    )
    return _table(columns, {name: one.median for name, one in measured.items() if one is not None})


def _prompts_table(rows: Sequence[Row]) -> str:
    found = {(one.median.body_bytes, row.name): one.median for row in rows for one in row.prompts}

    def of_nginx(prompt: Prompt) -> float | None:
        nginx = found.get((prompt.body_bytes, "nginx"))
        return None if nginx is None else nginx.p50_seconds

    columns: _Columns[Prompt] = (
        ("ms to the whole answer", lambda prompt: _ms(prompt.p50_seconds)),
        ("of nginx's", lambda prompt: _ratio(prompt.p50_seconds, of_nginx(prompt))),
        ("MB more at the peak", lambda prompt: _number(prompt.peak_growth_bytes, 1e-6)),
        ("failed", lambda prompt: str(prompt.failed)),
    )
    by_size = sorted(found, key=lambda key: key[0])
    return _table(columns, {f"{_size(key[0])}, {key[1]}": found[key] for key in by_size}, "prompt, row")


def _workers_table(measured: dict[str, Measured[Workers] | None]) -> str:
    found = {name: one.median for name, one in measured.items() if one is not None}
    one = found.get(SUBJECT)
    of_one = None if one is None else one.requests_per_cpu_second
    columns: _Columns[Workers] = (
        ("workers", lambda each: str(each.processes)),
        ("requests/s", lambda each: f"{each.requests_per_second:,.0f}"),
        ("requests a CPU second", lambda each: f"{each.requests_per_cpu_second:,.0f}"),
        ("of one worker's", lambda each: _ratio(each.requests_per_cpu_second, of_one)),
        ("work of the busiest", lambda each: _percent(each.busiest_share)),
        ("most connections", lambda each: _percent(each.most_connections_share)),
        ("failed", lambda each: str(each.failed)),
    )
    return _table(columns, found)


def _start_table(rows: Sequence[Row]) -> str:
    columns: _Columns[tuple[Start, Memory | None]] = (
        ("ready s", lambda found: f"{found[0].ready_seconds:.2f}"),
        ("idle MB", lambda found: f"{found[0].idle_memory_bytes / 1e6:.0f}"),
        ("streams held", lambda found: f"{found[1].streams:,}" if found[1] else _NOTHING),
        ("MB then", lambda found: f"{found[1].bytes / 1e6:.0f}" if found[1] else _NOTHING),
        ("KiB a stream", lambda found: f"{found[1].bytes_per_stream / 1024:.1f}" if found[1] else _NOTHING),
    )
    found = {row.name: (row.start, row.memory.median if row.memory else None) for row in rows if row.start is not None}
    return _table(columns, found)


def _budget_table(run: Run) -> str:
    columns: _Columns[tuple[Limit, float]] = (
        ("budget", lambda line: f"{'≤' if line[0].at_most else '≥'} {_plain(line[0].bound)}"),
        ("found", lambda line: f"{line[1]:{line[0].form}}"),
        ("kept", lambda line: "yes" if within(*line) else "no"),
    )
    return _table(columns, {line[0].what: line for line in lines(run)}, "figure")


def _warnings(run: Run) -> list[str]:
    """What makes the figures of this run doubtful."""
    busy, late = [], []
    for name, found in _timed(run).items():
        rounds = [one for each in found if each is not None for one in each.rounds]
        busiest = max((one.elsewhere_busy for one in rounds), default=0.0)
        if busiest > _NOISY:
            busy.append(f"{name} {busiest:.0%}")
        latest = max((one.late_p99_seconds for one in rounds if isinstance(one, Latency)), default=0.0)
        if latest > _LATE_SECONDS:
            late.append(f"{name} {latest * 1e3:.1f} ms")
    warnings = []
    if busy:
        warnings.append(f"Not quiet: other programs used this much of a core at worst: {', '.join(busy)}.")
    if late:
        warnings.append(f"The load generator itself sent late (p99 at worst): {', '.join(late)}.")
    return warnings


def _timed(run: Run) -> dict[str, Sequence[_Timed | None]]:
    """The measures whose figures other programs can spoil."""
    return {
        "json": [row.json for row in run.rows],
        "streams": [row.streams for row in run.rows],
        "latency": [row.latency for row in run.rows],
        "first_event": [row.first_event for row in run.rows],
        "prompts": [one for row in run.rows for one in row.prompts],
        "workers": [row.workers for row in run.rows],
    }


def _size(number: int) -> str:
    return f"{number / 1e6:g} MB" if number >= 1_000_000 else f"{number / 1e3:g} KB"


def _plain(bound: float) -> str:
    return f"{bound:,.0f}" if bound >= 1000 else f"{bound:g}"


def _ratio(part: float | None, whole: float | None) -> str:
    if not part or not whole:
        return _NOTHING
    return f"{part / whole:.2f}" if part / whole >= 0.05 else f"{part / whole:.4f}"


def _ms(seconds: float | None) -> str:
    return _number(seconds, 1e3, ".2f")


def _percent(share: float | None) -> str:
    return _number(share, 100, ".0f", " %")


def _number(value: float | None, factor: float, form: str = ".1f", unit: str = "") -> str:
    return _NOTHING if value is None else f"{value * factor:{form}}{unit}"


def _table(columns: _Columns[T], found: dict[str, T], first: str = "row") -> str:
    """Markdown whose columns line up, so that it reads in a terminal too; empty when nothing was found."""
    if not found:
        return ""
    grid = [[first, *(title for title, _ in columns)]]
    grid += [[name, *(cell(value) for _, cell in columns)] for name, value in found.items()]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    padded = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in grid
    ]
    padded.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
