"""A real gateway for tests: a process of its own, on a free port, held to a silent run and an orderly end."""

import asyncio
import hashlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import argon2

from tests.planted import place_of_secrets, planted, search

ROOT = Path(__file__).resolve().parent.parent

TOKEN = planted("token")
ADMIN_KEY = planted("admin-key")

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_ANSWER_SECONDS = 60.0
_COMMAND_SECONDS = 120.0
# What a start says that has waited two seconds for a store: on a machine that stands still for a while any may. Of a store
# that is away the log has more.
_LATE_START = "accounts cannot be read yet|tokens that the API has made cannot be read yet"
_LISTENING = re.compile(r"listening on https?://([^:\s]+):(\d+)")
# Cheap to verify: what argon2 costs is not what these tests are about.
ADMIN_KEY_HASH = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(ADMIN_KEY)


def sha256(text: str) -> str:
    """What a configuration holds of the token ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()


ACCESS = f"""\
tokens:
  - {{name: tester, sha256: {sha256(TOKEN)}, models: ["*"], endpoints: [inference, files, batches, responses]}}
management:
  admin_key_hash: "{ADMIN_KEY_HASH}"
"""
"""Who may call the gateways of the tests; the first part of each document."""


def document(text: str, access: str = ACCESS) -> str:
    """A whole configuration: ``access``, and ``text`` without its indentation."""
    return access + textwrap.dedent(text)


def put_text(path: Path, text: str) -> None:
    """Write a file as most editors do: who watches it never finds a part of ``text``, however long that takes."""
    beside = path.with_name(f".{path.name}.beside")
    beside.write_text(text)
    beside.replace(path)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer read whole."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The wire code of an error."""
        return str(self.json()["error"]["code"])


class GatewayFailure(AssertionError):
    """The process did not start, did not end, or said what no test expected."""


class Gateway:
    """A running ``python -m gateway serve``."""

    def __init__(self, process: subprocess.Popen[bytes], config: Path, place: Path, *, tls: bool = False) -> None:
        self.process = process
        self.tls = tls
        self.config = config
        self.host = "127.0.0.1"
        self.port = 0
        self._out = place / "out.log"
        self._err = place / "err.log"
        self._expected = [_LATE_START]
        self._abandoned = False

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK is pointed at."""
        return f"{self.url}/v1"

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """Everything on standard error so far."""
        return self._err.read_text(errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """The records of the gateway's own log."""
        whole, _, _ = self.err.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def access_log(self) -> list[dict[str, Any]]:
        """The lines of the access log; each line that is whole is JSON or this raises."""
        whole, _, _ = self.out.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def expect_log(self, pattern: str) -> None:
        """Records of WARNING and above that match are wanted; others fail the test at the gateway's end."""
        self._expected.append(pattern)

    def rewrite(self, text: str) -> None:
        """Give it another document: whole at once, as it may look at any moment."""
        put_text(self.config, text)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = TOKEN,
    ) -> Answer:
        """One request on a connection of its own; ``body`` other than bytes is sent as JSON."""
        fields = {} if key is None else {"authorization": f"Bearer {key}"}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            fields["content-type"] = "application/json"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_ANSWER_SECONDS)
        if self.tls:
            # Who it is is not asked here.
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=_ANSWER_SECONDS, context=context)
        try:
            connection.request(method, path, body, {**fields, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
            search(f"{answer.getheaders()}".encode() + content, f"the answer to {method} {path}")
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)
        finally:
            connection.close()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection, for clients that behave as no client library does; it is reset in the end."""
        async with connection(self.host, self.port) as both:
            yield both

    def chat(self, model: str, content: str = "Hello, Sluice!", **members: object) -> Answer:
        """A chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": content}], **members}
        return self.request("POST", "/v1/chat/completions", body)

    def management(self, method: str, path: str, key: str | None = ADMIN_KEY) -> Answer:
        """A request with the admin key."""
        return self.request(method, path, key=key)

    def metrics(self) -> str:
        """The text of ``/metrics``."""
        answer = self.management("GET", "/metrics")
        assert 200 == answer.status, answer
        return answer.body.decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called ``name`` that have ``labels``."""
        return total(self.metrics(), name, **labels)

    def settle(self) -> None:
        """Wait until the database has the configuration in force and all of the audit: edits wait for it, but not for long."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            revision = self.management("GET", "/api/v1/config").headers["etag"].strip('"')
            newest = self.management("GET", "/api/v1/config/revisions?limit=1").json()["data"]
            entries = self.management("GET", "/api/v1/audit?limit=1").json()
            if [revision] == [each["revision"] for each in newest] and not entries["waiting"]:
                return
            assert time.monotonic() < deadline, (revision, newest, entries)
            time.sleep(0.02)

    def memory_bytes(self) -> int:
        """Resident memory of the process (proc(5): the second field of statm, in pages)."""
        statm = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def workers(self) -> list[int]:
        """The ids of the processes that it has started (proc(5))."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        """The exit status, once it has ended.

        Raises:
            GatewayFailure: it has not within ``seconds``.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise GatewayFailure(f"the gateway still runs after {seconds:g} s\n{self.err}") from None

    async def ended(self, seconds: float = _STOP_SECONDS) -> int:
        """As :meth:`wait`, while the test's own tasks go on."""
        return await asyncio.to_thread(self.wait, seconds)

    def abandon(self) -> None:
        """The test has ended it in no orderly way: its exit status is not looked at."""
        self._abandoned = True

    def stop(self) -> None:
        """SIGTERM, an orderly end, and a log without surprises.

        Raises:
            GatewayFailure: it was none, or there was one.
        """
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        status = self.wait()
        loud = [
            f"{record['level']} {record['logger']}: {record['event']}\n{record.get('exception', '')}"
            for record in self.log()
            if record["level"] not in ("debug", "info")
            and not any(re.search(pattern, str(record["event"])) for pattern in self._expected)
        ]
        other = [line for line in self.err.splitlines() if line.strip() and not line.startswith("{")]
        if (status != 0 and not self._abandoned) or loud or other:
            raise GatewayFailure("\n".join([f"exit status {status}", *loud, *other]))


def total(exposition: str, name: str, **labels: str) -> float:
    """The sum of the samples called ``name`` in a text exposition that have ``labels``."""
    found = 0.0
    for line in exposition.splitlines():
        match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if match is None or match[1] != name:
            continue
        given = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
        if labels.items() <= given.items():
            found += float(match[3])
    return found


def environment(extra: Mapping[str, str] | None = None, *, measured: bool = False) -> dict[str, str]:
    """The environment that ``./sluice`` gives the program; ``measured``: without what traces it for coverage."""
    inherited = dict(os.environ)
    if measured:
        for name in [name for name in inherited if name.startswith("COVERAGE_")]:
            del inherited[name]
    return inherited | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"} | dict(extra or {})


def command(*arguments: str | Path) -> list[str]:
    """``./sluice ARGUMENTS``, in the environment of the tests."""
    return [sys.executable, "-m", "gateway", *map(str, arguments)]


def run_cli(
    *arguments: str | Path, cwd: Path, stdin: str = "", extra: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command that ends by itself."""
    run = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(extra),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )
    return run.returncode, run.stdout, run.stderr


@contextmanager
def gateway(
    text: str,
    place: Path,
    *,
    config: Path | None = None,
    extra: Mapping[str, str] | None = None,
    measured: bool = False,
    arguments: Sequence[str] | None = None,
    tls: bool = False,
) -> Iterator[Gateway]:
    """Run a gateway with the configuration ``text`` until the block is left; its files are in ``place``.

    ``config`` is a file that exists already, to be used instead of one with ``text``; ``extra`` and ``measured`` are
    those of :func:`environment`. With ``arguments`` the command line is these alone, and nothing is written before.

    Raises:
        GatewayFailure: it did not become ready; or, at the end, see :meth:`Gateway.stop`.
    """
    place.mkdir(parents=True, exist_ok=True)
    if config is None:
        config = place / "config.yaml"
        if arguments is None:
            config.write_text(text)
    place_of_secrets(config)
    if arguments is None:
        arguments = ("serve", "--config", str(config), "--listen", "127.0.0.1:0")
    with (place / "out.log").open("wb") as out, (place / "err.log").open("wb") as err:
        process = subprocess.Popen(
            command(*arguments),
            cwd=place,
            env=environment(extra, measured=measured),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    running = Gateway(process, config, place, tls=tls)
    try:
        _await_ready(running)
        yield running
        running.stop()
    finally:
        if process.poll() is None:
            # Not by its own end: a test failed, or is about to. Workers end when their supervisor is gone.
            process.kill()
            process.wait()


def _await_ready(running: Gateway) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise GatewayFailure(f"exit status {running.process.returncode}\n{running.out}{running.err}")
        if running.port == 0 and (found := _LISTENING.search(running.err)):
            running.host, running.port = found[1], int(found[2])
        if running.port and _ready(running):
            return
        time.sleep(0.02)
    raise GatewayFailure(f"not ready within {_START_SECONDS:g} s\n{running.err}")


def _ready(running: Gateway) -> bool:
    try:
        return running.request("GET", "/readyz", key=None).status == 200
    except OSError:
        return False


@asynccontextmanager
async def connection(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection that is reset in the end, whatever it still had to write."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until(condition: Callable[[], object], seconds: float = 60.0, what: str = "it") -> float:
    """Wait until ``condition()`` holds; gives the seconds that it took.

    Raises:
        AssertionError: it did not within ``seconds``.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, f"{what} did not come about within {seconds:g} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began
