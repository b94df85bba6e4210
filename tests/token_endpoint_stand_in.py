"""Stand-ins for the token endpoints of Google and of Microsoft Entra ID: real HTTP on a real socket.

What they are sent they judge by themselves, by the vendors' pages and RFC 7515 and 7523, with nothing of ours and no library
for JSON Web Tokens: the signature, the header and each claim. Their refusals are worded as the vendors'.
"""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from core.clock import Clock
from tests.planted import planted

GOOGLE_TOKEN = planted("google-token", "ya29.")
ENTRA_TOKEN = planted("entra-token", "eyJ.")


class _Refused(Exception):
    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


@dataclass(frozen=True)
class Assertion:
    """A JSON Web Token taken apart."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, text: str) -> "Assertion":
        parts = text.split(".")
        if len(parts) != 3 or "=" in text:
            raise _Refused("invalid_request", "Not a JWS in compact form.")
        header, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
        return cls(json.loads(header), json.loads(claims), f"{parts[0]}.{parts[1]}".encode(), signature)


@dataclass
class Application:
    """Of a directory."""

    client_secret: str | None = None
    certificate: bytes | None = None
    """PEM."""
    federated: tuple[str, str, RSAPublicKey] | None = None
    """Issuer, subject and key of tokens that are taken for it."""


@dataclass
class TokenEndpoints:
    """Both, at one address."""

    clock: Clock
    base: str = ""
    accounts: dict[str, tuple[str, RSAPublicKey]] = field(default_factory=dict)
    """Of Google, by their addresses: the id of the key, and the key."""
    subjects: frozenset[str] = frozenset()
    """Users that every account may act for."""
    tenant: str = "contoso.example.com"
    applications: dict[str, Application] = field(default_factory=dict)
    instead: list[web.Response] = field(default_factory=list)
    """What is answered before anything is judged, one after the other."""
    forms: list[dict[str, str]] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    """Those that were taken."""
    _seen: set[str] = field(default_factory=set)

    @property
    def google(self) -> str:
        return f"{self.base}/google/token"

    @property
    def entra(self) -> str:
        return f"{self.base}/{self.tenant}/oauth2/v2.0/token"

    async def answer(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.forms.append(form)
        if self.instead:
            return self.instead.pop(0)
        try:
            if request.content_type != "application/x-www-form-urlencoded":
                raise _Refused("invalid_request", "Not a form.")
            if request.path == "/google/token":
                return web.json_response(self._google(form))
            if request.path == f"/{self.tenant}/oauth2/v2.0/token":
                return web.json_response(self._entra(form))
        except _Refused as refused:
            return web.json_response(
                {"error": refused.error, "error_description": refused.description}, status=refused.status
            )
        return web.Response(status=404, text="<html>nothing here</html>", content_type="text/html")

    def _google(self, form: dict[str, str]) -> dict[str, object]:
        # https://developers.google.com/identity/protocols/oauth2/service-account
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            raise _Refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        assertion = Assertion.read(form.get("assertion", ""))
        claims, now = assertion.claims, self.clock.time()
        if claims.get("iss") not in self.accounts:
            raise _Refused("invalid_grant", "Invalid grant: account not found")
        key_id, key = self.accounts[claims["iss"]]
        if assertion.header != {"alg": "RS256", "typ": "JWT", "kid": key_id}:
            raise _Refused("invalid_grant", "Invalid JWT Signature.")
        _verify(key, assertion, padding.PKCS1v15(), "invalid_grant", "Invalid JWT Signature.")
        if claims.get("aud") != self.google:
            raise _Refused("invalid_grant", "Invalid JWT: Failed audience check.")
        begins, ends = claims.get("iat"), claims.get("exp")
        if not (isinstance(begins, int) and isinstance(ends, int) and begins <= now + 10 < ends <= begins + 3600):
            raise _Refused(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            )
        if "sub" in claims and claims["sub"] not in self.subjects:
            raise _Refused(
                "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method.", 401
            )
        if not claims.get("scope"):
            raise _Refused("invalid_scope", "Empty or missing scope not allowed.")
        self.assertions.append(assertion)
        return {"access_token": GOOGLE_TOKEN, "expires_in": 3599, "token_type": "Bearer"}

    def _entra(self, form: dict[str, str]) -> dict[str, object]:
        # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
        if form.get("grant_type") != "client_credentials":
            raise _Refused("unsupported_grant_type", "AADSTS70003")
        application = self.applications.get(form.get("client_id", ""))
        if application is None:
            raise _Refused("unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if not form.get("scope", "").endswith("/.default"):
            raise _Refused("invalid_scope", "AADSTS1002012: The provided value for scope is not valid.")
        if "client_secret" in form:
            if form["client_secret"] != application.client_secret:
                raise _Refused("invalid_client", "AADSTS7000215: Invalid client secret provided.", 401)
        elif form.get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
            self._client_assertion(form["client_id"], application, Assertion.read(form.get("client_assertion", "")))
        else:
            raise _Refused("invalid_client", "AADSTS7000218: The request body must contain client_assertion.", 401)
        return {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": ENTRA_TOKEN}

    def _client_assertion(self, client_id: str, application: Application, assertion: Assertion) -> None:
        # https://learn.microsoft.com/entra/identity-platform/certificate-credentials
        claims, now = assertion.claims, self.clock.time()
        if application.federated is not None:
            issuer, subject, key = application.federated
            if (claims.get("iss"), claims.get("sub")) != (issuer, subject):
                raise _Refused("invalid_client", "AADSTS70021: No matching federated identity record found.", 401)
            _verify(key, assertion, padding.PKCS1v15(), "invalid_client", "AADSTS50027: JWT token is invalid.")
        else:
            assert application.certificate is not None
            certificate = x509.load_pem_x509_certificate(application.certificate)
            digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
            thumbprint = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if assertion.header != {"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint}:
                raise _Refused("invalid_client", "AADSTS700027: The certificate is not registered.", 401)
            key = _rsa(certificate)
            salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            _verify(key, assertion, salted, "invalid_client", "AADSTS700027: signature validation failed.")
            if not claims["iss"] == claims["sub"] == client_id or claims["aud"] != self.entra:
                raise _Refused("invalid_client", "AADSTS700021: Client assertion issuer or audience.", 401)
            if claims["jti"] in self._seen:
                raise _Refused("invalid_client", "AADSTS700024: seen before", 401)
            self._seen.add(claims["jti"])
        if not claims.get("nbf", now) <= now < claims["exp"]:
            raise _Refused("invalid_client", "AADSTS700024: Client assertion is not within its valid time range.", 401)
        self.assertions.append(assertion)


def _verify(key: RSAPublicKey, assertion: Assertion, padded: Any, error: str, description: str) -> None:
    try:
        key.verify(assertion.signature, assertion.signed, padded, hashes.SHA256())
    except InvalidSignature:
        raise _Refused(error, description, 400 if error == "invalid_grant" else 401) from None


def _rsa(certificate: x509.Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)
    return key


@asynccontextmanager
async def token_endpoints(clock: Clock) -> AsyncIterator[TokenEndpoints]:
    """Served until the end."""
    endpoints = TokenEndpoints(clock)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", endpoints.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        endpoints.base = f"http://{host}:{port}"
        yield endpoints
    finally:
        await runner.cleanup()
