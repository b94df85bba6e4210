"""The channel between processes: whole messages in any chunking, bounded, and its end is told once."""

import asyncio
import logging
import socket
from collections.abc import Iterator

import msgspec
import pytest

from gateway import control
from gateway.control import (
    Answered,
    Apply,
    Asked,
    Channel,
    ClearCooldown,
    Done,
    Drain,
    Message,
    Ready,
    RefreshAccounts,
    RefreshTokens,
    Refused,
    Reload,
    Reloaded,
)
from tests.conftest import ExpectLog
from tests.gateway_process import until

MESSAGES: list[Message] = [
    Reload("signal"),
    Drain(),
    Drain(handed_over=True),
    Ready("r1"),
    Reloaded("r2"),
    Refused(3, "a reason\nof two lines"),
    Asked(1, Apply("r1", "api"), 10.0),
    Asked(2, Reload("api")),
    Asked(3, RefreshTokens(7)),
    Asked(3, RefreshAccounts()),
    Asked(4, ClearCooldown("openai", model="gpt")),
    Done(1),
    Done(2, failed=True),
    Answered(3, failed=1, silent=1, number=4),
]


class End:
    """One end with what it has received."""

    def __init__(self, end: socket.socket) -> None:
        self.messages: list[Message] = []
        self.lost = 0
        self.channel = Channel(end, self.messages.append, self._lose)

    def _lose(self) -> None:
        self.lost += 1


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    yield one, other
    one.close()
    other.close()


async def test_messages_arrive_in_order_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = map(End, pair)
    for message in MESSAGES:
        one.channel.send(message)
        other.channel.send(message)
    await until(lambda: len(one.messages) == len(other.messages) == len(MESSAGES))
    assert MESSAGES == one.messages == other.messages
    one.channel.close()
    await until(lambda: other.lost)
    assert (0, 1) == (one.lost, other.lost)
    assert other.channel.closed
    # Into nothing, and closed twice: neither harms.
    other.channel.send(Drain())
    other.channel.close()


async def test_a_message_is_one_line_and_may_come_byte_by_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    end, bare = End(pair[0]), pair[1]
    for byte in b'{"type":"ready","revision":"r"}\n{"type":"drain"}\n':
        bare.send(bytes([byte]))
        await asyncio.sleep(0)
    await until(lambda: len(end.messages) == 2)
    assert [Ready("r"), Drain()] == end.messages
    end.channel.send(Refused(1, "a\nb"))
    bare.settimeout(60)
    line = bare.recv(1000)
    assert line.index(b"\n") == len(line) - 1
    end.channel.close()


async def test_what_was_said_before_the_end_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = map(End, pair)
    one.channel.send(Refused(1, "why"))
    one.channel.close()
    # It says something into the closed channel before it has looked.
    other.channel.send(Drain())
    await until(lambda: other.lost)
    assert [Refused(1, "why")] == other.messages


async def test_a_message_that_is_not_understood_is_skipped(
    pair: tuple[socket.socket, socket.socket], expect_log: ExpectLog
) -> None:
    end, bare = End(pair[0]), pair[1]
    with expect_log("not understood", logging.WARNING):
        bare.send(b'{"type":"dance"}\nnot json\n{"type":"drain"}\n')
        await until(lambda: end.messages)
    assert [Drain()] == end.messages
    end.channel.close()


async def test_who_closes_on_a_message_gets_no_further_one(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[Message] = []

    def take(message: Message) -> None:
        got.append(message)
        channel.close()

    channel = Channel(pair[0], take)
    pair[1].send(b'{"type":"drain"}\n{"type":"drain"}\n')
    await until(lambda: channel.closed)
    assert [Drain()] == got


async def test_a_line_without_an_end_closes_the_channel(
    pair: tuple[socket.socket, socket.socket], expect_log: ExpectLog
) -> None:
    end, bare = End(pair[0]), pair[1]
    bare.setblocking(False)
    with expect_log("a line without an end", logging.ERROR):
        for _ in range(100):
            try:
                bare.send(b"x" * 1024)
            except BlockingIOError:
                await asyncio.sleep(0)
            except BrokenPipeError:
                break
            await asyncio.sleep(0)
        await until(lambda: end.lost)
    assert end.channel.closed


async def test_who_reads_nothing_is_lost_and_slow_readers_get_all(
    pair: tuple[socket.socket, socket.socket], expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in pair:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    end, bare = End(pair[0]), pair[1]
    reason = "x" * 1000
    sent = 20
    for _ in range(sent):
        end.channel.send(Refused(1, reason))
    read = b""
    bare.settimeout(60)
    while read.count(b"\n") < sent:
        await asyncio.sleep(0)
        read += bare.recv(500)
    assert {Refused(1, reason)} == {msgspec.json.decode(line, type=control.Refused) for line in read.splitlines()}
    # A writer that has written all of it is not asked again.
    await until(lambda: not end.channel._writing)
    with expect_log("reads none", logging.ERROR):
        for _ in range(400):
            end.channel.send(Refused(1, reason))
    assert (1, True) == (end.lost, end.channel.closed)
