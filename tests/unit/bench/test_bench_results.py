"""From rounds to medians, budget and tables."""

from dataclasses import replace

import msgspec
import pytest

from bench.budget import lines, within
from bench.results import (
    FORMAT,
    Cores,
    Machine,
    Memory,
    Prompt,
    Row,
    Run,
    Start,
    Workers,
    failures,
    measured,
)
from bench.run import DEFAULT, QUICK
from bench.table import render

_SIZES = tuple(size for size, _ in DEFAULT.prompts)


def _row(
    name: str, seconds: float, workers: Workers | None = None, memory: Memory | None = None, sizes: tuple[int, ...] = ()
) -> Row:
    prompts = [measured([Prompt(size, seconds * size, 3 * size, 0.0, 0)]) for size in sizes]
    return Row(
        name=name,
        what="a row",
        start=Start(0.5, 50_000_000),
        json=None,
        streams=None,
        latency=None,
        first_event=None,
        memory=None if memory is None else measured([memory]),
        prompts=tuple(each for each in prompts if each is not None),
        workers=None if workers is None else measured([workers]),
    )


def _run(*rows: Row) -> Run:
    machine = Machine("a processor", 2, "a system", "6.1")
    cores = Cores(0, 1, 1, (0, 1))
    return Run(FORMAT, "2026-01-01T00:00:00Z", "0" * 40, False, machine, cores, {}, DEFAULT, rows, ())


_ONE = Workers(1, 10_000.0, 11_000.0, 1.0, 1.0, 0.0, 0)
_TWO = Workers(2, 18_000.0, 9_900.0, 0.55, 0.7, 0.0, 0)
_RUN = _run(
    _row("nginx", 1e-9, sizes=_SIZES),
    _row("sluice", 2.5e-9, _ONE, Memory(8000, 200_000_000, 20 * 1024, 1), _SIZES),
    _row("sluice-2", 0.0, _TWO),
)


def _kept(run: Run) -> dict[str, tuple[str, bool]]:
    return {limit.what: (f"{found:{limit.form}}", within(limit, found)) for limit, found in lines(run)}


def test_the_rounds_come_to_medians_but_failures_add_up_and_peaks_stay() -> None:
    rounds = [
        Prompt(1000, seconds, peak, 0.0, failed) for seconds, peak, failed in ((1, 9, 1), (5, None, 0), (2, 4, 2))
    ]
    found = measured(rounds)
    assert found is not None
    assert Prompt(1000, 2, 9, 0.0, 3) == found.median
    assert measured([]) is None


def test_failures_of_every_measure_count() -> None:
    row = _row("sluice", 1e-9, replace(_ONE, failed=5), Memory(10, 1, 1.0, 70), _SIZES)
    assert 75 == failures(row)


@pytest.mark.parametrize(
    ("figure", "found", "kept"),
    [
        ("streams held open, without those lost", "7,999", False),
        ("memory of an open stream, KiB", "20.0", True),
        ("time of a 100 KB prompt, over nginx's", "2.50", False),
        ("time of a 1 MB prompt, over nginx's", "2.50", False),
        ("time of a 20 MB prompt, over nginx's", "2.50", False),
        ("requests a CPU second with two workers, as a share of one's", "0.90", True),
        ("share of the work of the busier of two workers", "0.55", True),
        ("share of the connections that one of them has", "0.70", False),
    ],
)
def test_the_budget_is_held_against_a_run(figure: str, found: str, kept: bool) -> None:
    assert (found, kept) == _kept(_RUN)[figure]


def test_what_was_not_measured_is_not_held_against_the_budget() -> None:
    assert {"memory when idle, MB", "ready to serve, s"} == set(_kept(_run(_row("sluice", 1e-9))))
    assert {} == _kept(_run(_row("nginx", 1e-9, sizes=_SIZES)))


def test_a_quick_run_holds_few_streams_on_purpose() -> None:
    assert "streams held open, without those lost" not in _kept(replace(_RUN, parameters=QUICK))


def test_the_table_shows_prompts_by_size_and_workers_beside_one() -> None:
    text = render(_RUN)
    assert "| 20 MB, sluice  |" in text
    assert ["50.00", "2.50", "60.0", "0"] == _cells(text, "20 MB, sluice")
    assert ["2", "18,000", "9,900", "0.90", "55 %", "70 %", "0"] == _cells(text, "sluice-2")
    assert ["≥ 8,000", "7,999", "no"] == _cells(text, "streams held open, without those lost")


def test_a_run_is_read_back_as_it_was_written() -> None:
    assert _RUN == msgspec.json.decode(msgspec.json.encode(_RUN), type=Run)


def _cells(text: str, name: str) -> list[str]:
    """The cells of the first line of that name."""
    lines_of_it = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in lines_of_it[0].split("|")[2:-1]]
