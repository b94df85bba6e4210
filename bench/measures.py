"""The measures: what is done to a row, and what is read off. To add one, add an entry to `MEASURES`."""

import json
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from bench.client import HeldStreams, Samples, constant_rate, one_by_one
from bench.contenders import program
from bench.processes import BenchError, Process, busy_seconds
from bench.results import Cores, Latency, Memory, Parameters, Prompt, Rate, Result, Workers, percentile
from bench.workload import (
    CHAT_PATH,
    EVENTS_PER_STREAM,
    JSON_ASK,
    SLOW_EVENT_GAP_SECONDS,
    SLOW_STREAM_ASK,
    STREAM_ASK,
    TOKEN,
    Ask,
    long_ask,
)
from core.clock import SystemClock

_OPEN_WITHIN_SECONDS = EVENTS_PER_STREAM * SLOW_EVENT_GAP_SECONDS - 10.0
"""Before the first of the held streams comes to its end, with time left to settle."""
_SETTLE_SECONDS = 1.2 * SLOW_EVENT_GAP_SECONDS
"""Each stream has had another event by then."""
_now: Callable[[], float] = SystemClock().monotonic
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """A contender that runs and answers."""

    name: str
    address: str
    process: Process | None
    """None: no proxy."""
    stream_wire_bytes: int
    """Size of one whole stream as this proxy sends it."""
    headers: tuple[tuple[str, str], ...] = ()

    def asked(self, ask: Ask) -> Ask:
        """The request as this row takes it."""
        return replace(ask, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measure needs."""

    parameters: Parameters
    cores: Cores
    upstream: Process
    wrk: str
    scratch: Path


@dataclass(frozen=True, slots=True)
class _Spent:
    """CPU seconds of everybody during a measure."""

    wall_seconds: float
    proxy: float | None
    upstream: float
    client: float
    elsewhere: float


@dataclass(frozen=True, slots=True)
class _WrkResult:
    requests: int
    bytes: int
    duration_us: int
    p50_us: int
    p99_us: int
    failed: int


def json_rate(bench: Bench, subject: Subject) -> Rate:
    """Chat completions answered as JSON, as many as go through."""
    given = bench.parameters
    return _rate(bench, subject, JSON_ASK, given.json_connections, given.json_seconds)


def stream_rate(bench: Bench, subject: Subject) -> Rate:
    """Streamed chat completions, a fixed number open at any time."""
    given = bench.parameters
    return _rate(bench, subject, STREAM_ASK, given.stream_connections, given.stream_seconds)


def latency(bench: Bench, subject: Subject) -> Latency:
    """Time to the whole JSON answer at a constant rate."""
    rate, seconds = bench.parameters.latency_requests_per_second, bench.parameters.latency_seconds
    samples, spent = _accounted(
        bench, subject, lambda: constant_rate(subject.address, subject.asked(JSON_ASK), rate, seconds)
    )
    return _latency(subject, samples, samples.whole, spent)


def first_event(bench: Bench, subject: Subject) -> Latency:
    """Time to a stream's first event, at a constant rate of streams."""
    rate, seconds = bench.parameters.first_event_streams_per_second, bench.parameters.first_event_seconds
    samples, spent = _accounted(
        bench, subject, lambda: constant_rate(subject.address, subject.asked(STREAM_ASK), rate, seconds)
    )
    return _latency(subject, samples, samples.first_body, spent)


def memory(bench: Bench, subject: Subject) -> Memory | None:
    """What an open stream costs in memory; None where there is no proxy."""
    if subject.process is None:
        return None
    wanted = bench.parameters.memory_streams
    streams = HeldStreams(subject.address, subject.asked(SLOW_STREAM_ASK))
    held, sizes = [], []
    deadline = _now() + _OPEN_WITHIN_SECONDS
    try:
        for count in (wanted // 5, wanted):
            streams.open(count, deadline)
            streams.trickle(_SETTLE_SECONDS)
            subject.process.require_alive()
            held.append(streams.flowing)
            sizes.append(subject.process.memory_bytes())
    finally:
        streams.close()
    few, many = held
    if many <= few:
        raise BenchError(f"{subject.name} holds {few:,} streams open, not {wanted:,} ({streams.lost:,} were lost)")
    return Memory(many, sizes[1], (sizes[1] - sizes[0]) / (many - few), max(streams.lost, wanted - many))


def prompts(bench: Bench, subject: Subject) -> tuple[Prompt, ...]:
    """Time and memory that long prompts take, size by size."""

    def send_all() -> list[tuple[int, int | None, Samples]]:
        return [_long_prompts(subject, *each) for each in bench.parameters.prompts]

    found, spent = _accounted(bench, subject, send_all)
    elsewhere = spent.elsewhere / spent.wall_seconds
    return tuple(
        Prompt(body_bytes, percentile(samples.whole, 50), peak_growth_bytes, elsewhere, samples.failed)
        for body_bytes, peak_growth_bytes, samples in found
    )


def _long_prompts(subject: Subject, body_bytes: int, count: int) -> tuple[int, int | None, Samples]:
    """The size, how far the proxy's memory rose, and the times."""
    ask, process = subject.asked(long_ask(body_bytes)), subject.process
    before = process.memory_bytes() if process is not None and process.forget_peak_memory() else None
    samples = one_by_one(subject.address, ask, count)
    growth = None if process is None or before is None else max(0, process.peak_memory_bytes() - before)
    if not samples.whole:
        raise BenchError(f"{subject.name} answers no prompt of {body_bytes:,} bytes: {samples.problem}")
    return body_bytes, growth, samples


def workers(bench: Bench, subject: Subject) -> Workers | None:
    """What a request costs, and who serves it, where workers may use two cores; None where there is no proxy."""
    process, given = subject.process, bench.parameters
    if process is None:
        return None
    port = int(subject.address.rpartition(":")[2])
    connections: dict[int, int] = {}

    def halfway() -> None:
        connections.update(process.connections(port))

    with process.placed_on(bench.cores.workers):
        before = process.cpu_seconds_by_process()
        done, spent = _accounted(
            bench,
            subject,
            lambda: _wrk(bench, subject, JSON_ASK, given.workers_connections, given.workers_seconds, halfway),
        )
        after = process.cpu_seconds_by_process()
    process.require_alive()
    cpu = {pid: after[pid] - before[pid] for pid in connections if pid in after and pid in before}
    if not done.requests or not spent.proxy or not sum(cpu.values()):
        raise BenchError(f"{subject.name} completed no request on {given.workers_connections} connections")
    return Workers(
        processes=len(connections),
        requests_per_second=done.requests / (done.duration_us / 1e6),
        requests_per_cpu_second=done.requests / spent.proxy,
        busiest_share=max(cpu.values()) / sum(cpu.values()),
        most_connections_share=max(connections.values()) / sum(connections.values()),
        elsewhere_busy=spent.elsewhere / spent.wall_seconds,
        failed=done.failed,
    )


def warm_up(bench: Bench, subject: Subject, measures: Sequence[str]) -> None:
    """Fill pools and caches before anything counts of what is going to be measured."""
    seconds = 1
    for ask in (JSON_ASK, STREAM_ASK) if "streams" in measures else (JSON_ASK,):
        _wrk(bench, subject, ask, bench.parameters.json_connections, seconds)


def _rate(bench: Bench, subject: Subject, ask: Ask, connections: int, seconds: int) -> Rate:
    done, spent = _accounted(bench, subject, lambda: _wrk(bench, subject, ask, connections, seconds))
    if subject.process is not None:
        subject.process.require_alive()
    if not done.requests:
        raise BenchError(f"{subject.name} completed no request in {seconds} s")
    per_second = done.requests / (done.duration_us / 1e6)
    delivered = done.bytes / subject.stream_wire_bytes if ask.streamed else float(done.requests)
    return Rate(
        requests_per_second=per_second,
        events_per_second=per_second * EVENTS_PER_STREAM if ask.streamed else None,
        p50_seconds=done.p50_us / 1e6,
        p99_seconds=done.p99_us / 1e6,
        proxy_cpu_seconds_per_request=None if spent.proxy is None else spent.proxy / delivered,
        proxy_busy=None if spent.proxy is None else spent.proxy / spent.wall_seconds,
        upstream_busy=spent.upstream / spent.wall_seconds,
        client_busy=spent.client / spent.wall_seconds,
        elsewhere_busy=spent.elsewhere / spent.wall_seconds,
        failed=done.failed,
    )


def _latency(subject: Subject, samples: Samples, times: list[float], spent: _Spent) -> Latency:
    if not times:
        raise BenchError(f"{subject.name} completed no request at a constant rate ({samples.failed} failed)")
    return Latency(
        p50_seconds=percentile(times, 50),
        p99_seconds=percentile(times, 99),
        added_p50_seconds=None,
        added_p99_seconds=None,
        late_p99_seconds=percentile(samples.late, 99),
        elsewhere_busy=spent.elsewhere / spent.wall_seconds,
        failed=samples.failed,
    )


def _wrk(
    bench: Bench,
    subject: Subject,
    ask: Ask,
    connections: int,
    seconds: int,
    halfway: Callable[[], None] | None = None,
) -> _WrkResult:
    body = bench.scratch / ("stream.json" if ask.streamed else "plain.json")
    body.write_bytes(ask.body)
    script = Path(__file__).with_name("wrk.lua")
    argv = [bench.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    argv += [f"http://{subject.address}{CHAT_PATH}", "--", str(body), TOKEN, *chain.from_iterable(subject.headers)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as wrk:
        try:
            if halfway is not None:
                time.sleep(seconds / 2)
                halfway()
            printed = wrk.communicate()[0].decode(errors="replace")
        except BaseException:
            wrk.kill()
            raise
    for line in printed.splitlines():
        if line.startswith("RESULT "):
            return _WrkResult(**json.loads(line.removeprefix("RESULT ")))
    raise BenchError(f"wrk gave no result for {subject.name}:\n{printed}")


def _accounted(bench: Bench, subject: Subject, work: Callable[[], T]) -> tuple[T, _Spent]:
    """Do ``work`` and say who spent what CPU time meanwhile."""
    begun, before = _now(), _cpu(bench, subject)
    result = work()
    wall_seconds, after = _now() - begun, _cpu(bench, subject)
    proxy, upstream, client, machine = (late - early for late, early in zip(after, before, strict=True))
    elsewhere = max(0.0, machine - proxy - upstream - client)
    return result, _Spent(wall_seconds, None if subject.process is None else proxy, upstream, client, elsewhere)


def _cpu(bench: Bench, subject: Subject) -> tuple[float, float, float, float]:
    proxy = 0.0 if subject.process is None else subject.process.cpu_seconds()
    # The client is this process, or wrk, which counts among the children that have ended.
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    client = sum(usage.ru_utime + usage.ru_stime for usage in own)
    return proxy, bench.upstream.cpu_seconds(), client, busy_seconds()


MEASURES: dict[str, Callable[[Bench, Subject], Result | None]] = {
    "json": json_rate,
    "streams": stream_rate,
    "latency": latency,
    "first_event": first_event,
    "memory": memory,
    "prompts": prompts,
    "workers": workers,
}


def need_wrk() -> str:
    """Where wrk is. Raises BenchError, saying how to install it."""
    path = program("wrk")
    if path is None:
        raise BenchError("wrk is missing, which makes the load: install it (Debian: `apt-get install wrk`)")
    return path
