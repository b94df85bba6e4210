"""The last values of Vault on disk, sealed, for a start while it does not answer."""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from config.sealing import VAULT_VALUES, KeyRing, SealedFault

_log = logging.getLogger("sluice.secrets")

_LOCK_SECONDS = 2.0
"""Who has the lock holds it for some milliseconds, or is stopped: then nobody is to wait for it, reloads least of all."""

Values = dict[str, dict[str, str]]
"""By entry and field."""


class KeptValues:
    """One file that several processes replace, each adding what it has read. Methods may be called from any thread."""

    def __init__(self, path: Path, keys: KeyRing, *, writes: bool = True) -> None:
        """``path`` is made where it is not there, with its directory; ``keys`` seal it. Without ``writes`` it is read
        alone."""
        self._path = path
        self._keys = keys
        self._writes = writes
        self._lock = threading.Lock()
        self._warned = False

    def read(self) -> Values:
        """What was kept last; nothing where there is no file, or none that opens, which is warned of."""
        try:
            text = self._path.read_text("ascii")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "was changed or cut"
            _log.warning("the kept values in %s cannot be used: %s", self._path, why)
            return {}
        key_id, _, sealed = text.strip().partition(":")
        try:
            return msgspec.json.decode(self._keys.open(key_id, sealed, VAULT_VALUES), type=Values)
        except SealedFault as fault:
            _log.warning("the kept values in %s cannot be used: the file %s", self._path, fault)
        except msgspec.MsgspecError:
            _log.warning("the kept values in %s cannot be used: another version has written them", self._path)
        return {}

    def keep(self, values: Mapping[str, Mapping[str, str]]) -> bool:
        """Add ``values`` to what is kept, in the place of those of the same entry and field; whether they are kept now.

        A file that cannot be written is warned of, once until it can be.
        """
        if not self._writes:
            return True
        try:
            with self._locked():
                kept = self.read()
                merged = {**kept, **{key: {**kept.get(key, {}), **texts} for key, texts in values.items()}}
                if merged != kept:
                    self._write(self._keys.seal(msgspec.json.encode(merged), VAULT_VALUES))
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning("the values of Vault cannot be kept in %s: %s", self._path, error.strerror)
            return False
        self._warned = False
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file of its own: the other is replaced.
        with self._lock, os.fdopen(os.open(lock_file(self._path), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            _take(file)
            yield

    def _write(self, sealed: str) -> None:
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            # What a process of this number has left. Then a file of our own: never what a link leads to.
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(sealed + "\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def lock_file(path: Path) -> Path:
    """What is locked while kept values at ``path`` are replaced."""
    return path.with_name(f"{path.name}.lock")


def _take(file: BinaryIO) -> None:
    """
    Raises:
        OSError: another process has the lock, and keeps it.
    """
    tries = 40
    for left in reversed(range(tries)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not left:
                raise OSError(error.errno, "another process holds its lock") from None
            time.sleep(_LOCK_SECONDS / tries)
        else:
            return
