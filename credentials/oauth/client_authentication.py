"""How our client shows a server that it is the registered one."""

import asyncio
import base64
import secrets
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote_plus

import msgspec

from core.clock import Clock
from core.secret import Secret
from credentials.errors import CredentialRefused

Method = Literal["basic", "post", "private_key_jwt"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME_SECONDS = 60
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Shown(msgspec.Struct, frozen=True):
    """What goes with one form."""

    form: Mapping[str, str]
    authorization: str | None
    secrets: tuple[str, ...]
    """What of it is secret."""


async def show(
    whose: str, client_id: str, client_secret: Secret | None, method: Method, audience: str, clock: Clock
) -> Shown:
    """Show it by ``method`` (RFC 6749 section 2.3.1, RFC 7523 section 2.2); ``audience``: whom an assertion is for.

    Raises:
        CredentialRefused: the secret is none that ``method`` can use.
    """
    if client_secret is None:
        return Shown({"client_id": client_id}, None, ())
    secret = client_secret.reveal()
    if method == "post":
        return Shown({"client_id": client_id, "client_secret": secret}, None, (secret,))
    if method == "basic":
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        return Shown({}, f"Basic {base64.b64encode(pair.encode()).decode()}", (secret,))
    now = int(clock.time())
    claims: dict[str, str | int] = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + _LIFETIME_SECONDS,
    }
    assertion = await asyncio.to_thread(_signed, whose, claims, secret)  # milliseconds
    form = {"client_id": client_id, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    return Shown(form, None, (assertion,))


def _signed(whose: str, claims: Mapping[str, str | int], pem: str) -> str:
    # Here where they are first needed: few clients sign.
    import jwt  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem.encode(), None)
    except Exception:  # its words may repeat a piece of the key
        key = None
    if isinstance(key, RSAPrivateKey):
        return jwt.encode(dict(claims), key, "RS256")
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return jwt.encode(dict(claims), key, _CURVES[key.curve.name])
    if isinstance(key, Ed25519PrivateKey):
        return jwt.encode(dict(claims), key, "EdDSA")
    raise CredentialRefused(
        f"{whose}: `client_secret` is no private key that can sign: `private_key_jwt` wants PEM of RSA, P-256, P-384, P-521 "
        "or Ed25519, without a passphrase"
    )
