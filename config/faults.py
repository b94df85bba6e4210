"""What is wrong with a document, where, and how to mend it."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

import msgspec

Path = tuple[str | int, ...]
"""The way to a value: ``("providers", 0, "name")``."""


class _Remark(msgspec.Struct, frozen=True, omit_defaults=True):
    """``file``, ``line`` and ``column`` (both from 1) are filled in by the loader from ``path``."""

    path: Path
    message: str
    """What is wrong, then how to mend it. Never a secret's value."""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        where = f"{render_path(self.path)}: " if self.path else ""
        return f"{place}{where}{self.message}"


class Fault(_Remark, frozen=True):
    """Why a document cannot be put in force."""


class Notice(_Remark, frozen=True):
    """Advice on a document that is put in force all the same."""


AnyRemark = TypeVar("AnyRemark", Fault, Notice)


class ConfigFaults(Exception):
    """A document that cannot be put in force; ``faults`` is never empty."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def render_path(path: Path) -> str:
    """``("providers", 0, "name")`` as ``providers[0].name``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, or at all of them; ends a message.

    Gives ``": did you mean `x`?"``, or ``" (one of `a`, `b`)"`` when nothing is near, or ``""`` when nothing is known.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f": did you mean `{near[0]}`?"
    if choices:
        return " (one of " + ", ".join(f"`{choice}`" for choice in choices) + ")"
    return ""
