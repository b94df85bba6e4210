"""A provider's bytes to answers: the half of a connection that does no IO.

llhttp does what it is good at, finding the ends of things and refusing what is not HTTP, and calls back little: pieces
of a body go straight into a list, and a head is read from the bytes themselves (:mod:`transport.answer_head`).
"""

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from core.errors import UpstreamError
from transport import failures
from transport.answer_head import MAX_HEAD_BYTES, AnswerHead, read_head

_MAX_INTERIM: Final = 16
"""Interim answers to one request (RFC 9110 section 15.2). A provider has use for two or three: 100, 102, 103."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_SWITCHING_PROTOCOLS: Final = 101
_NO_LLHTTP: Final = HttpResponseParser(None)


class AnswerParser:
    """Answers that come one after another on a connection, each to one request."""

    __slots__ = ("_begun", "_held", "_llhttp", "_method_is_head", "complete", "excess", "on_body", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        """Of the body, that have come and not been taken."""
        self.complete = False
        """The answer has come whole."""
        self.excess = False
        """More has come than an answer; what is behind it belongs to nobody."""
        # llhttp looks its callbacks up once, when it is made. A piece of the body costs no Python call.
        self.on_body = self.pieces.append
        self._llhttp = HttpResponseParser(self)
        self._held: bytearray | None = None
        self._begun = 0
        self._method_is_head = False

    def begin(self, method_is_head: bool) -> None:
        """What comes next answers a new request."""
        if self._method_is_head:
            # It still waits for the body that an answer to HEAD does not have (RFC 9112 section 6.3).
            self._llhttp = HttpResponseParser(self)
        self._method_is_head = method_is_head
        self.complete = False
        self._begun = 0

    def feed(self, data: bytes) -> UpstreamError | None:
        """Take what the socket gave; what is wrong with it."""
        try:
            self._llhttp.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.excess = True
            if not self.complete:
                fault = self._fault(error)
                # Its frames know this parser, and whoever is told of it would be known by them: a circle.
                error.__traceback__ = error.__context__ = None
                return fault
        return None

    def head(self, data: bytes) -> AnswerHead | None:
        """The head of the answer, of which :meth:`feed` got ``data`` last; None while it is not whole.

        Interim answers before it are skipped.

        Raises:
            core.errors.UpstreamMalformed: it is not one to be trusted.
        """
        raw: bytes | bytearray = data
        searched = 0
        if self._held is not None:
            searched = max(0, len(self._held) - len(_END_OF_HEAD) + 1)
            raw = self._held
            raw += data
        while (end := raw.find(_END_OF_HEAD, searched)) >= 0:
            head = read_head(raw, end, self._method_is_head)
            if head.status >= 200:
                self._held = None
                if self._method_is_head:
                    # llhttp believes in a body that is not to come (RFC 9112 section 6.3). What came is none, whole or
                    # not.
                    self.complete = True
                    self.excess = self.excess or len(raw) > end + len(_END_OF_HEAD)
                    self.pieces.clear()
                return head
            if head.status == _SWITCHING_PROTOCOLS:
                raise _switched()
            raw = raw[end + len(_END_OF_HEAD) :]
            searched = 0
        if len(raw) > MAX_HEAD_BYTES:
            raise failures.malformed("The head of the provider's answer is too large.")
        self._held = raw if isinstance(raw, bytearray) else bytearray(raw)
        return None

    def take(self) -> bytes:
        """What of the body has come, in one piece."""
        pieces = self.pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return piece

    def close(self) -> None:
        """Nothing more comes. Lets go of llhttp, which holds on to our methods."""
        self._llhttp = _NO_LLHTTP
        self._held = None

    def on_message_begin(self) -> None:
        """Called by llhttp with the first byte of a message."""
        self._begun += 1
        if self.complete or self._begun > _MAX_INTERIM + 1:
            raise _Unexpected

    def on_message_complete(self) -> None:
        """Called by llhttp with the last byte of a message."""
        if self._llhttp.get_status_code() >= 200:
            self.complete = True

    def _fault(self, error: Exception) -> UpstreamError:
        if isinstance(error, HttpParserUpgrade):
            return _switched()
        if self._begun > _MAX_INTERIM + 1:
            return failures.malformed("The provider sends interim answers without end.")
        return failures.exchange_failure(error)


class _Unexpected(Exception):
    """Raised within llhttp, to stop it."""


def _switched() -> UpstreamError:
    # RFC 9110 section 15.2.2: to those alone that asked for it.
    return failures.malformed("The provider switched to a protocol that nobody asked for.")
