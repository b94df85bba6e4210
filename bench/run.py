"""A run from start to end: rows are started, warmed, measured in rotated rounds, and stopped."""

import contextlib
import datetime
import http.client
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import machine
from bench.client import once
from bench.contenders import Contender, Place, free_address, program
from bench.measures import MEASURES, Bench, Subject, memory, need_wrk, warm_up
from bench.processes import BenchError, Process, raise_open_files, started
from bench.results import (
    FORMAT,
    Cores,
    Latency,
    Measured,
    Memory,
    Parameters,
    Prompt,
    Rate,
    Result,
    Row,
    Run,
    Start,
    Workers,
    measured,
)
from bench.workload import ANSWER, EVENTS, EVENTS_PER_STREAM, JSON_ASK, STREAM_ASK
from core.clock import SystemClock

_READY_WITHIN_SECONDS = 60.0
_POLL_SECONDS = 0.005
_SPARE_FILES = 500
"""Of those that may be open, what a proxy needs for anything but the streams that it holds."""
_clock = SystemClock()

DEFAULT = Parameters(
    quick=False,
    rounds=3,
    json_connections=32,
    json_seconds=4,
    stream_connections=512,
    stream_seconds=5,
    latency_requests_per_second=1000,
    latency_seconds=3,
    first_event_streams_per_second=50,
    first_event_seconds=3,
    memory_streams=8000,
    prompts=((100_000, 200), (1_000_000, 60), (20_000_000, 9)),
    workers_connections=256,
    workers_seconds=4,
)
QUICK = replace(
    DEFAULT,
    quick=True,
    rounds=1,
    json_seconds=2,
    stream_seconds=2,
    latency_seconds=1.5,
    first_event_seconds=1.5,
    memory_streams=300,
    prompts=((100_000, 60), (1_000_000, 20), (20_000_000, 3)),
    workers_seconds=2,
)


@dataclass(slots=True)
class _Standing:
    """A contender that runs, and what has been measured of it."""

    contender: Contender
    subject: Subject
    start: Start | None
    rounds: dict[str, list[Result]] = field(default_factory=dict)


def run(
    root: Path, scratch: Path, parameters: Parameters, contenders: Sequence[Contender], measures: Sequence[str]
) -> Run:
    """Measure ``contenders``. Raises BenchError; everything started has ended when this returns or raises.

    ``scratch`` is an empty folder for configurations and logs.
    """
    wrk = need_wrk()
    cores = machine.cores()
    notes = []
    holdable = max(10, (raise_open_files() - _SPARE_FILES) // 2)  # A proxy has two open for each stream.
    if holdable < parameters.memory_streams:
        notes.append(f"{holdable:,} streams held, not {parameters.memory_streams:,}: more files may not be open here.")
        parameters = replace(parameters, memory_streams=holdable)
    os.sched_setaffinity(0, {cores.client})  # Also wrk's core, which is started from here.
    wanted = list(contenders)
    for contender in list(wanted):
        if contender.needs is not None and program(contender.needs) is None:
            wanted.remove(contender)
            notes.append(
                f"No {contender.name} row: {contender.needs} is missing (Debian: `apt-get install {contender.needs}`)."
            )
            _say(notes[-1])
    if cores.upstream == cores.client:
        notes.append(
            "Two cores: load generator and mock provider share one, which may fill before the proxy's (then: ≥)."
        )
    with contextlib.ExitStack() as stack:
        python = [sys.executable, "-m", "bench.upstream"]
        upstream = stack.enter_context(
            started("upstream", python, [cores.upstream], root, scratch, _environment(root), piped=True)
        )
        upstream_address = f"127.0.0.1:{upstream.first_line()}"
        bench = Bench(parameters, cores, upstream, wrk, scratch)
        rows = []
        for contender in wanted:
            rows.append(stack.enter_context(_standing(contender, root, scratch, cores, upstream_address)))
            _begin(bench, rows[-1], measures)
        for number in range(parameters.rounds):
            _round(bench, rows, number, [name for name in measures if name != "memory"])
    commit, dirty = machine.revision(root)
    return Run(
        format=FORMAT,
        date=datetime.datetime.fromtimestamp(_clock.time(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        revision=commit,
        dirty=dirty,
        machine=machine.machine(),
        cores=cores,
        versions=machine.versions(),
        parameters=parameters,
        rows=tuple(_row(standing) for standing in rows),
        notes=tuple(notes),
    )


@contextlib.contextmanager
def _standing(contender: Contender, root: Path, scratch: Path, cores: Cores, upstream: str) -> Iterator[_Standing]:
    """The contender started and found to answer rightly, until the block ends."""
    if contender.command is None:
        yield _Standing(contender, _verified(Subject(contender.name, upstream, None, 0)), None)
        return
    own = scratch / contender.name
    own.mkdir()
    address = free_address()
    argv = contender.command(Place(address, upstream, own))
    environment = _environment(root) | {"HOME": str(own)} | dict(contender.env)
    headers = tuple((name, value.format(upstream=upstream)) for name, value in contender.headers)
    begun = _clock.monotonic()
    own_cores = cores.workers if contender.workers > 1 else [cores.proxy]
    with started(contender.name, argv, own_cores, own, scratch, environment) as process:
        _wait_until_ready(process, address, contender.ready_path)
        start = Start(_clock.monotonic() - begun, process.memory_bytes())
        try:
            subject = _verified(Subject(contender.name, address, process, 0, headers))
        except BenchError as error:
            raise BenchError(f"{error}\n{process.last_words()}") from error
        yield _Standing(contender, subject, start)


def _begin(bench: Bench, standing: _Standing, measures: Sequence[str]) -> None:
    """Memory first: afterwards, what load has left free in the process would hide what a stream costs."""
    wanted = [name for name in measures if name in standing.contender.measures]
    if "memory" in wanted and (held := memory(bench, standing.subject)) is not None:
        standing.rounds["memory"] = [held]
        _say(f"memory, {standing.subject.name}: {_brief(held)}")
    warm_up(bench, standing.subject, wanted)


def _round(bench: Bench, rows: list[_Standing], number: int, measures: Sequence[str]) -> None:
    """Every measure on every row, one row right after the other; who goes first moves on with each round."""
    for name in measures:
        found: dict[str, Result] = {}
        measurable = [standing for standing in rows if name in standing.contender.measures]
        turn = number % max(1, len(measurable))
        for standing in measurable[turn:] + measurable[:turn]:
            result = MEASURES[name](bench, standing.subject)
            if result is not None:
                found[standing.subject.name] = result
                _say(f"round {number + 1}/{bench.parameters.rounds}, {name}, {standing.subject.name}: {_brief(result)}")
        direct = found.get("direct")
        for standing in rows:
            if standing.subject.name in found:
                standing.rounds.setdefault(name, []).append(_with_added(found[standing.subject.name], direct))


def _with_added(result: Result, direct: Result | None) -> Result:
    if not isinstance(result, Latency) or not isinstance(direct, Latency) or result is direct:
        return result
    return replace(
        result,
        added_p50_seconds=result.p50_seconds - direct.p50_seconds,
        added_p99_seconds=result.p99_seconds - direct.p99_seconds,
    )


def _row(standing: _Standing) -> Row:
    def rates(name: str) -> list[Rate]:
        return [one for one in standing.rounds.get(name, []) if isinstance(one, Rate)]

    def latencies(name: str) -> list[Latency]:
        return [one for one in standing.rounds.get(name, []) if isinstance(one, Latency)]

    def prompts() -> Iterator[Measured[Prompt]]:
        rounds = [one for one in standing.rounds.get("prompts", []) if isinstance(one, tuple)]
        for of_one_size in zip(*rounds, strict=True):
            if (one := measured(of_one_size)) is not None:
                yield one

    return Row(
        name=standing.contender.name,
        what=standing.contender.what,
        start=standing.start,
        json=measured(rates("json")),
        streams=measured(rates("streams")),
        latency=measured(latencies("latency")),
        first_event=measured(latencies("first_event")),
        memory=measured([one for one in standing.rounds.get("memory", []) if isinstance(one, Memory)]),
        prompts=tuple(prompts()),
        workers=measured([one for one in standing.rounds.get("workers", []) if isinstance(one, Workers)]),
    )


def _verified(subject: Subject) -> Subject:
    """One request of each kind must give the whole answer; gives the subject with the size of a stream on the wire."""
    name, address = subject.name, subject.address
    try:
        plain, stream = once(address, subject.asked(JSON_ASK)), once(address, subject.asked(STREAM_ASK))
    except (OSError, ValueError) as error:
        raise BenchError(f"{name} does not answer a chat completion: {error}") from error
    # The model's name may be another and move the length a little; the rest is the mock provider's.
    if abs(len(plain.body) - len(ANSWER)) > 64 or b"lighthouse" not in plain.body:
        raise BenchError(f"{name} does not give the mock provider's answer: {plain.body[:300]!r}")
    if stream.body.count(b"data: ") != EVENTS_PER_STREAM or EVENTS[-1] not in stream.body:
        raise BenchError(f"{name} does not give the mock provider's {EVENTS_PER_STREAM} events: {stream.body[-300:]!r}")
    return replace(subject, stream_wire_bytes=stream.wire_bytes)


def _wait_until_ready(process: Process, address: str, path: str) -> None:
    deadline = _clock.monotonic() + _READY_WITHIN_SECONDS
    while _clock.monotonic() < deadline:
        process.require_alive()
        connection = http.client.HTTPConnection(address, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(_POLL_SECONDS)
        finally:
            connection.close()
    raise BenchError(f"{process.name} is not ready after {_READY_WITHIN_SECONDS:.0f} s:\n{process.last_words()}")


def _environment(root: Path) -> dict[str, str]:
    """All that children see: nothing of the caller's settings (proxies, debug switches) gets into the figures."""
    return {"PATH": os.defpath, "PYTHONPATH": str(root)}


def _brief(result: Result) -> str:
    if isinstance(result, Rate):
        events = "" if result.events_per_second is None else f", {result.events_per_second:,.0f} events/s"
        return f"{result.requests_per_second:,.0f} requests/s{events}"
    if isinstance(result, Latency):
        return f"p50 {result.p50_seconds * 1e3:.2f} ms, p99 {result.p99_seconds * 1e3:.2f} ms"
    if isinstance(result, Workers):
        return f"{result.requests_per_cpu_second:,.0f} requests/CPU s, the busiest {result.busiest_share:.0%}"
    if isinstance(result, Memory):
        return f"{result.bytes_per_stream / 1024:.1f} KiB a stream of {result.streams:,}"
    return ", ".join(f"{each.body_bytes:,} B {each.p50_seconds * 1e3:.1f} ms" for each in result)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
