"""How findings are told."""

import json

import pytest

from config.faults import Fault
from core.secret import Secret
from gateway.doctor.report import Report, Where, fault, fine, split_mend, warning

WHERE = Where.of(Fault(("providers", 0, "base_url"), "", "config.yaml", 7, 3))


def test_each_fault_is_told_with_its_place_and_its_mend() -> None:
    report = Report.of([fine("one thing", WHERE), warning(Where(), "another", ""), fault(WHERE, "a third", "mend it")])
    assert (
        "ok       one thing\n"
        "warning  another\n"
        "FAULT    config.yaml:7:3 providers[0].base_url: a third\n"
        "         mend: mend it\n"
        "1 fault, 1 warning"
    ) == report.text()
    assert not report.ok


def test_warnings_alone_are_no_faults() -> None:
    report = Report.of([warning(Where(), "one", "mend"), warning(Where(), "two", "mend")])
    assert (True, "no faults, 2 warnings") == (report.ok, report.summary())


def test_a_program_is_told_the_same() -> None:
    told = json.loads(Report.of([fault(WHERE, "broken", "mend it")]).json())
    where = {"path": "providers[0].base_url", "file": "config.yaml", "line": 7, "column": 3}
    finding = {"severity": "fault", "where": where, "what": "broken", "mend": "mend it"}
    assert {"ok": False, "findings": [finding]} == told


def test_a_secret_that_a_check_lets_slip_is_masked() -> None:
    held = Secret.literal("letmein-4711")
    report = Report.of([fault(Where(), f"the key {held.reveal()} is bad", f"not {held.reveal()} again")])
    assert "letmein" not in report.text() + report.json()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`${env:A}` is not set: set it", ("`${env:A}` is not set", "set it")),
        ("must be a number", ("must be a number", "correct it")),
        (
            "`${file:a}` cannot be read: there is no such file",
            ("`${file:a}` cannot be read: there is no such file", "correct it"),
        ),
        ("it cannot be opened: there is no key: make one", ("it cannot be opened: there is no key", "make one")),
        ("not YAML: a tab: use spaces", ("not YAML: a tab", "use spaces")),
        ("key.txt: line 3 is empty: remove it", ("key.txt: line 3 is empty", "remove it")),
    ],
)
def test_a_message_is_what_is_wrong_and_then_the_mend(message: str, expected: tuple[str, str]) -> None:
    assert expected == split_mend(message, "correct it")
