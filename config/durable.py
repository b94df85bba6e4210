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
