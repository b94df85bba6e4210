"""Requests at an even pace, to several gateways in turn: how long each answer took.

From a process of its own (``python -m tests.paced``), so that nothing else that a test does is measured with them. It ends
early when a gateway does.
"""

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Sequence

import msgspec

from tests.gateway_process import ROOT, TOKEN, Gateway, environment

FAILS_EVERY = 10
"""Each tenth request is one that the provider refuses."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be asked."""

    addresses: tuple[tuple[str, int], ...]
    count: int
    """Of each gateway."""
    per_second: float
    """Of each gateway; less where they do not come after."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """One answer."""

    gateway: int
    """Its place in the plan."""
    status: int
    request_id: str
    seconds: float


async def ask(gateways: Sequence[Gateway], count: int, per_second: float) -> list[Answered]:
    """Ask each of ``gateways`` as often for a chat completion by the provider `echo`; all that was answered."""
    plan = Plan(tuple((running.host, running.port) for running in gateways), count, per_second)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.paced"),
        cwd=ROOT,
        env=environment(measured=True),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(msgspec.json.encode(plan))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 0 == process.returncode
    return msgspec.json.decode(output, type=list[Answered])


class _Client:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def exchange(self, request: bytes) -> tuple[int, str]:
        """The status and the request id of the answer.

        Raises:
            OSError: the gateway has gone.
        """
        self._socket.sendall(request)
        status = int(self._line().split(b" ")[1])
        request_id, length = "", 0
        while (line := self._line()) != b"\r\n":
            name, _, value = line.partition(b":")
            match name.lower():
                case b"x-request-id":
                    request_id = value.strip().decode()
                case b"content-length":
                    length = int(value)
        if len(self._file.read(length)) < length:
            raise ConnectionResetError
        return status, request_id

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError
        return line

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _request(model: str) -> bytes:
    body = json.dumps({"model": f"echo/{model}", "messages": [{"role": "user", "content": "one two three"}]}).encode()
    fields = {"host": "gateway", "authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    lines = [f"{name}: {value}\r\n" for name, value in {**fields, "content-length": len(body)}.items()]
    return "".join(("POST /v1/chat/completions HTTP/1.1\r\n", *lines, "\r\n")).encode() + body


def carry_out(plan: Plan) -> list[Answered]:
    """All that was answered until the end, or until a gateway had gone."""
    clients = [_Client(address) for address in plan.addresses]
    well, fails = _request("well"), _request("status-400")
    found: list[Answered] = []
    began = time.perf_counter()
    with contextlib.suppress(OSError):
        for number in range(plan.count):
            time.sleep(max(0.0, began + number / plan.per_second - time.perf_counter()))
            request = fails if number % FAILS_EVERY == FAILS_EVERY - 1 else well
            # Who is asked first finds the processor colder: now the one, now the other.
            order = range(len(clients)) if number % 2 else reversed(range(len(clients)))
            for place in order:
                asked = time.perf_counter()
                status, request_id = clients[place].exchange(request)
                found.append(Answered(place, status, request_id, time.perf_counter() - asked))
    for client in clients:
        client.close()
    return found


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(carry_out(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))))
