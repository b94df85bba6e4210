"""The environment that `${env:…}` references are read from: the process's own, and a file beneath it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from config.document import decode_text
from config.faults import ConfigFaults, Fault

_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[^\s=]+)\s*=\s*(?P<value>.*)\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_QUOTED = re.compile(r"""(?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)")\s*(?:\#.*)?\Z""")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def environment(env_file: str | Path | None = None) -> Mapping[str, str]:
    """The process's environment over the lines of ``env_file``: what is set in both comes from the process.

    This is the one place that reads `os.environ`; everything else takes the mapping.

    Raises:
        ConfigFaults: the file cannot be read, or has lines that are no assignments.
    """
    if env_file is None:
        return dict(os.environ)
    try:
        data = Path(env_file).read_bytes()
    except OSError as error:
        raise ConfigFaults([Fault((), f"cannot be read: {error.strerror}", str(env_file), 1, 1)]) from None
    return parse_env_file(data, str(env_file)) | dict(os.environ)


def parse_env_file(data: bytes, file: str) -> dict[str, str]:
    r"""Read lines of `NAME=VALUE`; ``file`` is named in faults.

    Empty lines, `# comments` and a leading `export ` are skipped. A value may be bare (it ends before ` #`), in
    single quotes (taken as it is) or in double quotes (`\n`, `\r`, `\t`; any other character after `\` is itself).
    Nothing is expanded and no value goes over several lines.

    Raises:
        ConfigFaults: every line that is no assignment, with its number; never its text, which may be a secret.
    """
    text = decode_text(data, file)
    values: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    faults: list[Fault] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, value = _assignment(line)
            if name in values:
                raise ValueError(f"`{name}` is set on line {first_lines[name]} already: remove one")
        except ValueError as error:
            faults.append(Fault((), str(error), file, number, len(line) - len(line.lstrip()) + 1))
        else:
            values[name] = value
            first_lines[name] = number
    if faults:
        raise ConfigFaults(faults)
    return values


def _assignment(line: str) -> tuple[str, str]:
    """Name and value of one line; ValueError says what is wrong with it."""
    match = _LINE.match(line)
    if not match:
        raise ValueError("not an assignment: write `NAME=VALUE`")
    name, text = match["name"], match["value"]
    if not _NAME.match(name):
        raise ValueError("not a name: use letters, digits and `_`, no digit first")
    if text[:1] not in ("'", '"'):
        return name, re.split(r"(?:^|\s+)#", text, maxsplit=1)[0].strip()
    quoted = _QUOTED.match(text)
    if not quoted:
        raise ValueError(f"the quote of `{name}` is not closed, or text follows it")
    if quoted["double"] is None:
        return name, quoted["single"]
    return name, _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted["double"])
