"""A real redis-server for the tests: the system's, or the one of its package, fetched and not installed.

`make test` fetches it before the tests (``python -m tests.redis_server``), so that no test's time is spent on it.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from redis import Redis as Client
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests import servers
from tests.planted import planted, search_files
from tests.ports import free_port

PASSWORD = planted("redis")
PAUSED_CLOCK = "local now = tonumber(redis.call('GET', '{sluice}:test:now'))\n"
"""For :class:`access.quotas.scripts.Scripts`: the time is what :meth:`Redis.set_clock` has set."""
PROGRAMS = ("redis-server", "valkey-server")
PACKAGE = "redis-server"
# Where there is this program, a server ends with the tests even when they are killed.
_ENDING = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
_START_SECONDS = 60.0
_TRIES = 5
_PLACE = servers.ROOT / ".cache/redis"


def program() -> servers.Program | None:
    """The system's, or the one that :func:`install` got; None where there is neither."""
    return servers.found_program(PROGRAMS, _PLACE)


def install() -> None:
    """Fetch it where the system has none, by its package manager; the system is not changed.

    Raises:
        tests.servers.ServerError: there is no such package manager, or it failed.
    """
    if program() is None:
        servers.fetch_packages([PACKAGE], _PLACE)


class Redis:
    """A server with a password on a port of its own. It can be stopped, killed and started again, at the same port."""

    def __init__(self, server: servers.Program, place: Path, *, keeps: bool) -> None:
        self._server = server
        self._place = place
        self._keeps = keeps
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for _ in range(_TRIES):
            port = self.port or free_port()
            if self._started(port):
                self.port = port
                return
            # Another program was given the port meanwhile.
        raise servers.ServerError(f"redis-server does not start:\n{self._log.read_text(errors='replace')}")

    def kill(self) -> None:
        """As a crash would: at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It stands still until :meth:`resume`: connections are taken, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> Client:
        """One that does not wait for long, and is to be closed."""
        return Client.from_url(self.url, socket_timeout=_START_SECONDS, retry=Retry(NoBackoff(), 0), protocol=2)

    def set_clock(self, seconds: float) -> None:
        """The time of scripts that go by PAUSED_CLOCK, in Unix seconds."""
        with self.client() as client:
            client.set("{sluice}:test:now", int(seconds * 1000))

    def empty(self) -> None:
        """Forget everything but the scripts."""
        with self.client() as client:
            client.flushall()

    def search(self) -> None:
        """Search its log for planted secrets."""
        search_files(self._place)

    @property
    def _log(self) -> Path:
        return self._place / "log"

    def _started(self, port: int) -> bool:
        # The password is none of its arguments, which everybody on the machine may read.
        settings = [f"port {port}", "bind 127.0.0.1", f"dir {self._place}", 'save ""', f"requirepass {PASSWORD}"]
        settings += ["appendonly yes", "appendfsync always"] if self._keeps else ["appendonly no"]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*_ENDING, self._server.path, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._place,
                env=self._server.environment,
            )
        assert process.stdin is not None
        with process.stdin as configuration:
            configuration.write("\n".join(settings).encode() + b"\n")
        deadline = time.monotonic() + _START_SECONDS
        self.port, before = port, self.port
        with self.client() as client:
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(RedisError):
                    client.ping()
                    self._process = process
                    return True
                time.sleep(0.01)
        self.port = before
        process.kill()
        process.wait()
        return False


@contextlib.contextmanager
def redis(*, keeps: bool = False) -> Iterator[Redis]:
    """A running one. ``keeps``: whether it has after a crash what it had before."""
    found = program()
    if found is None:
        raise servers.ServerError(f"no redis-server: `python -m tests.redis_server` gets it (Debian: {PACKAGE})")
    with tempfile.TemporaryDirectory(prefix="sluice-redis-") as place:
        server = Redis(found, Path(place), keeps=keeps)
        try:
            server.start()
            yield server
            server.search()
        finally:
            server.kill()


if __name__ == "__main__":
    try:
        install()
    except servers.ServerError as error:
        # On other systems than Debian's the tests that need it are skipped, and say so.
        print(f"tests: {error}", file=sys.stderr)
