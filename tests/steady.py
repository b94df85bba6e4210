"""Clients that go on asking while a test does something else."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def asking(ask: Callable[[], int], clients: int) -> Iterator[list[int]]:
    """``clients`` that ``ask`` one request after the other as long as the block runs; the statuses of the answers."""
    found: list[int] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            found.append(ask())

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(run) for _ in range(clients)]
        try:
            yield found
        finally:
            ended.set()
    for each in running:
        each.result()
