"""What the doctor finds, and how it is told."""

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from config.faults import Fault, Notice, render_path
from telemetry.logs import redact

_SHOWN = {"fault": "FAULT", "warning": "warning", "fine": "ok"}
_INDENT = " " * 9

# Behind the colon comes why, and then the mend behind another; or the words before it are but a name.
_CAUSE_FOLLOWS = re.compile(r"cannot be [a-z]+\Z|\Anot YAML\Z|\A\S+\Z")


class Severity(StrEnum):
    """How much a finding matters."""

    FAULT = "fault"
    """Something does not work, or stands open."""
    WARNING = "warning"
    """Something works, and may not tomorrow or elsewhere."""
    FINE = "fine"


class Where(msgspec.Struct, frozen=True):
    """The key of the configuration that a finding is about; nothing where it is about the machine."""

    path: str = ""
    """Such as `providers[0].base_url`."""
    file: str = ""
    line: int = 0
    column: int = 0

    @classmethod
    def of(cls, remark: Fault | Notice) -> "Where":
        """The place of a remark that has been located."""
        return cls(render_path(remark.path), remark.file, remark.line, remark.column)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return " ".join(part for part in (place, self.path) if part)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. Never with a secret in it."""

    severity: Severity
    where: Where
    what: str
    mend: str = ""
    """What a person can do about it; never empty in a fault."""

    def lines(self) -> list[str]:
        """For a terminal."""
        place = "" if self.severity is Severity.FINE else str(self.where)
        lines = [f"{_SHOWN[self.severity]:<8} {place}{': ' if place else ''}{self.what}"]
        if self.mend:
            lines.append(f"{_INDENT}mend: {self.mend}")
        return lines


def fault(where: Where, what: str, mend: str) -> Finding:
    """Something that must be mended."""
    return Finding(Severity.FAULT, where, what, mend)


def warning(where: Where, what: str, mend: str) -> Finding:
    """Something to look after."""
    return Finding(Severity.WARNING, where, what, mend)


def fine(what: str, where: Where | None = None) -> Finding:
    """Something that is as it should be."""
    return Finding(Severity.FINE, where or Where(), what)


class Report(msgspec.Struct, frozen=True):
    """Everything that was found, in the order of the checks."""

    ok: bool
    """Whether there is no fault."""
    findings: list[Finding]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> "Report":
        """The checks put no secret into what they find; the values that are known are masked all the same."""
        shown = [
            msgspec.structs.replace(finding, what=redact(finding.what), mend=redact(finding.mend))
            for finding in findings
        ]
        return cls(all(finding.severity is not Severity.FAULT for finding in shown), shown)

    def text(self) -> str:
        """For a terminal; the last line sums it up."""
        lines = [line for finding in self.findings for line in finding.lines()]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """Such as `2 faults, 1 warning`."""
        counts = [
            _counted(sum(finding.severity is severity for finding in self.findings), word)
            for severity, word in ((Severity.FAULT, "fault"), (Severity.WARNING, "warning"))
        ]
        return ", ".join(counts)

    def json(self) -> str:
        """For a program."""
        return msgspec.json.encode(self).decode()


def split_mend(message: str, otherwise: str) -> tuple[str, str]:
    """A fault's message as what is wrong and how to mend it, which it says behind a colon; else ``otherwise``."""
    begin = 0
    while (colon := message.find(": ", begin)) >= 0:
        if _CAUSE_FOLLOWS.search(message[begin:colon]) is None:
            return message[:colon], message[colon + 2 :]
        begin = colon + 2
    return message, otherwise


def _counted(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
