"""`python -m bench`: measure the gateway beside nginx and no proxy at all. See docs/performance.md."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import msgspec

from bench import others
from bench.contenders import CONTENDERS, Contender
from bench.measures import MEASURES
from bench.processes import BenchError
from bench.results import FORMAT, Run, failures
from bench.run import DEFAULT, QUICK, run
from bench.table import render

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "bench" / "results"
_DOCS = _ROOT / "docs" / "performance.md"
_BEGIN = "<!-- begin: written by `python -m {command} --write-docs` -->\n"
_END = "<!-- end -->\n"


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What a run compares when it is whole."""

    command: str
    contenders: tuple[Contender, ...]
    measures: tuple[str, ...]
    latest: Path
    """Where the latest whole run is kept: beside this as Markdown too."""
    budget: bool


_USUAL = _Comparison("bench", CONTENDERS, tuple(MEASURES), _RESULTS / "latest.json", budget=True)
_OTHERS = _Comparison("bench --others", others.OTHERS, others.MEASURES, _RESULTS / "others.json", budget=False)
_ROWS = tuple(dict.fromkeys(each.name for each in (*CONTENDERS, *others.OTHERS)))


def main(argv: list[str] | None = None) -> int:
    """Run the command; gives the exit status: 0 done, 1 something failed, 130 interrupted."""
    given = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # What was started is stopped on the way out.
    try:
        comparison = _OTHERS if given.others else _USUAL
        return _write_docs(comparison) if given.write_docs else _measure(given, comparison)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything started has been stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the gateway on one core, beside nginx and beside no proxy at all."
    )
    parser.add_argument(
        "--others", action="store_true", help="beside gateways of others, which are installed into .cache/others first"
    )
    parser.add_argument("--quick", action="store_true", help="one short round, under a minute")
    parser.add_argument("--rounds", type=_positive, metavar="N", help=f"how many to take medians of ({DEFAULT.rounds})")
    parser.add_argument("--only", type=_some_of(_ROWS), metavar="ROW,…", help=f"of the rows {', '.join(_ROWS)}")
    parser.add_argument(
        "--measure", type=_some_of(tuple(MEASURES)), metavar="NAME,…", help=f"of the measures {', '.join(MEASURES)}"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="measure nothing: copy the latest table into docs/performance.md"
    )
    return parser


def _some_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}: give some of {', '.join(names)}")
        return chosen

    return parse


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(given: argparse.Namespace, comparison: _Comparison) -> int:
    parameters = QUICK if given.quick else DEFAULT
    if given.others:
        parameters = others.parameters(parameters)
        others.install()
    if given.rounds is not None:
        parameters = replace(parameters, rounds=given.rounds)
    rows = {each.name for each in comparison.contenders}
    names, measures = given.only or rows, given.measure or list(comparison.measures)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        wanted = [each for each in comparison.contenders if each.name in names]
        found = run(_ROOT, Path(scratch), parameters, wanted, measures)
    if given.others:
        found = replace(found, versions=found.versions | others.versions())
    table = render(found, comparison.budget)
    print(table)
    whole = {row.name for row in found.rows} == rows and set(measures) == set(comparison.measures) and not given.quick
    failed = [f"{row.name} ({failures(row):,})" for row in found.rows if failures(row)]
    _write(found, table, comparison.latest if whole and not failed else None)
    if failed:
        print(f"bench: requests failed, so these figures do not count: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _write(found: Run, table: str, latest: Path | None) -> None:
    """One file for the run; `latest` for whole and clean runs only, since it is what the docs quote."""
    text = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    name = found.date.replace(":", "") + ("-quick" if found.parameters.quick else "")
    paths = [_RESULTS / f"{name}.json", *([latest] if latest else [])]
    for path in paths:
        path.write_bytes(text)
    if latest:
        paths.append(latest.with_suffix(".md"))
        paths[-1].write_text(table)
    for path in paths:
        print(f"wrote {path.relative_to(_ROOT)}", file=sys.stderr)


def _write_docs(comparison: _Comparison) -> int:
    kept, command = comparison.latest, comparison.command
    if not kept.exists():
        raise BenchError(f"{kept.relative_to(_ROOT)} is missing: run `python -m {command}` first")
    try:
        latest = msgspec.json.decode(kept.read_bytes(), type=Run)
    except msgspec.ValidationError as error:
        raise BenchError(f"{kept.name} is no run of format {FORMAT}: run `python -m {command}` again") from error
    first = _BEGIN.format(command=command)
    before, begin, rest = _DOCS.read_text().partition(first)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BenchError(f"{_DOCS.relative_to(_ROOT)} lacks the lines {first.strip()!r} and {_END.strip()!r}")
    _DOCS.write_text(f"{before}{begin}\n{render(latest, comparison.budget)}\n{end}{after}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
