"""Runs all tests in sessions of pytest, two side by side: ``run_tests.py [PYTEST OPTIONS]``.

Most of what tests/integration and tests/e2e take is waiting, for clocks and other processes. The rest computes: it runs
beside them, with what of the processors they leave (nice), so that their clocks stay true; and with it those of
tests/integration whose clocks are wide. Its output follows the others'.

Coverage is measured, which more than doubles what computing takes. Tests that go over the same lines thousands of times, as
those of properties and of the whole table of routes do, come in a session without it, and the bars do not count them.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TESTS = Path("tests")
_WAITING = (_TESTS / "integration", _TESTS / "e2e")
_WIDE_CLOCKS = (
    "config",
    "ctl",
    "doctor",
    "entries",
    "known_holes",
    "quotas",
    "schemathesis",
    "storage",
    "web",
    "webhooks",
)
"""`tests/integration/test_NAME*.py` that go beside."""
_UNMEASURED = (
    *(
        _TESTS / f"property/test_{name}.py"
        for name in ("body", "http1_chunking", "quotas", "relay", "routing", "tries")
    ),
    _TESTS / "conformance",
    _TESTS / "unit/management/test_routes.py",
    _TESTS / "integration/test_schemathesis.py",
)
"""Of those that go beside."""
_NICE = 19
_PYTEST = (sys.executable, "-m", "pytest")
_MEASURED = (sys.executable, "-m", "coverage", "run", "-m", "pytest")
# Each session its own: they would overwrite what the other has noted.
_OWN_CACHE = ("-o", "cache_dir=.pytest_cache/beside")
# Where no test is collected, as options may ask for some of one session alone.
_NOTHING_COLLECTED = 5


def sessions() -> tuple[list[str], list[str], list[str]]:
    """What each session is told to run: those that wait, those beside them, and of these the ones that are not measured.
    Every test is in one of them."""
    wide = sorted({path for name in _WIDE_CLOCKS for path in _WAITING[0].glob(f"test_{name}*.py")})
    others = sorted(
        path
        for path in _TESTS.iterdir()
        if path not in _WAITING and (path.match("test_*.py") or (path.is_dir() and any(path.rglob("test_*.py"))))
    )
    waiting = [*map(str, _WAITING), *(f"--ignore={path}" for path in wide)]
    unmeasured = [str(path) for path in _UNMEASURED]
    beside = [path for path in map(str, (*others, *wide)) if path not in unmeasured]
    return waiting, [*beside, *(f"--ignore={path}" for path in unmeasured)], unmeasured


def main(options: list[str]) -> int:
    """The worst exit status of all."""
    os.chdir(ROOT)
    waiting, beside, unmeasured = sessions()
    with tempfile.TemporaryFile() as output, ThreadPoolExecutor(1) as thread:

        def run_beside() -> set[int]:
            return {
                subprocess.run(
                    ["nice", "-n", f"{_NICE}", *command, *_OWN_CACHE, *options],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                ).returncode
                for command in ((*_PYTEST, *unmeasured), (*_MEASURED, *beside))
            }

        running = thread.submit(run_beside)
        statuses = {subprocess.run([*_MEASURED, *waiting, *options], check=False).returncode, *running.result()}
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return max(map(abs, statuses - {_NOTHING_COLLECTED}), default=_NOTHING_COLLECTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
