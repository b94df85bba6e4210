import errno
import socket
import ssl

import httptools
import pytest

from core.errors import ConnectFailed, ConnectTimeout, Delivered, UpstreamCut, UpstreamError, UpstreamMalformed
from transport import failures

HOST = "internal-host.example"


@pytest.mark.parametrize("peer", ["provider", "proxy"])
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, f"refused by {HOST}"), ConnectFailed, "The {} refused"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ConnectFailed, "The {} closed"),
        (ConnectionAbortedError("SSL handshake is taking longer than 60.0 seconds"), ConnectFailed, "The {} closed"),
        (OSError(errno.ENETUNREACH, f"unreachable: {HOST}"), ConnectFailed, "no network route to the {}"),
        (
            OSError(errno.EMFILE, "too many open files"),
            ConnectFailed,
            "no file descriptor left for a connection to the {}",
        ),
        (OSError(errno.EACCES, "denied"), ConnectFailed, "No connection to the {}"),
        (socket.gaierror(-2, f"unknown: {HOST}"), ConnectFailed, "The {}'s host name could not be resolved"),
        (UnicodeError(f"label too long: {HOST}"), ConnectFailed, "The {}'s host name could not be resolved"),
        (ssl.SSLCertVerificationError(1, f"bad: {HOST}"), ConnectFailed, "The {}'s TLS certificate"),
        (ssl.SSLError(1, "handshake"), ConnectFailed, "TLS with the {}"),
        (TimeoutError(errno.ETIMEDOUT, f"slow: {HOST}"), ConnectTimeout, "in time"),
    ],
    ids=repr,
)
def test_before_a_connection_nothing_was_delivered(
    error: Exception, kind: type[UpstreamError], words: str, peer: str
) -> None:
    failed = failures.connect_failure(error, peer)
    assert kind is type(failed)
    assert Delivered.NO is failed.delivered
    assert words.format(peer) in failed.message
    assert HOST not in failed.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, UpstreamCut),
        (ConnectionResetError(errno.ECONNRESET, f"reset by {HOST}"), UpstreamCut),
        (ssl.SSLError(1, "record layer failure"), UpstreamCut),
        (BrokenPipeError(errno.EPIPE, "broken pipe"), UpstreamCut),
        (httptools.HttpParserError("bad chunk"), UpstreamMalformed),
        (httptools.HttpParserInvalidStatusError("bad status"), UpstreamMalformed),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_on_a_connection_the_request_may_have_been_delivered(
    error: Exception | None, kind: type[UpstreamError]
) -> None:
    failed = failures.exchange_failure(error)
    assert kind is type(failed)
    assert error is failed.__cause__
    assert Delivered.MAYBE is failed.delivered
    assert HOST not in failed.message


@pytest.mark.parametrize(
    "failed",
    [
        failures.closing(),
        failures.connect_timeout(),
        failures.unusable_options(),
        failures.unwritable_address(),
        failures.unwritable_request(),
    ],
    ids=str,
)
def test_what_never_was_on_a_connection_was_not_delivered(failed: UpstreamError) -> None:
    assert Delivered.NO is failed.delivered
