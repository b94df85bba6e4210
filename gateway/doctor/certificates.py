"""What is looked after in a certificate: the time that it is good for, and the names."""

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509

from gateway.doctor.report import Finding, Where, fault, fine, warning

SOON = timedelta(days=14)


def read_chain(data: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, in its order.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    return x509.load_pem_x509_certificates(data)


def read_der(data: bytes) -> x509.Certificate:
    """One certificate as TLS shows it.

    Raises:
        ValueError: it cannot be read.
    """
    return x509.load_der_x509_certificate(data)


def validity(certificate: x509.Certificate, now: float, where: Where, whose: str, renew: str) -> Iterator[Finding]:
    """What ``now`` (seconds since the epoch) means for ``whose`` certificate; ``renew`` says what to do about it."""
    time = datetime.fromtimestamp(now, UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if time >= ends:
        yield fault(where, f"{whose} has expired on {_day(ends)}", renew)
    elif time < begins:
        yield fault(
            where, f"{whose} is not valid before {_day(begins)}", f"wait, or set this machine's clock; or {renew}"
        )
    elif ends - time <= SOON:
        yield warning(where, f"{whose} expires on {_day(ends)}", renew)
    else:
        yield fine(f"{whose} is good until {_day(ends)}", where)


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for ``host``, a name or an address (RFC 9525 section 6)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        wanted = host.lower().removesuffix(".")
    return any(_matches(name.lower(), wanted) for name in names.get_values_for_type(x509.DNSName))


def names(certificate: x509.Certificate) -> str:
    """The names that it is for, for people."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name"
    found = [
        *alternatives.get_values_for_type(x509.DNSName),
        *map(str, alternatives.get_values_for_type(x509.IPAddress)),
    ]
    return ", ".join(found) or "no name"


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        # The star stands for one label, and for the first alone.
        return pattern[2:] == name.partition(".")[2] and "." in name
    return pattern == name


def _day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d")
