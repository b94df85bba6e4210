"""Makes a virtual environment from a lock: ``environment.py VENV LOCK``. Standard library only; called by tools/environment.

Always from scratch, so that nothing of an older lock stays behind. Safe when two start at once (the second waits and
finds it made) and when interrupted (the stamp comes last; without it the next start begins again).
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import IO

_STAMP = "installed.txt"
# Without a terminal a line is printed for so many packages.
_TOLD_EVERY = 10


def main(place: Path, lock: Path) -> int:
    """Make ``place`` hold exactly ``lock``; the exit status. Progress goes to standard error."""
    signal.signal(signal.SIGTERM, _terminated)
    with place.with_name(f"{place.name}.lock").open("w") as mutex:
        _wait_for_turn(mutex, place)
        if _is_made(place, lock):
            return 0
        _say(
            f"installing {lock.name} into {place.name} with Python {sys.version.split()[0]}: once, and when the lock changes"
        )
        shutil.rmtree(place, ignore_errors=True)
        venv.EnvBuilder(with_pip=True).create(place)
        status = _install(place, lock)
        if status != 0:
            _say(f"the installation into {place.name} failed: see pip's message above; the next start tries again")
            return status
        # Written beside and moved: a stamp is whole or not there.
        shutil.copyfile(lock, place / f"{_STAMP}.new")
        (place / f"{_STAMP}.new").replace(place / _STAMP)
        return 0


def _wait_for_turn(mutex: IO[str], place: Path) -> None:
    # Held until this process and the pip that it starts have both ended, also when this one is killed outright:
    # flock(2) belongs to the open file, which pip inherits.
    os.set_inheritable(mutex.fileno(), True)
    try:
        fcntl.flock(mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"another process is making {place.name}; waiting for it")
        fcntl.flock(mutex, fcntl.LOCK_EX)


def _is_made(place: Path, lock: Path) -> bool:
    stamp = place / _STAMP
    return stamp.is_file() and stamp.read_bytes() == lock.read_bytes() and os.access(place / "bin/python", os.X_OK)


def _install(place: Path, lock: Path) -> int:
    # --no-deps: the lock is complete, and what it does not name is not installed.
    # --only-binary: a missing wheel is said at once, instead of by a compiler half an hour later.
    command: list[str | Path] = [place / "bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement", lock]
    # A requirement begins its line; its hashes are indented below it.
    total = sum(line[:1].isalnum() for line in lock.read_text(encoding="utf-8").splitlines())
    # Pip's errors go to standard error by themselves. What it says of each package is counted, not shown.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", close_fds=False) as pip:
        try:
            assert pip.stdout is not None
            _show_progress(pip.stdout, total)
            return pip.wait()
        except BaseException:
            pip.terminate()
            raise


def _show_progress(lines: Iterable[str], total: int) -> None:
    """Tell how far pip is. On standard error: standard output is the next command's (`./sluice schema > file`)."""
    on_terminal = sys.stderr.isatty()
    collected = 0
    for line in lines:
        if line.startswith("Ignoring "):
            # The lock has it for another system or version of Python.
            total -= 1
        elif line.startswith(("Collecting ", "Processing ")):
            collected += 1
            text = f"sluice: downloading: {collected} of {total} packages"
            if on_terminal:
                print(f"\r{text}", end="", file=sys.stderr, flush=True)
            elif collected == total or collected % _TOLD_EVERY == 0:
                print(text, file=sys.stderr, flush=True)
        elif line.startswith("Installing collected packages"):
            if on_terminal and collected:
                print(file=sys.stderr)
            _say(f"unpacking {total} packages; this takes a few seconds")
    if on_terminal and collected < total:
        # It ended in the middle: pip's message begins on a line of its own.
        print(file=sys.stderr)


def _terminated(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that pip is ended on the way out.
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    print(f"sluice: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # A full disk, a directory that is not ours: what the system says is what there is to mend.
        sys.exit(f"sluice: the environment could not be made: {error}")
