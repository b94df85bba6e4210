"""Calls to Vault where none answers: bounded in time, and told without what was sent."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from config.schema import ClientTls, Vault
from config.vault.answers import Answer, Asked, Limit
from config.vault.calls import _MOST_AT_ONCE, Calls
from config.vault.errors import VaultFault, VaultUnavailable
from config.vault.settings import VaultSettings
from core.clock import ManualClock, SystemClock

_ASKED = Asked("secret/data/x")


def _calls(**config: Any) -> Calls:
    config = {"address": "http://127.0.0.1:9", "timeout_seconds": 1.0, **config}
    return Calls(VaultSettings(Vault(**config), Path("/nowhere")), SystemClock())


def _limit(seconds: float = 5) -> Limit:
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
        (requests.exceptions.ChunkedEncodingError, "unreachable", "the connection broke"),
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


@pytest.mark.parametrize("answer", [{"data": 5}, [], "text", None, {"lease_duration": "x"}])
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
        assert time.perf_counter() - began < 2
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
                calls(_ASKED, _limit(0.001), hang)
        for _ in range(_MOST_AT_ONCE):
            assert begun.acquire(timeout=5)
        with pytest.raises(VaultFault):
            calls(_ASKED, _limit(), hang)
        assert not begun.acquire(timeout=0.05)
    finally:
        ended.set()


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
