"""A bound on interim answers (RFC 9110 section 15.2), which a provider may send without end before its answer.

aiohttp reads over them, and while they come as fast as they are read it does nothing else. They are counted where they
come in, not where they are taken out: the event loop calls one connection many times before it turns to others.
"""

import functools
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

MAX_INTERIM: Final = 16
"""Interim answers to one request. A provider has use for two or three: 100, 102, 103."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, with connections that end at too many interim answers."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of ``aiohttp.TCPConnector``."""
        super().__init__(**options)
        self._factory = cast("functools.partial[ResponseHandler]", functools.partial(_BoundedHandler, loop=self._loop))


class _BoundedHandler(ResponseHandler):
    """aiohttp's end of a connection; the exchange on it fails with ``HttpProcessingError`` beyond the bound."""

    _interim = 0
    _refused = False

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Called for each head that has been read."""
        if self._refused:
            return
        if not 100 <= data[0].code < 200 or data[0].code == 101:
            self._interim = 0
        else:
            self._interim += 1
        if self._interim <= MAX_INTERIM:
            super().feed_data(data, size)
            return
        if self.transport is not None:
            self.transport.abort()  # also ends the reading of what has come in already
        self.set_exception(HttpProcessingError(message="too many interim answers"))
        self._refused = True

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """The refusal stays the reason, though the connection's end follows from it."""
        if not self._refused:
            super().set_exception(exc, *cause)
