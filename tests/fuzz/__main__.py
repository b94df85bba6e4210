"""`make fuzz`: each target for its share of FUZZ_SECONDS (60), by atheris (https://github.com/google/atheris).

::

    python -m tests.fuzz                      all targets; status 1 when one finds something
    python -m tests.fuzz TARGET FILE...       feed what was found once more

What has been reached is kept in .cache/fuzz/TARGET/reached, from which the next run begins.
"""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache/fuzz"
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
# libFuzzer's: of an input; of one run of it; of the process.
MAX_INPUT_BYTES = 4096
MAX_RUN_SECONDS = 10
MAX_MEMORY_MIB = 1024
_DONE = re.compile(r"Done (\d+) runs in")


def main(arguments: list[str]) -> int:
    """The exit status: 0 when nothing was found."""
    if arguments:
        name, *files = arguments
        if name not in TARGETS or not files:
            print(f"usage: python -m tests.fuzz [{'|'.join(TARGETS)} FILE...]", file=sys.stderr)
            return 2
        for file in files:
            TARGETS[name].run(Path(file).read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        print(
            "make fuzz: atheris is not installed: it has no package for this system (Linux on x86-64 has)",
            file=sys.stderr,
        )
        return 2
    found = [name for name in TARGETS if not fuzz(name, SECONDS / len(TARGETS))]
    return 1 if found else 0


def fuzz(name: str, seconds: float) -> bool:
    """Whether ``seconds`` of a target have found nothing; prints what happened."""
    place = PLACE / name
    reached, seeds, artifacts = place / "reached", place / "seeds", place / "found"
    for directory in (reached, seeds, artifacts):
        directory.mkdir(parents=True, exist_ok=True)
    for data in TARGETS[name].seeds():
        (seeds / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    before = set(artifacts.iterdir())
    command = [
        *(sys.executable, "-m", "tests.fuzz.process", name, str(reached), str(seeds)),
        f"-max_total_time={max(round(seconds), 1)}",
        f"-artifact_prefix={artifacts}/",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={MAX_RUN_SECONDS}",
        f"-rss_limit_mb={MAX_MEMORY_MIB}",
        "-print_final_stats=0",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    done = _DONE.search(run.stderr)
    if run.returncode == 0 and done:
        print(f"{name:<18} {done[1]:>9} inputs in {seconds:.0f} s, nothing found", flush=True)
        return True
    # Without libFuzzer's lines of progress.
    told = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith(("#", "INFO:"))]
    print("\n".join(told), file=sys.stderr)
    print(f"{name:<18} FAILED (status {run.returncode})", file=sys.stderr)
    for file in sorted(set(artifacts.iterdir()) - before):
        path = file.relative_to(ROOT)
        print(f"reproducer: {path}\n  .venv-dev/bin/python -m tests.fuzz {name} {path}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
