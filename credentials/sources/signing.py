"""Private keys, and what is signed with them: JSON Web Tokens that say who we are (RFC 7523).

Reading and signing take milliseconds and libraries of megabytes: both are done in a thread, and the libraries are loaded
where the first key is read.
"""

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_PRIVATE = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_SHORTEST_BITS = 2048


class UnusableKey(Exception):
    """A key that nothing can be signed with; the message ends a sentence that begins with its name, and shows none of it."""


class CertifiedKey(msgspec.Struct, frozen=True):
    """A private key and what stands for it at the server."""

    key: "RSAPrivateKey"
    thumbprint: str
    """SHA-256 of the certificate in DER, as `x5t#S256` has it (RFC 7515 section 4.1.8)."""
    ends_at: float
    """When the certificate ends, in seconds since the Unix epoch."""


# To check the numbers of a key takes some 30 ms, in which the interpreter does nothing else: not at each reload anew.
@lru_cache(maxsize=16)
def read_private_key(pem: str) -> "RSAPrivateKey":
    """
    Raises:
        UnusableKey: it is no RSA key in PEM form, or is encrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  see the module
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    begin = _PRIVATE.search(pem)
    if begin is None:
        raise UnusableKey("has no private key in PEM form: it begins with `-----BEGIN PRIVATE KEY-----`")
    try:
        # Certificates may stand before it.
        key = load_pem_private_key(pem[begin.start() :].encode(), password=None)
    except TypeError:
        raise UnusableKey("has a private key that is encrypted: write it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's own words may repeat a piece of it.
        raise UnusableKey("has a private key that cannot be read: copy it whole, with its line breaks") from None
    if not isinstance(key, RSAPrivateKey):
        raise UnusableKey("has a private key that is not of RSA: the server takes no other")
    if key.key_size < _SHORTEST_BITS:
        raise UnusableKey(f"has a private key of {key.key_size} bits: make one of {_SHORTEST_BITS}, or more")
    return key


def read_certified_key(pem: str) -> CertifiedKey:
    """A private key, and among the certificates beside it the one that is the key's.

    Raises:
        UnusableKey: one of them is missing or cannot be read, or none belongs to the key.
    """
    from cryptography import x509  # noqa: PLC0415  see the module
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    key = read_private_key(pem)
    if "-----BEGIN CERTIFICATE-----" not in pem:
        raise UnusableKey("has no certificate beside its private key: put both in it, one after the other")
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        ours = next((each for each in certificates if each.public_key() == key.public_key()), None)
    except ValueError:
        raise UnusableKey("has a certificate that cannot be read: copy it whole, with its line breaks") from None
    if ours is None:
        raise UnusableKey("has a private key that belongs to another certificate than the one beside it")
    digest = hashlib.sha256(ours.public_bytes(Encoding.DER)).digest()
    return CertifiedKey(
        key, base64.urlsafe_b64encode(digest).decode().rstrip("="), ours.not_valid_after_utc.timestamp()
    )


def signed(
    claims: Mapping[str, object], key: "RSAPrivateKey", algorithm: Literal["RS256", "PS256"], headers: Mapping[str, str]
) -> str:
    """A JSON Web Token."""
    import jwt  # noqa: PLC0415  see the module

    return jwt.encode(dict(claims), key, algorithm=algorithm, headers=dict(headers))


def new_id() -> str:
    """For `jti`: a server may refuse one that it has seen."""
    return str(uuid.uuid4())
