"""What a fuzz target is, and how its input says into which pieces it is cut."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle

MAX_SIZES = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Something that is fed bytes from outside."""

    name: str
    run: Callable[[bytes], None]
    """Feeds one input. What it raises is a finding."""
    seeds: Callable[[], Iterable[bytes]]
    """Inputs to begin with: good ones and bad ones."""


def split(data: bytes) -> tuple[int, list[int], bytes]:
    """A number of 8 bits to choose variants by, the sizes of pieces (none: whole), and the bytes themselves.

    ::

        choice | count, of sizes, modulo 9 | sizes: a byte each | bytes
    """
    choice, count = (data[0], data[1] % (MAX_SIZES + 1)) if len(data) > 1 else (0, 0)
    return choice, list(data[2 : 2 + count]), data[2 + count :]


def seed(data: bytes, *sizes: int, choice: int = 0) -> bytes:
    """The input that feeds ``data`` in pieces of ``sizes``, over and over."""
    return bytes([choice, len(sizes), *sizes]) + data


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """``data`` in pieces of ``sizes``, over and over; a size of 0 is 256. Without sizes it is one piece."""
    at = 0
    for size in cycle(sizes or [len(data)]):
        if at >= len(data):
            return
        yield data[at : at + (size or 256)]
        at += size or 256
