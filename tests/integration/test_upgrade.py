"""An upgrade: a new process takes the listening sockets, the old one drains, and nobody notices; or nothing changes."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from core.clock import SystemClock
from gateway.runs import RUNTIME_DIR, RunRecord, RuntimeFolder
from gateway.upgrade import UpgradeFailed, request_upgrade
from tests.gateway_process import ROOT, Gateway, run_cli, until
from tests.integration.conftest import StartGateway
from tests.ports import free_port
from tests.provider import Call, provider

CONFIG = """
    server: {{drain_seconds: 120, workers: {workers}}}
    providers: [{{name: echo, type: echo}}]
"""
SECONDS = 60.0

StartHere = Callable[..., Gateway]


@pytest.fixture
def folder(tmp_path: Path) -> RuntimeFolder:
    return RuntimeFolder({RUNTIME_DIR: str(tmp_path / "run")})


@pytest.fixture
def start(start_gateway: StartGateway, folder: RuntimeFolder) -> Iterator[StartHere]:
    """Starts a gateway with so many workers; the processes that take its place are ended before it is looked at."""

    def start(workers: int = 1, text: str = CONFIG, path: str = str(ROOT), **options: object) -> Gateway:
        extra = {RUNTIME_DIR: str(folder.path), "PYTHONPATH": path}
        gateway = start_gateway(text.format(workers=workers), extra=extra, **options)
        # One of several workers may be ready before the gateway as a whole is.
        deadline = time.monotonic() + SECONDS
        while gateway.process.pid not in [record.pid for record in folder.running()]:
            assert time.monotonic() < deadline, gateway.err
            time.sleep(0.02)
        return gateway

    yield start
    deadline = time.monotonic() + SECONDS
    while left := folder.running():
        assert time.monotonic() < deadline, f"still there: {left}"
        for record in left:
            # Asked again, it waits for nothing.
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)
        time.sleep(0.2)


def upgrade(gateway: Gateway, folder: RuntimeFolder, *arguments: str) -> tuple[int, str, str]:
    """``./sluice upgrade`` for ``gateway``: exit status, output and errors."""
    chosen = arguments or ("--config", str(gateway.config))
    return run_cli("upgrade", *chosen, cwd=gateway.config.parent, extra={RUNTIME_DIR: str(folder.path)})


def succeed(gateway: Gateway, folder: RuntimeFolder, pid: int | None = None) -> None:
    """What that command does, without the second that it takes to start."""
    request_upgrade(folder, gateway.config, pid, SystemClock())


def refused(gateway: Gateway, folder: RuntimeFolder) -> str:
    """The same, where it fails: why."""
    with pytest.raises(UpgradeFailed) as failure:
        succeed(gateway, folder)
    return str(failure.value)


def serving(folder: RuntimeFolder) -> RunRecord:
    """The one gateway that is not on its way out."""
    (record,) = (record for record in folder.running() if record.successor is None)
    return record


STREAMED = """
    server: {{drain_seconds: 120, drain_delay_seconds: 120, workers: {workers}}}
    providers:
    - {{name: echo, type: echo}}
    - {{name: held, type: openai-compatible, base_url: 'http://127.0.0.1:PORT/v1', models: [m]}}
"""
STREAM = {"model": "held/m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stream_goes_on_while_another_process_serves(
    start: StartHere, folder: RuntimeFolder, http: aiohttp.ClientSession, workers: int
) -> None:
    released, finished = asyncio.Event(), asyncio.Event()
    statuses: list[int] = []

    async def behave(call: Call) -> None:
        if call.method == "GET":
            await call.answer({"object": "list", "data": []})
            return
        await call.stream()
        await call.event("first")
        await released.wait()
        await call.event("last")
        await call.end()

    def ask() -> None:
        while not finished.is_set():
            statuses.append(gateway.request("GET", "/v1/models").status)
            time.sleep(0.01)

    async def asked(more: int) -> None:
        enough = len(statuses) + more
        await until(lambda: len(statuses) >= enough)

    def is_draining() -> bool:
        draining: bool = gateway.management("GET", "/api/v1/health").json()["draining"]
        return draining

    async with provider(behave) as held:
        text = STREAMED.replace("PORT", str(held.port))
        gateway = await asyncio.to_thread(start, workers, text)
        old = gateway.process.pid
        assert old == serving(folder).pid
        with ThreadPoolExecutor(4) as threads:
            async with http.post(f"{gateway.base_url}/chat/completions", json=STREAM) as answer:
                received = await answer.content.readuntil(b"\n\n")
                asking = [asyncio.wrap_future(threads.submit(ask)) for _ in range(4)]
                await asked(20)
                status, out, err = await asyncio.to_thread(upgrade, gateway, folder)
                assert (0, "") == (status, err)
                new = serving(folder).pid
                assert f"process {new} serves; process {old} ends when its requests in flight have\n" == out
                assert new != old
                await until(lambda: "stopping" in gateway.err)
                # Soon the old one takes nothing new: what is asked then is the new one's.
                others = 0
                async with asyncio.timeout(SECONDS):
                    while others < 20:
                        others = 0 if await asyncio.to_thread(is_draining) else others + 1
                await asked(20)
                assert gateway.process.poll() is None
                released.set()
                received += await answer.read()
            finished.set()
            await asyncio.gather(*asking)
        assert received.endswith(b"data: [DONE]\n\n")
        assert b"first" in received
        assert b"last" in received
        assert {200} == set(statuses)
        # No load balancer has to take notice, so there is no delay; and the drain does not wait for its end.
        assert 0 == await gateway.ended(SECONDS)
    assert 200 == gateway.request("GET", "/v1/models").status
    assert [new] == [record.pid for record in folder.running()]


def test_a_successor_has_successors(start: StartHere, folder: RuntimeFolder) -> None:
    gateway = start()
    pids = [gateway.process.pid]
    for _ in range(2):
        succeed(gateway, folder, pids[-1])
        pids.append(serving(folder).pid)
        assert 200 == gateway.request("GET", "/readyz", key=None).status
    assert 3 == len(set(pids))
    assert 0 == gateway.wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_configuration_leaves_the_old_process_in_service(
    start: StartHere, folder: RuntimeFolder, workers: int
) -> None:
    gateway = start(workers)
    gateway.expect_log("configuration refused|the configuration in force stays|the upgrade failed")
    with gateway.config.open("a") as file:
        file.write("bogus: 1\n")
    status, out, err = upgrade(gateway, folder)
    assert (1, "") == (status, out)
    assert f"sluice: process {gateway.process.pid} serves on: " in err
    assert "unknown key `bogus`" in err
    assert 200 == gateway.request("GET", "/v1/models").status
    assert gateway.process.pid == serving(folder).pid
    (failed,) = (record for record in gateway.log() if "the upgrade failed" in record["event"])
    assert "error" == failed["level"]
    assert "unknown key `bogus`" in failed["event"]


def test_a_successor_that_dies_leaves_the_old_process_in_service(
    start: StartHere, folder: RuntimeFolder, tmp_path: Path
) -> None:
    gateway = start(path=f"{tmp_path}:{ROOT}")
    gateway.expect_log("the upgrade failed")
    # Python imports it before anything else.
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif '--inherited' in sys.orig_argv: os._exit(7)\n")
    why = refused(gateway, folder)
    assert re.search(r"serves on: process \d+ ended with status 7 before it was ready", why)
    assert 200 == gateway.request("GET", "/v1/models").status
    # The next try has a better end.
    (tmp_path / "sitecustomize.py").unlink()
    succeed(gateway, folder)
    assert 0 == gateway.wait()


def test_an_address_that_has_changed_is_bound_anew(start: StartHere, folder: RuntimeFolder) -> None:
    address = f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        gateway = start(text=CONFIG + "    management: {{listen: '127.0.0.1:0'}}\n", access="")
        gateway.expect_log("`management.listen` has changed|the upgrade failed")
        text = gateway.config.read_text()
        gateway.config.write_text(text.replace("127.0.0.1:0", address))
        assert f"cannot listen on {address}: Address already in use" in refused(gateway, folder)
        assert 200 == gateway.request("GET", "/readyz", key=None).status
    succeed(gateway, folder)
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
        pass
    assert 200 == gateway.request("GET", "/readyz", key=None).status


def test_an_upgrade_that_a_stop_overtakes_leaves_nothing(start: StartHere, folder: RuntimeFolder) -> None:
    gateway = start(
        text="""
        server: {{drain_seconds: 1}}
        providers: [{{name: echo, type: echo}}]
    """
    )
    gateway.expect_log("the upgrade failed.*(told to stop|is stopping)")
    gateway.signal(signal.SIGUSR2)
    gateway.signal(signal.SIGTERM)
    assert 0 == gateway.wait()
    # A successor that was just being started has the sockets until its own end.
    deadline = time.monotonic() + SECONDS
    while not is_refused(gateway):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [] == folder.running()


def is_refused(gateway: Gateway) -> bool:
    try:
        socket.create_connection((gateway.host, gateway.port), SECONDS).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it waited for whoever has ended meanwhile
    return False


def test_who_is_not_there_cannot_be_upgraded(tmp_path: Path, folder: RuntimeFolder) -> None:
    status, out, err = run_cli("upgrade", cwd=tmp_path, extra={RUNTIME_DIR: str(folder.path)})
    assert (1, "") == (status, out)
    assert f"sluice: no gateway of yours serves {tmp_path}/config.yaml; those that run: none\n" == err


def test_several_of_one_configuration_are_told_apart(start: StartHere, folder: RuntimeFolder) -> None:
    one = start()
    other = start(config=one.config)
    status, _, err = upgrade(one, folder)
    assert 1 == status
    assert f"several gateways serve {one.config}: choose one with --pid" in err
    assert f"{other.process.pid} on 127.0.0.1:{other.port}" in err
    succeed(one, folder, one.process.pid)
    assert 0 == one.wait()
    assert other.process.poll() is None


async def test_the_banner_is_printed_once(start: StartHere, folder: RuntimeFolder, tmp_path: Path) -> None:
    place = tmp_path / "gateway-1"
    arguments = ("serve", "--banner", "--listen", "127.0.0.1:0")
    gateway = start(arguments=arguments, config=place / "config.yaml", text="")
    await asyncio.to_thread(succeed, gateway, folder)
    assert 0 == await gateway.ended()
    assert 1 == gateway.out.count("Sluice listens on")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_that_can_keep_no_record_serves_all_the_same(
    start_gateway: StartGateway, tmp_path: Path, workers: int
) -> None:
    nowhere = tmp_path / "nowhere" / "run"
    gateway = start_gateway(CONFIG.format(workers=workers), extra={RUNTIME_DIR: str(nowhere)})
    assert 200 == gateway.request("GET", "/v1/models").status
    assert "`./sluice upgrade` will not find it: [Errno 2] No such file or directory" in gateway.err
    # A signal finds it.
    os.kill(gateway.process.pid, signal.SIGUSR2)
    found = None
    deadline = time.monotonic() + SECONDS
    while found is None:
        assert time.monotonic() < deadline, gateway.err
        time.sleep(0.05)
        found = re.search(r"process (\d+) serves from now on", gateway.err)
    assert 0 == gateway.wait()
    assert 200 == gateway.request("GET", "/v1/models").status
    os.kill(int(found[1]), signal.SIGTERM)
    deadline = time.monotonic() + SECONDS
    # Each worker says so, too.
    while gateway.err.count('"stopped"') < 2 * workers:
        assert time.monotonic() < deadline, gateway.err
        time.sleep(0.02)
