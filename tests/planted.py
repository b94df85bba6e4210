"""The secrets that tests plant, and the search for them in all that the tests bring about.

Whatever a test gives as a key, a token, a password or another secret is a text of :func:`planted`: it holds a mark that
occurs nowhere else. tests/conftest.py has everything searched for it, as it is and in base64 or hexadecimal digits (JSON
and addresses change none of its characters): what is printed and logged, files, answers, events, the output of
processes. A find fails the test by the name of the secret; its text is not shown again.

A file that holds secrets because it is the place for them is named to :func:`place_of_secrets`.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_MARK = "planted-5f1d9c3a7e0b"
_LABEL = re.compile(rb"%s-([a-z0-9]+(?:-[a-z0-9]+)*)" % _MARK.encode())
_IN_BASE64 = [base64.b64encode(_MARK.encode()[skip:][: 3 * ((len(_MARK) - skip) // 3)]) for skip in range(3)]
"""In base64 and base64url alike, after any number of bytes: no character of these depends on what is beside the mark."""
_IN_HEX = _MARK.encode().hex().encode()
_BASE64_OF_BASE64URL = bytes.maketrans(b"-_", b"+/")
# What telemetry.logs puts in the place of a secret: whoever logged it has leaked it, though nobody can read it any more.
_MASKED = re.compile(rb"\[redacted(?: secret)?\]")
_NEEDLES = (_MARK.encode(), *_IN_BASE64, _IN_HEX, b"[redacted")

# A needle that lies across two pieces of a large file is found in the second, which begins that much earlier.
_PIECE_BYTES = 1 << 24
_OVERLAP_BYTES = 256


def planted(label: str, prefix: str = "") -> str:
    """A secret text that is told by ``label``: small letters, digits and hyphens between them.

    ``prefix`` gives it the form of a certain kind, such as ``sk-``. The same arguments give the same text.
    """
    text = f"{prefix}{_MARK}-{label}"
    assert {label} == labels(text), f"{label!r} cannot be told in a text"
    return text


def planted_key(label: str) -> bytes:
    """32 bytes for a key, as a base64 or hexadecimal text."""
    key = planted(label).encode().ljust(32, b".")
    assert len(key) == 32, f"{label!r} is too long"
    return key


def labels(data: bytes | str) -> set[str]:
    """Which planted secrets are in ``data``."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if not any(needle in data for needle in _NEEDLES):
        return set()
    return set(_labels(data))


def _labels(data: bytes) -> Iterator[str]:
    for found in _LABEL.finditer(data):
        yield found[1].decode()
    if _MARK.encode() in data and not _LABEL.search(data):
        yield "(cut)"
    if _MASKED.search(data):
        yield "(masked in the log)"
    for needle in _IN_BASE64:
        for found in re.finditer(rb"%s[A-Za-z0-9+/_-]*" % needle, data):
            # What stands before the mark by a byte or two is in the four characters before the needle.
            text = (data[max(found.start() - 4, 0) : found.start()] + found[0]).translate(_BASE64_OF_BASE64URL)
            yield _label_of(_base64_decoded(text[cut:]) for cut in range(4)) + " (in base64)"
    for found in re.finditer(rb"%s(?:[0-9a-f]{2})*" % _IN_HEX, data):
        yield _label_of([binascii.unhexlify(found[0])]) + " (in hexadecimal digits)"


def _base64_decoded(text: bytes) -> bytes:
    # One character alone is no byte yet.
    whole = text[: len(text) - (len(text) % 4 == 1)]
    return base64.b64decode(whole + b"=" * (-len(whole) % 4))


def _label_of(decoded: Iterable[bytes]) -> str:
    return next((found[1].decode() for each in decoded if (found := _LABEL.search(each))), "(cut)")


_finds: list[str] = []
_places: set[Path] = set()
_searched: dict[Path, tuple[int, int, int]] = {}


def search(data: bytes | str | None, where: str) -> None:
    """Search ``data``; what is found fails the test that runs, as its end."""
    if data:
        _finds.extend(f"the planted secret `{label}` is in {where}" for label in sorted(labels(data)))


def take_finds() -> list[str]:
    """What :func:`search` has found since the last call, each once."""
    finds = list(dict.fromkeys(_finds))
    _finds.clear()
    return finds


def place_of_secrets(file: Path) -> Path:
    """Declare that ``file`` may hold planted secrets; gives it back."""
    _places.add(file.absolute())
    return file


def search_files(root: Path, since: float = 0) -> None:
    """:func:`search` all files at or below ``root`` that are new, or written to since the last search.

    Files that were last written before ``since`` (seconds of the epoch) are passed over.
    """
    for file, status in _files(root):
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        if status.st_mtime < since or _searched.get(file) == state or file in _places:
            continue
        _searched[file] = state
        try:
            with file.open("rb") as opened:
                tail = b""
                while piece := opened.read(_PIECE_BYTES):
                    search(tail + piece, f"the file {file}")
                    tail = piece[-_OVERLAP_BYTES:]
        except OSError:
            # It went meanwhile, or may not be read by whoever runs the tests.
            continue


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    pending = [root]
    while pending:
        path = pending.pop()
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                pending.extend(path.iterdir())
            elif stat.S_ISREG(status.st_mode):
                yield path, status
        except OSError:
            continue
