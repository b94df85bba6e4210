"""The files that `${file:…}` references name: read when a document is loaded, refreshed when they change."""

import logging
import stat
from pathlib import Path

_log = logging.getLogger("sluice.config")

MAX_SECRET_FILE_BYTES = 1024 * 1024


class SecretFileError(Exception):
    """A file that cannot be read; the message says why and carries nothing of its content."""


class SecretFileMissing(SecretFileError):
    """There is no such file."""


class SecretFiles:
    """Current contents by path. Outlives generations (the gateway's `Resources` own it).

    A secret's handle asks :meth:`value`, which is a look-up in memory: no request reads a file. Whoever watches the
    files calls :meth:`refresh`, and from then on every handle gives the new value, whatever generation it is of.
    Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._values: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, path: object) -> bool:
        return path in self._values

    def load(self, path: Path, *, may_be_missing: bool = False) -> str:
        """Read ``path`` now and keep its value: the text without one line break at its end.

        With ``may_be_missing`` a file that is not there has the value ``""`` until it appears.

        Raises:
            SecretFileError: there is no such regular file, it is unreadable, too large, or not UTF-8.
        """
        try:
            value = _read(path)
        except SecretFileMissing:
            if not may_be_missing:
                raise
            value = ""
        self._values[path] = value
        return value

    def value(self, path: Path) -> str:
        """The value of a loaded ``path`` as last read."""
        return self._values[path]

    def refresh(self) -> tuple[Path, ...]:
        """Read every known file again; the paths whose values changed.

        A file that cannot be read keeps its last good value, and a warning is logged: a rotation in two steps
        (remove, write) must not break the requests between them.
        """
        changed = []
        for path, known in tuple(self._values.items()):
            try:
                value = _read(path)
            except SecretFileError as error:
                if not known and isinstance(error, SecretFileMissing):
                    continue
                _log.warning("secret file %s %s: its last value stays in use", path, error)
                continue
            if value != known:
                self._values[path] = value
                changed.append(path)
        return tuple(changed)


def without_line_break(text: str) -> str:
    """``text`` without one line break at its end: editors, `echo` and `@file` leave one that is no part of a secret."""
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def _read(path: Path) -> str:
    try:
        # Asked before opening: to open a pipe or a device may block for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SecretFileError("is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SecretFileMissing("cannot be read: there is no such file") from None
    except OSError as error:
        raise SecretFileError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise SecretFileError(f"cannot be read: {error}") from None
    if len(data) > MAX_SECRET_FILE_BYTES:
        raise SecretFileError(f"is larger than {MAX_SECRET_FILE_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SecretFileError("is not UTF-8 text") from None
    return without_line_break(text)
