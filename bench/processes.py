"""Processes of a run: pinned to cores, accounted with all their children, and gone at the end whatever happens."""

import os
import resource
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_STOP_SECONDS = 5.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """The run cannot go on; the text says why and what to do."""


class Process:
    """A started program with its children."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], errors: Path) -> None:
        self.name = name
        self._popen = popen
        self._errors = errors

    def require_alive(self) -> None:
        """Raise BenchError with the end of its standard error if it has ended."""
        status = self._popen.poll()
        if status is not None:
            raise BenchError(f"{self.name} ended with status {status}:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        lines = self._errors.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-20:]) or "    (nothing on standard error)"

    def first_line(self) -> str:
        """Wait for the first line of standard output (started with ``piped``)."""
        line = self._popen.stdout.readline().decode().strip() if self._popen.stdout else ""
        if not line:
            self._popen.wait(_STOP_SECONDS)
            self.require_alive()
        return line

    def cpu_seconds(self) -> float:
        """User and system time so far, with all living children."""
        return sum(_cpu_seconds(pid) for pid in self._tree())

    def memory_bytes(self) -> int:
        """Resident memory now, with all living children (pages that they share count for each)."""
        return sum(_resident_bytes(pid) for pid in self._tree())

    def cpu_seconds_by_process(self) -> dict[int, float]:
        """The same for each of them, by process id."""
        return {pid: _cpu_seconds(pid) for pid in self._tree()}

    def forget_peak_memory(self) -> bool:
        """Let :meth:`peak_memory_bytes` begin anew; False where the system cannot (proc_pid_clear_refs(5))."""
        try:
            for pid in self._tree():
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def peak_memory_bytes(self) -> int:
        """The most resident memory that each of them has had, added up."""
        return sum(_peak_bytes(pid) for pid in self._tree())

    def connections(self, port: int) -> dict[int, int]:
        """How many established connections to its local TCP port each of them holds; those without are left out."""
        sockets = _established(port)
        held = {pid: len(sockets & _open_sockets(pid)) for pid in self._tree()}
        return {pid: count for pid, count in held.items() if count}

    @contextmanager
    def placed_on(self, cores: Iterable[int]) -> Iterator[None]:
        """Let it run on ``cores`` until the block ends, whatever it was started on."""
        threads = [int(each.name) for pid in self._tree() for each in Path(f"/proc/{pid}/task").iterdir()]
        before = {thread: os.sched_getaffinity(thread) for thread in threads}
        try:
            for thread in threads:
                os.sched_setaffinity(thread, cores)
            yield
        finally:
            for thread, own in before.items():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, own)

    def stop(self) -> None:
        """Ask it and its children to end; after five seconds, make them."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_STOP_SECONDS)
        self._signal(signal.SIGKILL)  # Also for children that outlived their parent.
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def _tree(self) -> list[int]:
        parents = _parents()
        tree = [self._popen.pid]
        for pid in tree:  # Grows as it is walked.
            tree += [child for child, parent in parents.items() if parent == pid]
        return tree


@contextmanager
def started(
    name: str,
    argv: Sequence[str],
    cores: Iterable[int],
    root: Path,
    scratch: Path,
    env: dict[str, str],
    piped: bool = False,
) -> Iterator[Process]:
    """Run ``argv`` on ``cores`` from ``root`` with exactly the environment ``env``.

    Standard error goes to a file of ``scratch``. With ``piped``, standard input is a pipe that ends with this process
    and standard output can be read; else output is thrown away, so that no disk is measured.
    """
    errors = scratch / f"{name}.stderr"
    with errors.open("wb") as stderr:
        try:
            popen = subprocess.Popen(
                [*_placed(cores), *argv],
                cwd=root,
                env=env,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C reaches the bench alone, which then stops everything in order.
            )
        except OSError as error:
            raise BenchError(f"{name} cannot be started: {error}") from error
    process = Process(name, popen, errors)
    try:
        yield process
    finally:
        process.stop()


def _placed(cores: Iterable[int]) -> list[str]:
    """What goes before a command (both of util-linux): it runs on ``cores`` and ends with us even if we are killed."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", ",".join(map(str, cores))]


def raise_open_files() -> int:
    """Allow this process and its children as many open files as the system permits; gives that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def busy_seconds() -> float:
    """CPU time that all cores of the machine have spent on anything but idling, since boot."""
    # user nice system idle iowait irq softirq steal: proc_stat(5).
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS_PER_SECOND


def _stat(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) from the state on; the name before them may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _parents() -> dict[int, int]:
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return {pid: int(stat[1]) for pid, stat in stats.items() if stat}


def _cpu_seconds(pid: int) -> float:
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / _TICKS_PER_SECOND if stat else 0.0


def _resident_bytes(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[21]) * _PAGE_BYTES if stat else 0


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _established(port: int) -> set[str]:
    """The sockets on this side of the connections to a local port, as :func:`_open_sockets` names them."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        # Number, local address, peer's address, state (1: established) …, inode: proc_pid_net(5).
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
            found.add(f"socket:[{fields[9]}]")
    return found


def _open_sockets(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # Closed meanwhile.
            found.add(str(entry.readlink()))
    return found
