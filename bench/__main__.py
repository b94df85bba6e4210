"""`python -m bench`: measure the gateway beside nginx and no proxy at all. See docs/performance.md."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import msgspec

from bench.contenders import CONTENDERS
from bench.measures import MEASURES
from bench.processes import BenchError
from bench.results import FORMAT, Run, failures
from bench.run import DEFAULT, QUICK, run
from bench.table import render

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "bench" / "results"
_LATEST = _RESULTS / "latest.json"
_LATEST_TABLE = _RESULTS / "latest.md"
_DOCS = _ROOT / "docs" / "performance.md"
_BEGIN = "<!-- begin: written by `python -m bench --write-docs` -->\n"
_END = "<!-- end -->\n"
_ROWS = tuple(each.name for each in CONTENDERS)


def main(argv: list[str] | None = None) -> int:
    """Run the command; gives the exit status: 0 done, 1 something failed, 130 interrupted."""
    given = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # What was started is stopped on the way out.
    try:
        return _write_docs() if given.write_docs else _measure(given)
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


def _measure(given: argparse.Namespace) -> int:
    parameters = QUICK if given.quick else DEFAULT
    if given.rounds is not None:
        parameters = replace(parameters, rounds=given.rounds)
    names, measures = given.only or list(_ROWS), given.measure or list(MEASURES)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        found = run(_ROOT, Path(scratch), parameters, names, measures)
    table = render(found)
    print(table)
    whole = not given.quick and {row.name for row in found.rows} == set(_ROWS) and set(measures) == set(MEASURES)
    failed = [f"{row.name} ({failures(row):,})" for row in found.rows if failures(row)]
    _write(found, table, latest=whole and not failed)
    if failed:
        print(f"bench: requests failed, so these figures do not count: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _write(found: Run, table: str, latest: bool) -> None:
    """One file for the run; `latest` follows whole and clean runs only, since it is what the docs quote."""
    text = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    name = found.date.replace(":", "") + ("-quick" if found.parameters.quick else "")
    paths = [_RESULTS / f"{name}.json", *([_LATEST] if latest else [])]
    for path in paths:
        path.write_bytes(text)
    if latest:
        _LATEST_TABLE.write_text(table)
        paths.append(_LATEST_TABLE)
    for path in paths:
        print(f"wrote {path.relative_to(_ROOT)}", file=sys.stderr)


def _write_docs() -> int:
    if not _LATEST.exists():
        raise BenchError(f"{_LATEST.relative_to(_ROOT)} is missing: run `make bench` first")
    try:
        latest = msgspec.json.decode(_LATEST.read_bytes(), type=Run)
    except msgspec.ValidationError as error:
        raise BenchError(f"{_LATEST.name} is no run of format {FORMAT}: run `make bench` again") from error
    before, begin, rest = _DOCS.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BenchError(f"{_DOCS.relative_to(_ROOT)} lacks the lines {_BEGIN.strip()!r} and {_END.strip()!r}")
    _DOCS.write_text(f"{before}{begin}\n{render(latest)}\n{end}{after}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
