"""Runs all tests in two sessions of pytest side by side, measured by coverage: ``run_tests.py [PYTEST OPTIONS]``.

Most of what tests/integration and tests/e2e take is waiting, for clocks and other processes. The rest computes: it runs
beside them, with what of the processors they leave (nice), so that their clocks stay true; and with it those of
tests/integration whose clocks are wide. Its output follows the others'.
"""

import os
import subprocess
import sys
import tempfile
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
_NICE = 19
_PYTEST = (sys.executable, "-m", "coverage", "run", "-m", "pytest")
# Each session its own: they would overwrite what the other has noted.
_OWN_CACHE = ("-o", "cache_dir=.pytest_cache/beside")
# Where no test is collected, as options may ask for some of one session alone.
_NOTHING_COLLECTED = 5


def sessions() -> tuple[list[str], list[str]]:
    """What each session is told to run: those that wait, those beside them. No test is in both, or in neither."""
    wide = sorted({path for name in _WIDE_CLOCKS for path in _WAITING[0].glob(f"test_{name}*.py")})
    others = sorted(
        path
        for path in _TESTS.iterdir()
        if path not in _WAITING and (path.match("test_*.py") or (path.is_dir() and any(path.rglob("test_*.py"))))
    )
    waiting = [*map(str, _WAITING), *(f"--ignore={path}" for path in wide)]
    return waiting, [str(path) for path in (*others, *wide)]


def main(options: list[str]) -> int:
    """The worse exit status of the two."""
    os.chdir(ROOT)
    waiting, beside = sessions()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*_PYTEST, *_OWN_CACHE, *beside, *options], stdout=output, stderr=subprocess.STDOUT)
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        try:
            statuses = {subprocess.run([*_PYTEST, *waiting, *options], check=False).returncode, process.wait()}
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return max(map(abs, statuses - {_NOTHING_COLLECTED}), default=_NOTHING_COLLECTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
