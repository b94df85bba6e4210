import errno
import socket
import ssl

import aiohttp
import pytest
from aiohttp import http_exceptions
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from core.errors import ConnectFailed, ConnectTimeout, Delivered, UpstreamCut, UpstreamError, UpstreamMalformed
from transport import failures

HOST = "internal-host.example"
KEY = ConnectionKey(HOST, 8443, True, True, None, None, None, None)
SECRET = "sk-planted-4711"


def connector_error(error: OSError) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(KEY, error)


def response_error() -> aiohttp.ClientResponseError:
    headers = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {SECRET}"}))
    error = aiohttp.ClientResponseError(RequestInfo(URL("http://x"), "POST", headers, URL("http://x")), ())
    error.__cause__ = http_exceptions.BadStatusLine("SSH-2.0")
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (connector_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused")), ConnectFailed, "refused"),
        (connector_error(ConnectionResetError(errno.ECONNRESET, "reset")), ConnectFailed, "while it was being made"),
        (connector_error(OSError(errno.ENETUNREACH, "unreachable")), ConnectFailed, "no network route"),
        (connector_error(OSError(errno.EMFILE, "too many open files")), ConnectFailed, "no file descriptor"),
        (connector_error(OSError(errno.EACCES, "denied")), ConnectFailed, "No connection"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "unknown")), ConnectFailed, "could not be resolved"),
        (
            aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "bad")),
            ConnectFailed,
            "certificate",
        ),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "handshake")), ConnectFailed, "TLS"),
        (aiohttp.ClientConnectionError("Connector is closed."), ConnectFailed, "No connection"),
        (aiohttp.ConnectionTimeoutError("slow"), ConnectTimeout, "in time"),
        (TimeoutError(), ConnectTimeout, "in time"),
    ],
    ids=repr,
)
def test_before_a_connection_nothing_was_delivered(error: Exception, kind: type[UpstreamError], words: str) -> None:
    failed = failures.connect_failure(error)
    assert kind is type(failed)
    assert Delivered.NO is failed.delivered
    assert words in failed.message
    assert HOST not in failed.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ServerDisconnectedError(), UpstreamCut),
        (aiohttp.ClientOSError(errno.ECONNRESET, f"reset by {HOST}"), UpstreamCut),
        (aiohttp.ClientConnectionResetError("Cannot write to closing transport"), UpstreamCut),
        (aiohttp.ClientPayloadError("not completed"), UpstreamCut),
        (ssl.SSLError(1, "record layer failure"), UpstreamCut),
        (BrokenPipeError(errno.EPIPE, "broken pipe"), UpstreamCut),
        (response_error(), UpstreamMalformed),
        (http_exceptions.HttpProcessingError(message="bad chunk"), UpstreamMalformed),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_on_a_connection_the_request_may_have_been_delivered(error: Exception, kind: type[UpstreamError]) -> None:
    failed = failures.exchange_failure(error)
    assert kind is type(failed)
    assert Delivered.MAYBE is failed.delivered
    assert HOST not in failed.message


@pytest.mark.parametrize(
    "error", [ValueError("newline"), aiohttp.InvalidURL("x"), aiohttp.NonHttpUrlClientError("ftp:")]
)
def test_a_request_that_cannot_be_written_was_not_delivered(error: Exception) -> None:
    assert Delivered.NO is failures.unwritable(error).delivered


def test_an_exception_that_renders_our_headers_is_kept_from_the_log() -> None:
    error = response_error()
    assert SECRET in repr(error)
    assert error.__cause__ is failures.for_the_log(error)
    other = aiohttp.ServerDisconnectedError()
    assert other is failures.for_the_log(other)
