"""RSA keys for tests, with certificates and as Google writes them. To make a key takes long: each is made once."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from tests.planted import planted

KEY_ID = "0123456789abcdef0123456789abcdef01234567"


@cache
def rsa_key(which: str = "one", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same arguments."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem_of(key: rsa.RSAPrivateKey, password: str | None = None) -> str:
    """As OpenSSL writes it, with text before it that no message may repeat."""
    encryption: KeySerializationEncryption = (
        NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
    return f"Bag Attributes\n    friendlyName: {planted('rsa-key')}\n{pem}"


def certificate_of(key: rsa.RSAPrivateKey, ends: datetime | None = None) -> str:
    """PEM of a certificate for ``key``, signed by itself; valid for a year."""
    now = datetime.now(UTC)
    ends = ends or now + timedelta(days=365)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sluice")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=365))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def service_key(key: rsa.RSAPrivateKey, token_uri: str | None, email: str = "robot@project.example.com") -> str:
    """The JSON that Google gives for the key of a service account."""
    members = {
        "type": "service_account",
        "project_id": planted("project"),
        "private_key_id": KEY_ID,
        "private_key": pem_of(key),
        "client_email": email,
        "client_id": "103",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
    }
    return json.dumps({name: value for name, value in members.items() if value is not None})
