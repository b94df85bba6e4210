"""What is written lasts: a file's new name outlives a crash of the machine once its directory is synchronized."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` lasting.

    Raises:
        OSError: they may not last.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` into the file ``path``, whole or not at all, for good, and for nobody else to read.

    Raises:
        OSError: the file is as it was.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        # Never what a link leads to, which somebody may have put there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Remove the file ``path``, for good; one that is not there is no matter.

    Raises:
        OSError: it cannot be removed.
    """
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
