"""Runs all tests in sessions of pytest, two side by side: ``run_tests.py [PYTEST OPTIONS]``.

Most of what tests/integration and tests/e2e take is waiting, for clocks and other processes. The rest computes: it runs
beside them, with what of the processors they leave (nice), so that their clocks stay true; and with it those of
tests/integration whose clocks are wide. Its output follows the others'.

Coverage is measured, which more than doubles what computing takes. Tests that go over the same lines thousands of times, as
those of properties and of the whole table of routes do, come in a session without it, and the bars do not count them.

Two sessions on two cores starve each other at times, more so where others use the machine too. One to three tests that have
failed are run again when all else has ended: a test that then passes three times in a row was starved, and is named as such
in the last lines, for somebody to mend its clock; one that fails once more has failed. Nothing else is ever run twice.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

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
_CACHES = Path(".pytest_cache")
"""Each session has its own below it: they would overwrite what the others have noted."""
# Where no test is collected, as options may ask for some of one session alone.
_NOTHING_COLLECTED = 5
_TESTS_FAILED = 1
_STARVED_AT_MOST = 3
"""More than these are no accident."""
_PASSES = 3


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


def failed(caches: Path) -> list[str]:
    """The tests that failed in the sessions whose caches are in this directory, by their ids."""
    noted = sorted(caches.glob("*/v/cache/lastfailed"))
    return [test for file in noted for test in json.loads(file.read_text("utf-8"))]


def starved(tests: list[str], options: list[str]) -> bool:
    """Whether these few that have failed pass three times in a row with the machine to themselves."""
    if not 0 < len(tests) <= _STARVED_AT_MOST:
        return False
    for _ in range(_PASSES):
        if _session("again", [*_PYTEST, *tests, *options]):
            return False
    print("\nFailed beside the others, passed three times alone; how fast the machine is must not matter to them:")
    print("\n".join(f"    {test}" for test in tests), flush=True)
    return True


def _session(name: str, command: list[str], output: IO[bytes] | None = None) -> int:
    """Its exit status."""
    own_cache = ["-o", f"cache_dir={_CACHES / name}"]
    done = subprocess.run([*command, *own_cache], stdout=output, stderr=output and subprocess.STDOUT, check=False)
    return abs(done.returncode)


def main(options: list[str]) -> int:
    """The worst exit status of all; 0 where tests have failed that were starved."""
    os.chdir(ROOT)
    # What is there of earlier runs would be run again.
    shutil.rmtree(_CACHES, ignore_errors=True)
    waiting, beside, unmeasured = sessions()
    with tempfile.TemporaryFile() as output, ThreadPoolExecutor(1) as thread:

        def run_beside() -> set[int]:
            nice = ["nice", "-n", f"{_NICE}"]
            return {
                _session("unmeasured", [*nice, *_PYTEST, *unmeasured, *options], output),
                _session("beside", [*nice, *_MEASURED, *beside, *options], output),
            }

        running = thread.submit(run_beside)
        statuses = {_session("waiting", [*_MEASURED, *waiting, *options]), *running.result()}
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    status = max(statuses - {_NOTHING_COLLECTED}, default=_NOTHING_COLLECTED)
    # Any other status (a session that was ended, or broke) is not told of by a test.
    return 0 if status == _TESTS_FAILED and starved(failed(_CACHES), options) else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
