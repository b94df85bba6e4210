"""Applications of Microsoft Entra ID: a secret, a certificate or the token of a workload's identity earns a token.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, and for the assertion
https://learn.microsoft.com/entra/identity-platform/certificate-credentials
"""

import asyncio

from config.schema import AzureEntra
from core.clock import Clock
from core.secret import Secret
from credentials.errors import CredentialRefused
from credentials.oauth.client_authentication import ASSERTION_TYPE
from credentials.oauth.http import Way
from credentials.sources.exchange import exchange
from credentials.sources.signing import CertifiedKey, UnusableKey, new_id, read_certified_key, signed
from credentials.tokens import TokenSet
from transport.messages import ConnectionOptions, UpstreamClient

_LIFETIME_SECONDS = 600
_EARLY_SECONDS = 60
"""So long before now an assertion begins: the server's clock may be behind ours."""

_SECRET = "see that `client_secret` is the secret's value (not its id) and has not expired"
_CERTIFICATE = "see that the certificate is registered with the application, and that this machine's clock is right"
_FEDERATED = (
    "see that the application has a federated credential of this token's issuer, subject and audience, and that the token "
    "is renewed where `federated_token` leads"
)
_MENDS = {
    "unauthorized_client": "see that `client_id` is an application of `tenant`",
    "invalid_scope": "write a resource and `/.default` in `scope`, such as https://cognitiveservices.azure.com/.default",
}
_OTHERWISE = "see that `tenant`, `client_id`, `scope` and `authority` are those of the application"


class AzureEntraSource:
    """:class:`credentials.tokens.CredentialSource` of an application."""

    kind = "azure_entra"

    def __init__(self, entry: AzureEntra, client: UpstreamClient, options: ConnectionOptions, clock: Clock) -> None:
        self._entry = entry
        self._clock = clock
        self._way = Way(whose=f"Entra application `{entry.client_id}`", client=client, options=options, clock=clock)
        self._url = f"{entry.authority.rstrip('/')}/{entry.tenant}/oauth2/v2.0/token"

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        secret, proof, mend = await self._proof()
        form = {
            "grant_type": "client_credentials",
            "client_id": self._entry.client_id,
            "scope": self._entry.scope,
            **proof,
        }
        return await exchange(
            self._way, self._url, form, secrets=[secret], mends={**_MENDS, "invalid_client": mend}, otherwise=_OTHERWISE
        )

    async def _proof(self) -> tuple[str, dict[str, str], str]:
        """What is secret, the members that carry it, and what to look at if it is refused. Read at each sign-in: who
        runs a workload renews its token every hour or so."""
        entry = self._entry
        if entry.client_secret is not None:
            secret = entry.client_secret.reveal()
            return secret, {"client_secret": secret}, _SECRET
        if entry.certificate is not None:
            secret, mend = await self._by_certificate(entry.certificate)
        else:
            assert entry.federated_token is not None, "config/checks.py wants one of the three"
            secret, mend = entry.federated_token.reveal().strip(), _FEDERATED
        return secret, {"client_assertion_type": ASSERTION_TYPE, "client_assertion": secret}, mend

    async def _by_certificate(self, certificate: Secret) -> tuple[str, str]:
        """The assertion, and what to look at if it is refused."""
        now = self._clock.time()
        try:
            assertion, ours = await asyncio.to_thread(self._assertion, certificate, int(now))
        except UnusableKey as unusable:
            raise CredentialRefused(f"{self._way.whose}: its certificate {unusable}") from None
        return (
            assertion,
            _CERTIFICATE if now < ours.ends_at else "its certificate has expired: put a new one in its place",
        )

    def _assertion(self, certificate: Secret, now: int) -> tuple[str, CertifiedKey]:
        ours = read_certified_key(certificate.reveal())
        claims = {
            "aud": self._url,
            "iss": self._entry.client_id,
            "sub": self._entry.client_id,
            "jti": new_id(),
            "iat": now,
            "nbf": now - _EARLY_SECONDS,
            "exp": now + _LIFETIME_SECONDS,
        }
        return signed(claims, ours.key, "PS256", {"x5t#S256": ours.thumbprint}), ours
