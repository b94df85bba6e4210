"""Google's service accounts: a signed assertion is exchanged for a token (RFC 7523 section 2.1).

https://developers.google.com/identity/protocols/oauth2/service-account
"""

import asyncio
from typing import Final

import msgspec

from config.schema import GoogleServiceAccount
from core.clock import Clock
from credentials.errors import CredentialRefused
from credentials.oauth.http import Way, is_safe
from credentials.sources.exchange import exchange
from credentials.sources.signing import UnusableKey, read_private_key, signed
from credentials.tokens import TokenSet
from transport.messages import ConnectionOptions, UpstreamClient

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_URI = "https://oauth2.googleapis.com/token"
_LIFETIME_SECONDS = 3600
"""The longest that Google takes."""

_MENDS = {
    "invalid_grant": "see that its key is neither deleted nor disabled at Google, and that this machine's clock is right",
    "unauthorized_client": "allow it the `scopes` for the `subject` at Google, by domain-wide delegation",
    "access_denied": "allow it the `scopes` at Google",
    "invalid_scope": "see that `scopes` are those of Google's APIs",
}


class ServiceKey(msgspec.Struct, frozen=True):
    """What we need of the JSON key that Google gives."""

    client_email: str
    private_key: str
    private_key_id: str | None = None
    token_uri: str = _TOKEN_URI

    def __repr__(self) -> str:
        return f"ServiceKey({self.client_email!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("client_email", self.client_email)]


class _Kind(msgspec.Struct, frozen=True):
    type: str = ""


def read_key(text: str) -> ServiceKey:
    """
    Raises:
        UnusableKey: it is no key of a service account.
    """
    try:
        kind = msgspec.json.decode(text, type=_Kind).type
    except (msgspec.MsgspecError, RecursionError):
        raise UnusableKey(
            "is not the JSON key of a service account: download one from Google, and copy it whole"
        ) from None
    if kind != "service_account":
        raise UnusableKey(
            "is JSON of Google's, but no key of a service account: its member `type` must be `service_account`"
        )
    try:
        key = msgspec.json.decode(text, type=ServiceKey)
    except msgspec.ValidationError:
        raise UnusableKey("lacks `client_email` or `private_key`: download the key anew, and copy it whole") from None
    if not is_safe(key.token_uri):
        raise UnusableKey("has a `token_uri` that is no https address: download the key anew")
    return key


def check_key(text: str) -> None:
    """
    Raises:
        UnusableKey: nothing could be signed with it.
    """
    read_private_key(read_key(text).private_key)


class GoogleServiceAccountSource:
    """:class:`credentials.tokens.CredentialSource` of a service account."""

    kind = "google_service_account"

    def __init__(
        self, entry: GoogleServiceAccount, client: UpstreamClient, options: ConnectionOptions, clock: Clock
    ) -> None:
        self._entry = entry
        self._client = client
        self._options = options
        self._clock = clock

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        try:
            key, assertion = await asyncio.to_thread(self._assertion, int(self._clock.time()))
        except UnusableKey as unusable:
            raise CredentialRefused(f"the key of a Google service account {unusable}") from None
        whose = f"Google service account `{key.client_email}`"
        return await exchange(
            Way(whose=whose, client=self._client, options=self._options, clock=self._clock),
            key.token_uri,
            {"grant_type": GRANT_TYPE, "assertion": assertion},
            secrets=[assertion],
            mends=_MENDS,
            otherwise="see that its key is a present one of Google's",
        )

    def _assertion(self, now: int) -> tuple[ServiceKey, str]:
        # Read at each exchange: the handle may give another key since the last one.
        key = read_key(self._entry.key.reveal())
        claims: dict[str, object] = {
            "iss": key.client_email,
            "aud": key.token_uri,
            "scope": " ".join(self._entry.scopes),
            "iat": now,
            "exp": now + _LIFETIME_SECONDS,
        }
        if self._entry.subject is not None:
            claims["sub"] = self._entry.subject
        headers = {} if key.private_key_id is None else {"kid": key.private_key_id}
        return key, signed(claims, read_private_key(key.private_key), "RS256", headers)
