"""What is told of a credential when it is loaded: keys that nothing can be signed with, and where they stand."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config.faults import Fault
from config.schema import AzureEntra, CommandCredential, Credential, GoogleServiceAccount
from core.secret import Secret
from credentials.sources.build import check
from credentials.sources.google_service_account import read_key
from credentials.sources.signing import read_certified_key
from tests.planted import labels, planted
from tests.rsa_keys import certificate_of, pem_of, rsa_key, service_key

KEY = rsa_key()
CERTIFIED = certificate_of(KEY) + pem_of(KEY)


def elliptic() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def google(text: str) -> Credential:
    return Credential(name="a", google_service_account=GoogleServiceAccount(key=Secret.literal(text)))


def entra(**members: Any) -> Credential:
    if not {"certificate", "federated_token", "client_secret"} & members.keys():
        members["client_secret"] = planted("entra-client")
    secret: dict[str, Any] = {
        key: Secret.literal(members.pop(key)) if key in members else None
        for key in ("client_secret", "certificate", "federated_token")
    }
    return Credential(name="a", azure_entra=AzureEntra(**{"tenant": "t", "client_id": "c", **members}, **secret))


def changed_key(**members: object) -> str:
    return json.dumps({**json.loads(service_key(KEY, None)), **members})


def without(*names: str) -> str:
    return json.dumps({name: value for name, value in json.loads(service_key(KEY, None)).items() if name not in names})


def cut(pem: str) -> str:
    lines = pem.splitlines(keepends=True)
    return "".join(lines[: len(lines) // 2] + lines[-1:])


PLACE_OF_KEY = ("google_service_account", "key")
PLACE_OF_CERTIFICATE = ("azure_entra", "certificate")


@pytest.mark.parametrize(
    ("credential", "place", "words"),
    [
        (google("{"), PLACE_OF_KEY, "is not the JSON key of a service account"),
        (google(planted("no-json")), PLACE_OF_KEY, "is not the JSON key of a service account"),
        (google("[" * 10_000), PLACE_OF_KEY, "is not the JSON key of a service account"),
        (google(pem_of(KEY)), PLACE_OF_KEY, "is not the JSON key of a service account"),
        (google(changed_key(type="authorized_user")), PLACE_OF_KEY, "`type` must be `service_account`"),
        (google(without("type")), PLACE_OF_KEY, "`type` must be `service_account`"),
        (google(without("client_email")), PLACE_OF_KEY, "lacks `client_email` or `private_key`"),
        (google(changed_key(private_key=None)), PLACE_OF_KEY, "lacks `client_email` or `private_key`"),
        (google(changed_key(private_key="AAAA")), PLACE_OF_KEY, "has no private key in PEM form"),
        (google(changed_key(private_key=cut(pem_of(KEY)))), PLACE_OF_KEY, "cannot be read: copy it whole"),
        (google(changed_key(private_key=elliptic())), PLACE_OF_KEY, "is not of RSA"),
        (
            google(changed_key(token_uri="http://tokens.example.com")),
            PLACE_OF_KEY,
            "`token_uri` that is no https address",
        ),
        (entra(certificate=""), PLACE_OF_CERTIFICATE, "has no private key in PEM form"),
        (entra(certificate="a certificate alone"), PLACE_OF_CERTIFICATE, "has no private key in PEM form"),
        (entra(certificate=certificate_of(KEY)), PLACE_OF_CERTIFICATE, "has no private key in PEM form"),
        (entra(certificate=pem_of(KEY)), PLACE_OF_CERTIFICATE, "has no certificate beside its private key"),
        (
            entra(certificate=certificate_of(KEY) + pem_of(KEY, planted("passphrase"))),
            PLACE_OF_CERTIFICATE,
            "is encrypted: write it without a password",
        ),
        (
            entra(certificate=CERTIFIED.replace("\n", "\\n")),
            PLACE_OF_CERTIFICATE,
            "cannot be read: copy it whole, with its line breaks",
        ),
        (
            entra(certificate=certificate_of(rsa_key("another")) + pem_of(KEY)),
            PLACE_OF_CERTIFICATE,
            "belongs to another certificate",
        ),
        (
            entra(certificate=cut(certificate_of(KEY)) + pem_of(KEY)),
            PLACE_OF_CERTIFICATE,
            "has a certificate that cannot be read",
        ),
        (
            entra(certificate=certificate_of(rsa_key("short", 1024)) + pem_of(rsa_key("short", 1024))),
            PLACE_OF_CERTIFICATE,
            "of 1024 bits: make one of 2048",
        ),
        (entra(tenant="contoso/common"), ("azure_entra", "tenant"), "neither the id nor a domain"),
        (entra(authority="http://login.example.com"), ("azure_entra", "authority"), "is not an https address"),
        (
            Credential(name="a", command=CommandCredential(run=("bin/token",))),
            ("command", "run", 0),
            "write its whole path, or its name alone",
        ),
    ],
)
def test_a_credential_that_cannot_work_is_told_with_its_place_and_without_its_key(
    credential: Credential, place: tuple[str | int, ...], words: str
) -> None:
    (fault,) = check(credential)
    assert place == fault.path
    assert words in fault.message
    assert not labels(str(fault))


@pytest.mark.parametrize(
    "credential",
    [
        google(service_key(KEY, None)),
        google(service_key(KEY, "http://127.0.0.1:1/token")),
        entra(certificate=CERTIFIED),
        entra(certificate=pem_of(KEY) + certificate_of(KEY)),
        entra(certificate=CERTIFIED.replace("\n", "\r\n")),
        # A chain, whose order nobody minds.
        entra(certificate=certificate_of(rsa_key("another")) + CERTIFIED),
        # It is for the server to say that it has ended: an edit of something else must not fail for it.
        entra(certificate=certificate_of(KEY, datetime(2020, 1, 1, tzinfo=UTC)) + pem_of(KEY)),
        entra(federated_token=planted("federated")),
        entra(tenant="5a1b2c3d-0000-4000-8000-000000000000", authority="https://login.microsoftonline.us/"),
        Credential(name="a", command=CommandCredential(run=("/usr/bin/token", "a/b"))),
        Credential(name="a", command=CommandCredential(run=("token",))),
        Credential(name="a", client_credentials="company"),
        Credential(name="a", api_key=Secret.literal(planted("key"))),
        # What is wrong with these is told by config/checks.py.
        Credential(name="a"),
        Credential(name="a", azure_entra=AzureEntra(tenant="t", client_id="c")),
    ],
)
def test_what_can_work_is_told_nothing_of(credential: Credential) -> None:
    assert [] == list[Fault](check(credential))


def test_the_thumbprint_is_that_of_the_keys_own_certificate() -> None:
    ends = datetime(2031, 1, 1, tzinfo=UTC)
    own = certificate_of(KEY, ends)
    held = read_certified_key(certificate_of(rsa_key("another")) + own + pem_of(KEY))
    digest = hashlib.sha256(x509.load_pem_x509_certificate(own.encode()).public_bytes(Encoding.DER)).digest()
    assert (digest, ends.timestamp()) == (base64.urlsafe_b64decode(held.thumbprint + "="), held.ends_at)


def test_a_key_of_googles_is_not_rendered() -> None:
    assert "ServiceKey('robot@project.example.com')" == repr(read_key(service_key(KEY, None)))
