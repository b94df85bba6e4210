"""Ports of this machine for what comes later, or for nobody."""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_COUNT = 12_000
_APART = 97
# Each process begins elsewhere, as two that look at the same moment would find the same one.
_numbers = itertools.count(os.getpid() * _APART)


def free_port() -> int:
    """One that is free, and stays so until somebody asks for it by its number: the system gives it neither to who binds to
    any port nor to who connects (ip(7): ip_local_port_range), so that no other program has it by chance."""
    for number in itertools.islice(_numbers, _COUNT if _is_left_alone() else 0):
        port = _LOWEST + number % _COUNT
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_left_alone() -> bool:
    try:
        return int(_GIVEN.read_text().split()[0]) >= _LOWEST + _COUNT
    except OSError:
        # Systems that have no such file give ports from 49152 on (RFC 6335 section 6).
        return True


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """One where nobody is at home, and nobody can be within the block: whoever connects to it is refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
