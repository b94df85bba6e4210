"""What the checks make of what they see: clocks, modes, statuses, arrivals."""

import errno
import grp
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from core.errors import ConnectFailed, ConnectTimeout, Delivered
from gateway.doctor import checks, clock, files, limits, providers, public, ways
from gateway.doctor.context import Context, Reading
from gateway.doctor.report import Finding, Severity, Where, fine
from transport.messages import STRAIGHT
from transport.private_addresses import PrivateAddress


def readings(*seconds: float) -> list[Reading]:
    return [Reading(f"host-{number}", ahead) for number, ahead in enumerate(seconds)]


@pytest.mark.parametrize(
    ("ahead", "severities", "words"),
    [
        ((), [], ""),
        ((0.4, -2, 30), [Severity.FINE], "agrees"),
        ((300.0,), [Severity.FAULT], "this machine's clock is 300 s behind that of host-0"),
        ((-31.0, -40.0, -35.0), [Severity.FAULT], "this machine's clock is 35 s ahead of that of host-2"),
        ((0.0, 300.0), [Severity.FAULT], "300 s behind that of host-1"),
        ((0.0, 1.0, -300.0), [Severity.FINE, Severity.WARNING], "the clock of host-2 is 300 s behind this"),
    ],
)
def test_clocks(ahead: tuple[float, ...], severities: list[Severity], words: str) -> None:
    findings = clock.judge(readings(*ahead))
    assert severities == [finding.severity for finding in findings]
    assert not findings or words in findings[-1].what


@pytest.mark.parametrize(
    ("mode", "secret", "holds", "severities"),
    [
        (0o600, True, True, []),
        (0o640, True, True, []),
        (0o644, False, False, []),
        (0o644, False, True, [Severity.WARNING]),
        (0o644, True, False, [Severity.FAULT]),
        (0o646, False, False, [Severity.FAULT]),
        (0o666, True, False, [Severity.FAULT, Severity.FAULT]),
    ],
)
def test_modes_of_files(tmp_path: Path, mode: int, secret: bool, holds: bool, severities: list[Severity]) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    findings = files.judge(files.Kept(path, "the file", Where(), secret=secret, holds_secrets=holds))
    assert severities == [finding.severity for finding in findings]
    assert all(f"{mode:04o}" in finding.what and "chmod" in finding.mend for finding in findings)


def test_a_group_of_others_may_not_write_but_the_owners_own_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o660)
    kept = files.Kept(path, "the file", Where(), secret=True)
    members: list[str] = []
    owner = files.user_name(os.geteuid())
    entry = type("Entry", (), {"gr_name": owner, "gr_mem": members})
    monkeypatch.setattr(grp, "getgrgid", lambda _gid: entry)
    assert [] == files.judge(kept)
    members.append("somebody")
    assert [Severity.FAULT] == [finding.severity for finding in files.judge(kept)]


def test_a_file_that_is_not_there_is_told_elsewhere(tmp_path: Path) -> None:
    assert [] == files.judge(files.Kept(tmp_path / "none", "the file", Where(), secret=True))
    assert [] == files.judge(files.Kept(tmp_path, "the directory", Where(), secret=True))


KEY = providers.Key("main", Where("providers[0].credentials[0].api_key"), None)
NO_KEY = providers.Key("", Where("providers[0]"), None)


@pytest.mark.parametrize(
    ("status", "content_type", "severity", "words"),
    [
        (200, "application/json; charset=utf-8", Severity.FINE, "takes the credential `main`"),
        (200, "text/html", Severity.WARNING, "no JSON"),
        (307, "", Severity.WARNING, "sends requests elsewhere"),
        (401, "application/json", Severity.FAULT, "refuses the credential `main` (status 401)"),
        (403, "application/json", Severity.FAULT, "refuses the credential `main` (status 403)"),
        (404, "application/json", Severity.WARNING, "has no list of models"),
        (405, "application/json", Severity.WARNING, "has no list of models"),
        (429, "application/json", Severity.WARNING, "answers with status 429"),
        (503, "text/html", Severity.WARNING, "answers with status 503"),
    ],
)
def test_answers_of_providers(status: int, content_type: str, severity: Severity, words: str) -> None:
    finding = providers.judge("openai", KEY, status, content_type)
    assert severity is finding.severity
    assert words in finding.what
    assert severity is Severity.FINE or finding.mend


def test_a_provider_that_wants_a_credential_is_told_how_to_get_one() -> None:
    finding = providers.judge("my-own", NO_KEY, 401, "")
    assert "refuses requests without a credential" in finding.what
    assert 'api_key: "${env:MY_OWN_API_KEY}"' in finding.mend


def every(seconds: float, count: int, at: float = 1000.0) -> list[float]:
    return [at + seconds * number for number in range(count)]


@pytest.mark.parametrize(
    ("arrivals", "held_back"),
    [
        (every(0.02, 26), False),
        ([1000.0], True),
        (every(0.0001, 26), True),
        # Buffers of a few kilobytes.
        ([*every(0.0001, 13), *every(0.0001, 13, at=1000.3)], True),
        # A machine that is busy puts some together.
        ([*every(0.02, 10), *every(0.0001, 8, at=1000.4), *every(0.02, 8, at=1000.5)], False),
    ],
)
def test_streams_that_come_all_at_once(arrivals: list[float], held_back: bool) -> None:
    assert held_back is public.came_together(arrivals, 26, 0.02)


SERVER = ways.Server(
    "the provider `a`", "a.example", 443, True, Where("providers[0].base_url"), STRAIGHT, "providers[0].tls.ca"
)


def untrusted(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code, error.verify_message = code, "words of OpenSSL"
    return error


def broken(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("cause", "what", "mend"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name a.example", "getent hosts a.example"),
        (UnicodeError("label too long"), "cannot be resolved", "correct the name"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refuses connections at a.example:443", "start it"),
        (OSError(errno.ENETUNREACH, "unreachable"), "cannot be reached at a.example:443", "routes"),
        (
            PrivateAddress("10.0.0.1 is an address of a private network"),
            "10.0.0.1 is an address",
            "`allow_private: true`",
        ),
        (untrusted(10), "has expired", "renew it"),
        (untrusted(9), "is not valid yet", "clock"),
        (untrusted(62), "is for other names", "write the name"),
        (untrusted(20), "authority that is not trusted", "`providers[0].tls.ca`"),
        (untrusted(23), "is not good: words of OpenSSL", "renewed"),
        (broken("WRONG_VERSION_NUMBER"), "speaks no TLS at a.example:443", "`http://a.example:443"),
        (broken("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "tlsv13 alert certificate required", "tls.cert"),
    ],
)
def test_why_a_way_ends(cause: Exception, what: str, mend: str) -> None:
    error = ConnectFailed("No connection to the provider could be made.", delivered=Delivered.NO)
    error.__cause__ = cause
    finding = ways.explain(error, SERVER)
    assert Severity.FAULT is finding.severity
    assert what in finding.what
    assert mend in finding.mend


@pytest.mark.parametrize("error", [TimeoutError(), ConnectTimeout("Late.", delivered=Delivered.NO)])
def test_a_way_that_takes_too_long(error: TimeoutError | ConnectTimeout) -> None:
    assert "does not answer at a.example:443 within 5 s" in ways.explain(error, SERVER).what


def test_what_a_proxy_says_is_told() -> None:
    error = ConnectFailed("The proxy wants other credentials.", delivered=Delivered.NO)
    assert "The proxy wants other credentials." in ways.explain(error, SERVER).what


def test_limits_of_open_files() -> None:
    assert Severity.FINE is limits.judge(10_000, 40_000, Where()).severity
    assert Severity.FINE is limits.judge(10_000, resource.RLIM_INFINITY, Where()).severity
    finding = limits.judge(10_000, 4096, Where())
    assert Severity.WARNING is finding.severity
    assert "40000" in finding.mend
    assert "to 1024" in finding.mend


async def test_a_check_that_breaks_ends_no_other_and_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, planted_secret: str
) -> None:
    async def broken(_context: Context) -> AsyncIterator[Finding]:
        yield fine("as far as it went")
        raise RuntimeError(planted_secret)

    async def next_one(_context: Context) -> AsyncIterator[Finding]:
        yield fine("the next")

    monkeypatch.setattr(checks, "CHECKS", (broken, next_one))
    context = cast(Context, None)
    told = [finding.what async for finding in checks.findings_of(context)]
    assert ["as far as it went", "the check of test_doctor_judgements broke (RuntimeError)", "the next"] == told
