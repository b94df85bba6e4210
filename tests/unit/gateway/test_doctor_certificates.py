"""Certificates: the time that they are good for, and the names."""

import time
from collections.abc import Iterator

import pytest
from cryptography import x509

from gateway.doctor import certificates
from gateway.doctor.report import Finding, Severity, Where
from tests.authority import Authority

AUTHORITY = Authority()


def certificate(*names: str, **days: float) -> x509.Certificate:
    return certificates.read_chain(AUTHORITY.issue(*names, **days))[0]


def told(made: x509.Certificate) -> Iterator[Finding]:
    return certificates.validity(made, time.time(), Where("server.tls.cert"), "the certificate", "renew it")


@pytest.mark.parametrize(
    ("begins", "ends", "severity", "words"),
    [
        (-30, 60, Severity.FINE, "is good until"),
        (-30, 14.1, Severity.FINE, "is good until"),
        (-30, 13.9, Severity.WARNING, "expires on"),
        (-30, -0.1, Severity.FAULT, "has expired on"),
        (0.1, 60, Severity.FAULT, "is not valid before"),
    ],
)
def test_its_time(begins: float, ends: float, severity: Severity, words: str) -> None:
    (finding,) = told(certificate("a.example", begins_days=begins, ends_days=ends))
    assert severity is finding.severity
    assert f"the certificate {words} 20" in finding.what
    assert severity is Severity.FINE or "renew it" in finding.mend


@pytest.mark.parametrize(
    ("name", "host", "covered"),
    [
        ("llm.example.com", "llm.example.com", True),
        ("LLM.example.com", "llm.Example.com.", True),
        ("llm.example.com", "other.example.com", False),
        ("*.example.com", "llm.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.llm.example.com", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", True),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_its_names(name: str, host: str, covered: bool) -> None:
    assert covered is certificates.covers(certificate("first.example", name), host)


def test_a_certificate_without_names_covers_nothing() -> None:
    made = certificate()
    assert not certificates.covers(made, "nobody")
    assert "no name" == certificates.names(made)


def test_names_are_shown() -> None:
    assert "a.example, *.b.example, ::1" == certificates.names(certificate("a.example", "::1", "*.b.example"))


def test_what_is_no_certificate_is_refused() -> None:
    for data in (b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ValueError, match=r"PEM|asn1"):
            certificates.read_chain(data)
