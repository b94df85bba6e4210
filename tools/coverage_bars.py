"""Holds the coverage of each package against its bar: ``coverage_bars.py REPORT.json`` (of `coverage json`).

Lines and branches are two bars: the combined figure of `coverage report` would let one make up for the other.
"""

import json
import sys
from pathlib import Path

BAR_PERCENT = 95.0
BARRED = ("core", "routing", "config", "access", "credentials", "proxy", "management")
_SUMMED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def main(report: Path) -> int:
    """Print a line for each package; 1 when a barred one is below its bar or was not measured at all."""
    counts: dict[str, dict[str, int]] = {}
    for name, entry in json.loads(report.read_text())["files"].items():
        sums = counts.setdefault(Path(name).parts[0], dict.fromkeys(_SUMMED, 0))
        for key in _SUMMED:
            sums[key] += entry["summary"][key]
    print(f"{'coverage':<12} {'lines':>8} {'branches':>9}   bar")
    low = sorted(set(BARRED) - counts.keys())
    for package, count in sorted(counts.items()):
        lines = _percent(count["covered_lines"], count["num_statements"])
        branches = _percent(count["covered_branches"], count["num_branches"])
        bar = f"{BAR_PERCENT:.0f}" if package in BARRED else "none"
        print(f"{package:<12} {lines:>7.1f}% {branches:>8.1f}%   {bar}")
        if package in BARRED and min(lines, branches) < BAR_PERCENT:
            low.append(package)
    if low:
        print(f"below the bar of {BAR_PERCENT:.0f} % of lines and of branches: {', '.join(low)}", file=sys.stderr)
        print("what is missing: .venv-dev/bin/python -m coverage report", file=sys.stderr)
    return 1 if low else 0


def _percent(covered: int, of: int) -> float:
    return 100.0 * covered / of if of else 100.0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
