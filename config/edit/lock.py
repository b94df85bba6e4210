"""One edit of a document at a time, whichever process makes it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.edit.errors import DocumentBusy
from config.edit.replace import fault_of

_TRIES = 1000
_PAUSE_SECONDS = 0.02


@contextmanager
def locked(path: Path, document: Path) -> Iterator[None]:
    """Hold the lock file ``path`` of ``document``, which stays; waits for others, in a thread.

    Raises:
        DocumentBusy: for 20 seconds others had it.
        ReadOnlyDocument, WriteFailed: it cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise fault_of(error, document) from None
    try:
        _take(descriptor)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> None:
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    raise DocumentBusy("another edit of the document does not come to its end: try again later")
