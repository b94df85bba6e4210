"""What the bench's own client makes of connections that end, rightly or not."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.client import HeldStreams, constant_rate, one_by_one
from bench.workload import JSON_ASK, SLOW_STREAM_ASK
from core.clock import SystemClock

_Reply = Callable[[int], tuple[bytes, bool]]


@contextmanager
def _server(reply: _Reply) -> Iterator[str]:
    """Answers whole requests; of ``reply``: what to send to a connection's nth, and whether to hang up after it."""
    request = len(JSON_ASK.raw("127.0.0.1:00000"))

    def converse(sock: socket.socket) -> None:
        with sock:
            number, received = 0, 0
            while data := sock.recv(65536):
                received += len(data)
                if received >= request - 5:  # The port's length varies.
                    received, number = 0, number + 1
                    answer, last = reply(number)
                    sock.sendall(answer)
                    if last:
                        return

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            conversations.append(threading.Thread(target=converse, args=(sock,)))
            conversations[-1].start()

    conversations: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for each in conversations:
        each.join()


def _closing_after(most: int) -> _Reply:
    def reply(number: int) -> tuple[bytes, bool]:
        last = number == most
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n%s\r\n{}" % (b"Connection: close\r\n" if last else b""), last

    return reply


def test_a_constant_rate_goes_on_over_connections_that_are_closed_as_announced() -> None:
    with _server(_closing_after(3)) as address:
        samples = constant_rate(address, JSON_ASK, per_second=200, seconds=0.5, warm_up_seconds=0.1)
    assert (0, 100) == (samples.failed, len(samples.whole))


def test_a_constant_rate_counts_what_is_cut_as_failed() -> None:
    with _server(lambda _: (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", True)) as address:
        samples = constant_rate(address, JSON_ASK, per_second=100, seconds=0.2, warm_up_seconds=0)
    assert (20, 0) == (samples.failed, len(samples.whole))


def test_one_by_one_takes_a_new_connection_for_one_that_is_closed_as_announced() -> None:
    with _server(_closing_after(2)) as address:
        samples = one_by_one(address, JSON_ASK, 5)
    assert (0, 5) == (samples.failed, len(samples.whole))


def test_one_by_one_goes_on_after_a_refusal_and_says_what_was_wrong() -> None:
    with _server(lambda _: (b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n", True)) as address:
        samples = one_by_one(address, JSON_ASK, 2)
    assert (3, 0) == (samples.failed, len(samples.whole))
    assert "413 Content Too Large" in samples.problem


def test_held_streams_flow_until_they_end_and_are_lost_then() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
    with _server(lambda number: (head if number == 1 else b"", False)) as address:
        streams = HeldStreams(address, SLOW_STREAM_ASK)
        try:
            streams.open(7, SystemClock().monotonic() + 60)
            assert (7, 0) == (streams.flowing, streams.lost)
        finally:
            streams.close()
    with _server(lambda _: (head + b"0\r\n\r\n", True)) as address:
        streams = HeldStreams(address, SLOW_STREAM_ASK)
        try:
            deadline = SystemClock().monotonic() + 60
            while not streams.lost or streams.flowing:
                assert SystemClock().monotonic() < deadline
                streams.open(1, SystemClock().monotonic() + 0.1)
                streams.trickle(0.01)
        finally:
            streams.close()
