"""Calls to Vault where none answers: bounded in time, and told without what was sent."""

import gzip
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3.exceptions

from config.schema import ClientTls, Vault
from config.vault.answers import Answer, Asked, Limit
from config.vault.calls import _MOST_AT_ONCE, Calls
from config.vault.connections import Wire, _Connection
from config.vault.errors import VaultFault, VaultUnavailable
from config.vault.settings import VaultSettings
from core.clock import ManualClock, SystemClock
from tests.vault_http import AUTHORITY, server_tls

_ASKED = Asked("secret/data/x")


def _calls(**config: Any) -> Calls:
    config = {"address": "http://127.0.0.1:9", "timeout_seconds": 30.0, **config}
    return Calls(VaultSettings(Vault(**config), Path("/nowhere")), SystemClock())


def _limit(seconds: float = 60) -> Limit:
    return Limit(SystemClock(), seconds)


def _look_up(calls: Calls, token: str = "hvs.x") -> Any:
    return calls.client(token).auth.token.lookup_self


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_that_is_not_there_is_unreachable(closed_port: int) -> None:
    calls = _calls(address=f"http://127.0.0.1:{closed_port}")
    with pytest.raises(
        VaultUnavailable, match=rf"Vault at http://127.0.0.1:{closed_port} .*\(Connection refused\)"
    ) as error:
        calls(_ASKED, _limit(), _look_up(calls))
    assert "unreachable" == error.value.reason


def test_a_name_that_is_not_known_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    calls = _calls(address="http://vault.example")
    with pytest.raises(VaultUnavailable, match="Name or service not known") as error:
        calls(_ASKED, _limit(), _look_up(calls))
    assert "unreachable" == error.value.reason


def test_files_of_tls_that_are_not_there_are_named_by_their_section() -> None:
    calls = _calls(address="https://127.0.0.1:9", tls=ClientTls(ca="ca.pem"))
    with pytest.raises(VaultUnavailable, match=r"a file of `secrets.vault.tls` cannot be read"):
        calls(_ASKED, _limit(), _look_up(calls))


def test_a_token_that_no_header_can_hold_is_not_shown(planted_secret: str) -> None:
    calls = _calls()
    with pytest.raises(VaultUnavailable, match=r"cannot be asked \(InvalidHeader\)") as error:
        calls(_ASKED, _limit(), _look_up(calls, f"{planted_secret}\nx"))
    assert planted_secret not in str(error.value)


@pytest.mark.parametrize(
    ("failure", "reason", "words"),
    [
        (requests.ReadTimeout, "slow", "does not answer in time"),
        (requests.ConnectTimeout, "unreachable", "no connection within the timeout"),
        (requests.ConnectionError, "unreachable", "the connection broke"),
        (urllib3.exceptions.ProtocolError, "unreachable", "the connection broke"),
        (requests.exceptions.SSLError, "unreachable", "by TLS"),
        (requests.TooManyRedirects, "error", "redirects"),
        (requests.exceptions.InvalidURL, "error", "InvalidURL"),
        (ZeroDivisionError, "error", "ZeroDivisionError"),
    ],
)
def test_no_failure_repeats_what_it_says(
    failure: type[Exception], reason: str, words: str, planted_secret: str
) -> None:
    def fail() -> None:
        raise failure(planted_secret)

    with pytest.raises(VaultUnavailable, match=words) as error:
        _calls()(_ASKED, _limit(), fail)
    assert reason == error.value.reason
    assert planted_secret not in str(error.value)
    # Nor does it hold on to what does.
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    "answer",
    [
        {"data": 5},
        [],
        "text",
        None,
        {"lease_duration": "x"},
        *({"lease_duration": seconds} for seconds in (math.nan, math.inf, -1, 1e300, 10**400)),
        *({"auth": {"client_token": "x", "lease_duration": seconds}} for seconds in (math.nan, math.inf, -0.5)),
    ],
)
def test_what_vault_does_not_answer_is_not_taken_for_an_answer(answer: object) -> None:
    with pytest.raises(VaultUnavailable, match="not as Vault does"):
        _calls()(_ASKED, _limit(), lambda: answer)


def test_an_answer_is_read_as_far_as_it_is_known() -> None:
    answer = _calls()(
        _ASKED, _limit(), lambda: {"data": {"a": 1}, "lease_id": "l", "lease_duration": 5, "mount_type": "kv"}
    )
    assert ({"a": 1}, "l", 5.0, False) == (answer.data, answer.lease_id, answer.lease_duration, answer.renewable)


def test_a_call_that_does_not_return_is_given_up(closed_port: int) -> None:
    calls, ended = _calls(), threading.Event()
    try:
        began = time.perf_counter()
        with pytest.raises(VaultUnavailable) as error:
            calls(_ASKED, _limit(0.1), ended.wait)
        assert "slow" == error.value.reason
        assert time.perf_counter() - began < 20
        assert isinstance(calls(_ASKED, _limit(), dict), Answer), "it holds up no other"
    finally:
        ended.set()


def test_calls_that_were_given_up_do_not_grow_without_bound() -> None:
    calls, ended, begun = _calls(), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        ended.wait()

    try:
        for _ in range(_MOST_AT_ONCE):
            with pytest.raises(VaultFault):
                # By a clock that stands still: else it may be over before it is asked at all.
                calls(_ASKED, Limit(ManualClock(), 0.001), hang)
        for _ in range(_MOST_AT_ONCE):
            assert begun.acquire(timeout=60)
        with pytest.raises(VaultFault):
            calls(_ASKED, _limit(), hang)
        assert not begun.acquire(timeout=0.05)
    finally:
        ended.set()


@contextmanager
def _speaking(
    say: Callable[[socket.socket, bytes, threading.Event], None], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """A port where ``say`` answers each connection's request, until the event is set."""
    ended = threading.Event()

    def speak(connection: socket.socket) -> None:
        # The other side hangs up: that is what the tests are about.
        with suppress(OSError):
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                say(connection, connection.recv(65536), ended)

    def listen() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                threads.append(threading.Thread(target=speak, args=(listener.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        threads = [threading.Thread(target=listen)]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _calls_under_way() -> int:
    return sum(thread.name == "vault call" for thread in threading.enumerate())


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Name: ",
        _HEAD + b"Content-Length: 100000\r\n\r\n",
        _HEAD + b"Content-Length: 100000\r\nConnection: close\r\n\r\n",
        _HEAD + b"Connection: close\r\n\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 307 Elsewhere\r\nLocation: /v1/x\r\nContent-Length: 100000\r\n\r\n",
    ],
)
def test_an_answer_that_trickles_for_ever_leaves_nothing_behind(begun: bytes, secure: bool) -> None:
    def trickle(connection: socket.socket, _request: bytes, ended: threading.Event) -> None:
        connection.sendall(begun)
        while not ended.wait(0.01):
            connection.sendall(b"0")

    with _speaking(trickle, server_tls() if secure else None) as port:
        scheme = "https" if secure else "http"
        calls = _calls(address=f"{scheme}://127.0.0.1:{port}", tls=ClientTls(ca=str(AUTHORITY)), timeout_seconds=5.0)
        began = time.perf_counter()
        for _ in range(2):
            with pytest.raises(VaultUnavailable) as error:
                calls(_ASKED, _limit(0.2), _look_up(calls))
            assert "slow" == error.value.reason
        while _calls_under_way():
            assert time.perf_counter() - began < 30, "a call that was given up goes on"
            time.sleep(0.01)
    assert [True] * _MOST_AT_ONCE == [calls._free.acquire(blocking=False) for _ in range(_MOST_AT_ONCE)]


@pytest.mark.parametrize("status", [b"200 OK", b"500 No", b"307 Elsewhere\r\nLocation: /v1/x"])
@pytest.mark.parametrize("framing", [b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_without_end_is_not_read_to_its_end(status: bytes, framing: bytes) -> None:
    sent = []

    def flood(connection: socket.socket, _request: bytes, ended: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n")
        piece = b"10000\r\n" + b"a" * 65536 + b"\r\n" if b"chunked" in framing else b"a" * 65536
        while not ended.is_set():
            connection.sendall(piece)
            sent.append(len(piece))

    with _speaking(flood) as port:
        calls = _calls(address=f"http://127.0.0.1:{port}")
        with pytest.raises(VaultUnavailable, match="not as Vault does"):
            calls(_ASKED, _limit(30), _look_up(calls))
    # What was under way in the sockets' own memory comes on top.
    assert sum(sent) < 32 * 1024 * 1024


def test_what_is_packed_is_neither_asked_for_nor_unpacked() -> None:
    asked = []
    packed = gzip.compress(b'{"data": {}}')

    def answer(connection: socket.socket, request: bytes, _ended: threading.Event) -> None:
        asked.append(request)
        connection.sendall(_HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    with _speaking(answer) as port:
        calls = _calls(address=f"http://127.0.0.1:{port}")
        with pytest.raises(VaultUnavailable, match="not as Vault does"):
            calls(_ASKED, _limit(), _look_up(calls))
    (request,) = asked
    assert b"\r\nAccept-Encoding: identity\r\n" in request


def test_a_call_that_is_given_up_leaves_a_connection_alone_that_serves_another() -> None:
    first, second = Wire(), Wire()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection: Any = _Connection("127.0.0.1")
        connection.sock = ours
        first.take(connection)
        second.take(connection)
        first.cut()
        ours.sendall(b"x")
        assert b"x" == theirs.recv(1)
        with pytest.raises(ConnectionAbortedError):
            first.take(connection)
        second.cut()
        assert b"" == theirs.recv(1)


def test_an_address_that_cannot_be_asked_is_told_at_once(planted_secret: str) -> None:
    for address in ("http://[::1", f"http://vault/?token={planted_secret}", "vault"):
        calls = _calls(address=address)
        with pytest.raises(VaultUnavailable, match=r"`secrets.vault.address`") as error:
            calls(_ASKED, _limit(), lambda: pytest.fail("it was asked"))
        assert planted_secret not in str(error.value)


def test_a_fault_of_ours_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, planted_secret: str) -> None:
    calls = _calls()

    def fail(*_: object) -> None:
        raise SystemExit(planted_secret)

    monkeypatch.setattr(calls, "_outcome", fail)
    for _ in range(_MOST_AT_ONCE + 1):
        with pytest.raises(VaultUnavailable, match="SystemExit") as error:
            calls(_ASKED, _limit(60), dict)
        assert planted_secret not in str(error.value)


def test_where_the_system_gives_no_thread_nothing_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls = _calls()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(_MOST_AT_ONCE + 1):
            with pytest.raises(VaultUnavailable, match="no thread"):
                calls(_ASKED, _limit(), dict)
    assert isinstance(calls(_ASKED, _limit(), dict), Answer)


def test_without_time_nothing_is_asked() -> None:
    with pytest.raises(VaultUnavailable):
        _calls()(_ASKED, _limit(0), lambda: pytest.fail("it was asked"))


def test_connections_that_were_long_idle_are_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    calls = Calls(VaultSettings(Vault(address="http://127.0.0.1:9"), Path()), clock)
    closed: list[float] = []
    monkeypatch.setattr(calls._connections, "close", lambda: closed.append(clock.monotonic()))
    for seconds in (30, 1, 31):
        clock.advance(seconds)
        calls(_ASKED, Limit(clock, 5), dict)
    assert [clock.monotonic()] == closed
