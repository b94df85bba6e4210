"""A reload of a configuration with 1,000 routes, and how long the event loop is away meanwhile, as a client sees it."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.gateway_process import document, gateway

ROUTES = 1000
RELOADS = 5
BLOCKED_SECONDS = 0.020
BLOCKED_PART = 1 / 30
"""Or, where a reload takes long because everything does, so much of it; what is done on the event loop takes most of it."""
IDLE_TIMES = 3
"""Or, where others have the processors, so many times what they take away just before."""


def large(edit: int) -> str:
    """A document of :data:`ROUTES` routes, each with something to compile."""
    lines = ["providers:", *(f"  - {{name: p{number}, type: echo}}" for number in range(20))]
    lines += [f"model_aliases: [{{from: probe, to: p0/edit-{edit}}}]", "routes:"]
    for number in range(ROUTES):
        first, second = f"p{number % 20}/model-{number}", f"p{(number + 1) % 20}/model-{number}"
        lines.append(
            f'  - {{name: r{number}, match: {{model: ["m{number}-*", exact-{number}], token: "t*"}}, strategy: weighted, '
            f"targets: [{{to: {first}, weight: 2}}, {second}], fallbacks: [[p3/spare]], retry: {{attempts: 2}}}}"
        )
    return document("\n".join(lines) + "\n")


class Pinger:
    """A client that asks ``/healthz`` every millisecond on one connection."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def longest_seconds(self, done: Callable[[], bool]) -> float:
        """The longest time that an answer took, until ``done()``."""
        longest = 0.0
        looked = time.monotonic()
        while True:
            began = time.monotonic()
            self._socket.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n")
            assert self._socket.recv(4096).startswith(b"HTTP/1.1 200")
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.001)
            if time.monotonic() - looked > 0.05:
                looked = time.monotonic()
                if done():
                    return longest

    def close(self) -> None:
        self._socket.close()


def test_a_reload_of_a_thousand_routes_holds_the_event_loop_for_less_than_20_ms(tmp_path: Path) -> None:
    with gateway(large(0), tmp_path, measured=True) as running:
        pinger = Pinger(running.host, running.port)
        try:
            longest, allowed = [], []
            for edit in range(1, RELOADS + 1):
                quiet = time.monotonic() + 0.2
                idle = pinger.longest_seconds(lambda: time.monotonic() > quiet)  # noqa: B023  called at once
                running.rewrite(large(edit))
                applied = f"{edit + 1} applied"
                began = time.monotonic()
                longest.append(
                    pinger.longest_seconds(lambda: f"{running.err.count('is in force')} applied" == applied)  # noqa: B023  called at once
                )
                took = time.monotonic() - began
                allowed.append(max(BLOCKED_SECONDS, took * BLOCKED_PART, idle * IDLE_TIMES))
        finally:
            pinger.close()
        assert f"p0/edit-{RELOADS}" == running.chat("probe").headers["x-sluice-target"]
    print(
        f"\nreload of {ROUTES} routes: longest answer {[f'{each * 1000:.1f}' for each in longest]} ms, "
        f"at most {[f'{each * 1000:.1f}' for each in allowed]} ms"
    )
    # What a reload does it does each time; what the machine does besides comes and goes, and only adds.
    assert any(each < most for each, most in zip(longest, allowed, strict=True)), (longest, allowed)
