"""The mock provider reads requests however they are framed and however they arrive."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import once, one_by_one
from bench.workload import ANSWER, EVENTS_PER_STREAM, JSON_ASK, STREAM_ASK, TOKEN, long_ask

_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    argv = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
        process.communicate()


def test_json_and_streams_are_answered(upstream: str) -> None:
    assert ANSWER == once(upstream, JSON_ASK).body
    assert EVENTS_PER_STREAM == once(upstream, STREAM_ASK).body.count(b"data: ")


@pytest.mark.parametrize("body_bytes", [70_000, 100_000, 1_000_000, 20_000_000])
def test_long_prompts_are_answered_one_after_the_other(upstream: str, body_bytes: int) -> None:
    samples = one_by_one(upstream, long_ask(body_bytes), 2)
    assert (0, 2, "") == (samples.failed, len(samples.whole), samples.problem)


@pytest.mark.parametrize("body_bytes", [1000, 100_000, 1_000_000, 20_000_000])
def test_a_long_prompt_has_about_the_size_that_is_asked_for(body_bytes: int) -> None:
    assert pytest.approx(body_bytes, rel=0.4 if body_bytes < 10_000 else 0.01) == len(long_ask(body_bytes).body)


@pytest.mark.parametrize("piece_bytes", [1, 7, 400])
def test_a_request_in_pieces_is_answered_when_it_is_complete_and_not_before(upstream: str, piece_bytes: int) -> None:
    request = JSON_ASK.raw(upstream)
    assert ANSWER in _send_in_pieces(upstream, request, piece_bytes)


def test_a_body_in_chunks_is_answered(upstream: str) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    request = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(JSON_ASK.body), JSON_ASK.body)
    assert ANSWER in _send_in_pieces(upstream, request, 300)


def _send_in_pieces(address: str, request: bytes, piece_bytes: int) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request) - 1, piece_bytes):
            sock.sendall(request[at : min(at + piece_bytes, len(request) - 1)])
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(60)
        sock.sendall(request[-1:])
        answer = b""
        while not answer.endswith(ANSWER):
            answer += sock.recv(65536)
        return answer
