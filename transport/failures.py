"""The one map from what sockets, TLS, names and the HTTP parser raise to :mod:`core.errors`.

A message says what the provider did, in words fit for a client: no address, no path of ours, no text of the
operating system. The exception as raised belongs into ``__cause__`` (``raise connect_failure(error) from error``).

``delivered`` follows from the stage alone: before a connection there is nothing to deliver on, after one
the provider may have begun (RFC 9110 section 9.2.2: a client cannot tell whether an unanswered request was acted upon).
"""

import errno

import aiohttp
from aiohttp import http_exceptions

from core.errors import ConnectFailed, ConnectTimeout, Delivered, UpstreamCut, UpstreamError, UpstreamMalformed

# What the operating system says of a way that does not lead anywhere: connect(2), ip(7).
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def connect_failure(error: BaseException) -> ConnectFailed | ConnectTimeout:
    """For what was raised before there was a connection: no byte of the request has been written."""
    if isinstance(error, TimeoutError):
        return connect_timeout()
    return ConnectFailed(_connect_message(error), delivered=Delivered.NO)


def connect_timeout() -> ConnectTimeout:
    """`connect_seconds` have passed."""
    return ConnectTimeout("No connection to the provider could be made in time.", delivered=Delivered.NO)


def exchange_failure(error: BaseException) -> UpstreamCut | UpstreamMalformed:
    """For what was raised on a connection, while the request was written or the answer read."""
    if _breaks_the_format(error):
        return UpstreamMalformed("The provider's answer is not valid HTTP.")
    return UpstreamCut("The connection to the provider ended before the answer was complete.")


def for_the_log(error: BaseException) -> BaseException | None:
    """What may stand as the ``__cause__``: not aiohttp's ``ClientResponseError``, which renders the request's headers,
    our credential among them, but the parser's complaint under it."""
    return error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error


def unwritable(error: BaseException) -> UpstreamError:
    """For a request that HTTP cannot carry: a URL or a header field with bytes that would end it early."""
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return ConnectFailed("The provider's address is not a valid http(s) URL.", delivered=Delivered.NO)
    return ConnectFailed("The request has characters that HTTP does not allow.", delivered=Delivered.NO)


def _connect_message(error: BaseException) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "The provider's host name could not be resolved."
        case aiohttp.ClientConnectorCertificateError():
            return "The provider's TLS certificate could not be verified."
        case aiohttp.ClientSSLError():
            return "TLS with the provider could not be set up."
        case OSError(errno=errno.ECONNREFUSED):
            return "The provider refused the connection."
        case OSError(errno=errno.ECONNRESET | errno.EPIPE):
            return "The provider closed the connection while it was being made."
        case OSError(errno=number) if number in _NO_ROUTE:
            return "There is no network route to the provider."
        case OSError(errno=number) if number in _OUT_OF_DESCRIPTORS:
            return "The gateway has no file descriptor left for a connection to the provider."
        case _:
            return "No connection to the provider could be made."


def _breaks_the_format(error: BaseException) -> bool:
    """Whether the bytes that came are at fault, not that some did not come (``ClientPayloadError``)."""
    return isinstance(error, aiohttp.ClientResponseError | http_exceptions.HttpProcessingError)
