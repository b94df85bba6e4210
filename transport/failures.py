"""The one map from what sockets, TLS, names and the HTTP parser raise to :mod:`core.errors`.

A message says what the provider did, in words fit for a client: no address, no path of ours, no text of the
operating system. The exception as raised belongs into ``__cause__`` (``raise connect_failure(error) from error``).

``delivered`` follows from the stage alone: before a connection there is nothing to deliver on, after one
the provider may have begun (RFC 9110 section 9.2.2: a client cannot tell whether an unanswered request was acted upon).
"""

import errno
import socket
import ssl

from httptools import HttpParserError

from core.errors import (
    ConnectFailed,
    ConnectTimeout,
    Delivered,
    PrivateAddressRefused,
    UpstreamCut,
    UpstreamError,
    UpstreamMalformed,
    UpstreamTimeout,
)

# What the operating system says of a way that does not lead anywhere: connect(2), ip(7).
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def connect_failure(error: BaseException, peer: str = "provider") -> ConnectFailed | ConnectTimeout:
    """For what was raised before there was a connection: no byte of the request has been written.

    ``peer`` is whom it was to lead to: ``provider``, or the ``proxy`` on the way there.
    """
    if isinstance(error, TimeoutError):
        return connect_timeout()
    return ConnectFailed(_connect_message(error, peer), delivered=Delivered.NO)


def connect_timeout() -> ConnectTimeout:
    """`connect_seconds` have passed."""
    return ConnectTimeout("No connection to the provider could be made in time.", delivered=Delivered.NO)


def closing() -> ConnectFailed:
    """The client takes no more requests."""
    return ConnectFailed("The gateway is closing its connections to providers.", delivered=Delivered.NO)


def unusable_options() -> ConnectFailed:
    """For certificates or a proxy's address that cannot be used (any more)."""
    return ConnectFailed(
        "The gateway's own settings for the way to the provider cannot be used.", delivered=Delivered.NO
    )


def private_address(peer: str) -> PrivateAddressRefused:
    """For an address that the options forbid, of the ``provider`` or of the ``proxy``."""
    return PrivateAddressRefused(
        f"The {peer}'s address is in a private network, which the provider's `allow_private: false` forbids."
    )


def unwritable_address() -> ConnectFailed:
    """For an address that is no http(s) URL, or not one that can be written as it is."""
    return ConnectFailed("The provider's address is not a valid http(s) URL.", delivered=Delivered.NO)


def unwritable_request() -> ConnectFailed:
    """For a request that HTTP cannot carry: a method or a field with characters that would end it early."""
    return ConnectFailed("The request has characters that HTTP does not allow.", delivered=Delivered.NO)


def exchange_failure(error: BaseException | None) -> UpstreamError:
    """For what was raised on a connection, while the request was written or the answer read; None: it just ended."""
    failed = malformed() if isinstance(error, HttpParserError) else cut()
    failed.__cause__ = error
    return failed


def cut() -> UpstreamCut:
    """The connection ended too early."""
    return UpstreamCut("The connection to the provider ended before the answer was complete.")


def malformed(message: str = "The provider's answer is not valid HTTP.") -> UpstreamMalformed:
    """The bytes that came are at fault, not that some did not come."""
    return UpstreamMalformed(message)


def no_answer_in_time() -> UpstreamTimeout:
    """The clock of the head, or of an upload that the provider does not take, has ended."""
    return UpstreamTimeout("The provider did not begin to answer in time.")


def silent_in_answer() -> UpstreamTimeout:
    """`idle_seconds` without a byte of the body."""
    return UpstreamTimeout("The provider stopped sending in the middle of its answer.")


def _connect_message(error: BaseException, peer: str) -> str:
    match error:
        case socket.gaierror() | UnicodeError():  # the codec that writes names for the resolver
            return f"The {peer}'s host name could not be resolved."
        case ssl.SSLCertVerificationError():
            return f"The {peer}'s TLS certificate could not be verified."
        case ssl.SSLError():
            return f"TLS with the {peer} could not be set up."
        case OSError(errno=errno.ECONNREFUSED):
            return f"The {peer} refused the connection."
        case ConnectionError() | OSError(errno=errno.ECONNRESET | errno.EPIPE):
            return f"The {peer} closed the connection while it was being made."
        case OSError(errno=number) if number in _NO_ROUTE:
            return f"There is no network route to the {peer}."
        case OSError(errno=number) if number in _OUT_OF_DESCRIPTORS:
            return f"The gateway has no file descriptor left for a connection to the {peer}."
        case _:
            return f"No connection to the {peer} could be made."
