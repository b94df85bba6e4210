"""The facts that a result needs to be read later: processor, system, versions, revision. No name of the machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from bench.contenders import program
from bench.processes import BenchError
from bench.results import Cores, Machine

_PACKAGES = ("tornado", "httptools", "uvloop", "msgspec", "prometheus-client")
_RESULTS = (":!bench/results", ":!docs/performance.md")


def machine() -> Machine:
    """Processor, number of cores, distribution, kernel."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return Machine(cpu, os.cpu_count() or 1, system, platform.release().partition("-")[0])


def cores() -> Cores:
    """One core for the proxy (two for two workers), the others for the load. Raises BenchError with fewer than two."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError("the bench needs two cores: one for the proxy alone, one for the load and the mock provider")
    return Cores(
        proxy=usable[0],
        upstream=usable[1],
        client=usable[2] if len(usable) > 2 else usable[1],
        workers=(usable[0], usable[3] if len(usable) > 3 else usable[1]),
    )


def versions() -> dict[str, str]:
    """Of Python, the packages that matter for speed, nginx and wrk; what is missing is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if path := program("nginx"):
        found["nginx"] = _output([path, "-v"]).rpartition("/")[2]
    if path := program("wrk"):
        found["wrk"] = _output([path, "-v"]).split("[")[0].removeprefix("wrk ").strip()
    return found


def revision(root: Path) -> tuple[str, bool]:
    """The commit that is checked out, and whether the working tree differs from it (results aside)."""
    commit = _output(["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"], errors=subprocess.DEVNULL)
    listing = ["git", "-C", str(root), "status", "--porcelain", "--", ".", *_RESULTS]
    changes = _output(listing, errors=subprocess.DEVNULL)
    return commit or "none", bool(changes)


def _output(argv: list[str], errors: int = subprocess.STDOUT) -> str:
    """What the program prints, also as errors unless these go elsewhere; empty when it cannot be run."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=errors, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace").strip()
