"""The key that ``./sluice ctl`` calls with. It is never an argument: those are in the shell's history and in `ps`."""

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.ctl.errors import CtlError

VARIABLE = "SLUICE_ADMIN_KEY"


def key_of(file: str | None, env: Mapping[str, str]) -> str:
    """From ``file``, or the environment, or whoever sits at the terminal.

    Raises:
        CtlError: there is none, or it can be none.
    """
    if file is not None:
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CtlError(f"the key cannot be read from {file}: {error}") from error
        where = file
    elif found := env.get(VARIABLE, "").strip():
        key, where = found, VARIABLE
    elif sys.stdin.isatty():
        key, where = getpass.getpass("admin key: ").strip(), "the terminal"
    else:
        raise CtlError(f"no key: put the admin key, or an API token, into {VARIABLE} or a file (--key-file FILE)")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise CtlError(f"what {where} holds is no key: it is empty, or has characters that no key has")
    return key
