"""The sending half of a client's connection: answers in order, framed, with backpressure and a clock."""

import asyncio
import logging
import socket
import struct
from abc import abstractmethod
from collections.abc import Iterable

from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPOutputError, RequestStartLine, ResponseStartLine
from tornado.iostream import StreamClosedError

from transport.answers import AnswerHead
from transport.outflow import Outflow
from transport.received import ServerLimits

_log = logging.getLogger("sluice.server")

# From here on a chunk is not copied to stand beside its size line.
_COPIED_BYTES = 16 * 1024
_LAST_CHUNK = b"0\r\n\r\n"
_WITHOUT_BODY = frozenset({101, 204, 304})
"""RFC 9110 sections 15.2, 15.3.5 and 15.4.5."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Sender(Outflow, HTTPConnection):
    """What of a connection writes. The receiving half begins and ends each exchange."""

    __slots__ = (
        "_answered",
        "_bodyless",
        "_chunked",
        "_keep_alive",
        "_left",
        "_limits",
        "_method",
        "_old",
        "_until_close",
        "begun",
        "status",
    )

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(asyncio.get_running_loop(), limits.send_idle_seconds)
        self._limits = limits
        self._answered = True
        self.begun = False
        self._keep_alive = False

    def _expect_answer(self, method: str, version: str, keep_alive: bool) -> None:
        """A request was received; its answer may begin."""
        self._method = method
        self._old = version == "HTTP/1.0"
        self._keep_alive = keep_alive
        self._answered = False
        self._until_close = False
        self._left: int | None = None
        self._chunked = False
        self._bodyless = False
        self.status = 0
        """Of the answer, once it is :attr:`begun`."""
        self.begun = False

    @abstractmethod
    def _answer_ended(self) -> None:
        """The last byte of an answer is written."""

    @abstractmethod
    def _must_close(self) -> bool:
        """Whether the state of the request does not let the connection go on after the answer that begins."""

    @abstractmethod
    def _close_gently(self) -> None:
        """Close once what is written is sent, in a way that lets the client read it."""

    # The data plane's interface.

    def start_answer(
        self, status: int, fields: Iterable[tuple[str, str]], data: bytes = b"", *, complete: bool
    ) -> None:
        """Write the head of the answer, with the first bytes of its body or, when ``complete``, with all of them.

        The framing is the transport's: a complete answer gets its length, any other keeps the `content-length` among
        ``fields`` or is sent in chunks (to HTTP/1.0: until the connection closes). An answer to HEAD, and 204 and 304,
        have no body whatever ``data`` is (RFC 9112 section 6.3).

        Raises:
            ValueError: a field would end its line; nothing was written.
            tornado.httputil.HTTPOutputError: the body is longer than its stated length; the connection is aborted.
            RuntimeError: the answer has begun before.
        """
        if not self.closed:
            self._start(AnswerHead(status, None, fields), status, data, complete=complete)

    def _start(self, head: AnswerHead, status: int, data: bytes, *, complete: bool) -> None:
        if self.begun or self._answered:
            raise RuntimeError("there is no request whose answer could begin")
        length = head.content_length
        if status in _WITHOUT_BODY or status < 200:
            self._bodyless = True
            if status != 304:
                length = None  # RFC 9110 section 8.6: no Content-Length in 1xx and 204
        else:
            if complete and length is None:
                length = len(data)
            self._bodyless = self._method == "HEAD"
        keep_alive = self._keep_alive and not self._must_close()
        if head.connection is not None and "close" in head.connection.lower():
            keep_alive = False
        framing = ""
        chunked = until_close = False
        if length is not None:
            framing = f"content-length: {length:d}\r\n"
        elif not self._bodyless:
            if self._old:
                until_close = True
                keep_alive = False
            else:
                chunked = True
                framing = "transfer-encoding: chunked\r\n"
        if status == 101:
            framing = f"connection: {head.connection or 'upgrade'}\r\n"
        elif not keep_alive:
            framing += "connection: close\r\n"
        elif self._old:
            framing += "connection: keep-alive\r\n"
        written = head.render(framing)
        self._chunked = chunked
        self._until_close = until_close
        self._keep_alive = keep_alive
        self.status = status
        self.begun = True
        if self._bodyless:
            self._left = None
        else:
            self._left = length
            if data:
                self._count(len(data))
                written += b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
        self._write(written)
        if complete:
            self.finish()

    def send(self, data: bytes) -> bool:
        """Write a piece of the body. False: the client's buffer is over its mark, so await :meth:`drained`.

        Raises:
            tornado.httputil.HTTPOutputError: more than the stated length; the connection is aborted.
        """
        if data and not (self._bodyless or self._answered or self.closed):
            if self._left is not None:
                self._count(len(data))
            if not self._chunked:
                self._write(data)
            elif len(data) < _COPIED_BYTES:
                self._write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._write(b"%x\r\n" % len(data))
                self._write(data)
                self._write(b"\r\n")
        return not self._full

    def _count(self, length: int) -> None:
        if self._left is None:
            return
        self._left -= length
        if self._left < 0:
            self.abort()
            raise HTTPOutputError("the body of the answer is longer than its content-length")

    async def drained(self) -> None:
        """Return when the client has taken enough for more to be written.

        Raises:
            ConnectionError: it went before.
        """
        if self._full or self.closed:
            try:
                await self._flow()
            except StreamClosedError:
                raise ConnectionResetError("the client has gone") from None

    def finish(self) -> None:
        """The answer is complete: the next request on the connection may begin. A short body aborts the connection."""
        if self._answered or self.closed:
            return
        if not self.begun:
            raise RuntimeError("the answer has not begun")
        if self._left:
            _log.warning("an answer was %d bytes short of its content-length; its connection is aborted", self._left)
            self.abort()
            return
        if self._chunked:
            self._write(_LAST_CHUNK)
        self._answered = True
        self._answer_ended()

    def cut(self) -> None:
        """End the answer without its proper end: what is written is sent, then the connection closes."""
        if self.closed:
            return
        self._answered = True
        self._keep_alive = False
        if self._until_close and self.begun:
            # Here a close is the proper end, and only a reset shows that it is not meant as one.
            with_reset: socket.socket = self._transport.get_extra_info("socket")
            with_reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._close()
        else:
            self._close_gently()

    def close_after_answer(self) -> None:
        """Announce with this answer that no further request is taken on the connection."""
        self._keep_alive = False

    # Tornado's interface: the same with futures.

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        assert isinstance(start_line, ResponseStartLine)
        if not self.closed:
            head = AnswerHead(start_line.code, start_line.reason, headers.get_all())
            self._start(head, start_line.code, chunk or b"", complete=False)
        return self._flow()

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        self.send(chunk)
        return self._flow()
