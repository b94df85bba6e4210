"""Recorded traffic of providers, where it is at hand: data beside the project, never a part of it."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

PLACE = Path(__file__).resolve().parents[2] / "shared" / "recorded"


class Recorded(msgspec.Struct, frozen=True):
    """One exchange with a provider."""

    api: str
    file: str
    i: str | int
    req: dict[str, Any] | None
    stream: bool
    status: int
    resp_headers: dict[str, str]
    ct: str
    sse: bool
    resp: str
    """The body, as text."""

    def __str__(self) -> str:
        return f"{self.api} {self.file} #{self.i}"

    @property
    def body(self) -> bytes:
        return self.resp.encode()


def recorded(api: str) -> Iterator[Recorded]:
    """The exchanges of one API, such as `openai.chat`; skips the test where they are not at hand."""
    path = PLACE / f"{api}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no recorded traffic at {path}")
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield msgspec.convert(json.loads(line), Recorded, strict=False)
