"""What stands in for the network: a transport in memory, and a strict reader of answers."""

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_LENGTH = re.compile(rb"\d+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)\r\n")


class MemoryTransport(asyncio.Transport):
    """A connection whose other end is a list of bytes. What is fed while reading is paused waits."""

    def __init__(self, protocol: asyncio.Protocol, extra: dict[str, Any] | None = None) -> None:
        super().__init__({"peername": ("192.0.2.7", 40000), "sockname": ("192.0.2.1", 8080), **(extra or {})})
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BaseProtocol = protocol
        self._waiting: deque[bytes | None] = deque()
        self._paused = False
        self._closing = False
        self._gone = False
        self.written = bytearray()
        self.ended = False
        """Whether the protocol has ended its sending direction (``write_eof``, ``close`` or ``abort``)."""
        protocol.connection_made(self)

    # The other end

    def feed(self, data: bytes) -> None:
        """What the peer sends arrives."""
        self._waiting.append(data)
        self._deliver()

    def feed_eof(self) -> None:
        """The peer ends its sending direction."""
        self._waiting.append(None)
        self._deliver()

    @property
    def busy(self) -> bool:
        """Whether something that was fed is still to be delivered."""
        return bool(self._waiting) and not self._closing

    def _deliver(self) -> None:
        while self._waiting and not self._paused and not self._closing:
            assert isinstance(self._protocol, asyncio.Protocol)
            data = self._waiting.popleft()
            if data is not None:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    # What asyncio.Transport has

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            # Not at once: a loop delivers from its own turn, never from within the protocol's.
            self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 0

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended or self._closing, "written after the end of the sending direction"
        if not self._closing:
            self.written += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self._end()

    def abort(self) -> None:
        self._end()

    def _end(self) -> None:
        self.ended = True
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lost)

    def _lost(self) -> None:
        if not self._gone:
            self._gone = True
            self._protocol.connection_lost(None)


class Malformed(AssertionError):
    """What was written is no sequence of answers in well-formed HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as a strict client reads it."""

    status: int
    fields: tuple[tuple[str, str], ...]
    """Names in lower case."""
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of the lower-case ``name``."""
        return [value for field, value in self.fields if field == name]

    @property
    def closes(self) -> bool:
        return any("close" in re.split(r"[ \t]*,[ \t]*", value.lower()) for value in self.all("connection"))


def read_answers(written: bytes, methods: Sequence[str], *, ended: bool) -> list[Answer]:
    """Every answer in ``written``; ``methods`` are those of the requests, in order.

    Raises:
        Malformed: there is something else, or something of an answer is missing.
    """
    answers: list[Answer] = []
    finals = 0
    at = 0
    while at < len(written):
        end = written.find(b"\r\n\r\n", at)
        if end < 0:
            raise Malformed(f"the head of an answer is not whole: {written[at : at + 200]!r}")
        status, fields = _head(written[at:end])
        at = end + 4
        body = b""
        if status >= 200:
            if finals == len(methods):
                raise Malformed(f"more answers than requests: {written[at - 300 : at + 200]!r}")
            body, at = _body(written, at, methods[finals], status, fields, ended=ended)
            finals += 1
        answers.append(Answer(status, fields, body))
    return answers


def _head(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise Malformed(f"a bad status line: {first!r}")
    fields: list[tuple[str, str]] = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed(f"a bad field: {line!r}")
        fields.append((field[1].decode().lower(), (field[2] or b"").decode("latin-1")))
    return int(status[1]), tuple(fields)


def _body(
    written: bytes, at: int, method: str, status: int, fields: tuple[tuple[str, str], ...], *, ended: bool
) -> tuple[bytes, int]:
    """The body from ``at`` on, and where it ends (RFC 9112 section 6.3)."""
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value for name, value in fields if name == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"framed more than once: {fields!r}")
    if status in (204, 304) or method == "HEAD":
        if status == 204 and (lengths or codings):
            raise Malformed(f"204 with framing: {fields!r}")
        return b"", at
    if codings:
        if codings != ["chunked"]:
            raise Malformed(f"an unknown coding: {codings!r}")
        return _chunked(written, at)
    if lengths:
        if not _LENGTH.fullmatch(lengths[0].encode("latin-1")):
            raise Malformed(f"a bad length: {lengths!r}")
        end = at + int(lengths[0])
        if end > len(written):
            raise Malformed(f"{end - len(written)} bytes of a body are missing")
        return written[at:end], end
    if not ended:
        raise Malformed(f"neither framed nor ended by the connection: {status} {fields!r}")
    return written[at:], len(written)


def _chunked(written: bytes, at: int) -> tuple[bytes, int]:
    data = b""
    while True:
        size = _CHUNK.match(written, at)
        if size is None:
            raise Malformed(f"a bad chunk size: {written[at : at + 40]!r}")
        start, end = size.end(), size.end() + int(size[1], 16)
        if written[end : end + 2] != b"\r\n":
            raise Malformed("a chunk is not ended by CRLF")
        data += written[start:end]
        at = end + 2
        if start == end:
            return data, at
