"""The document in which a server says where its endpoints are (OpenID Connect Discovery 1.0, RFC 8414)."""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable
from credentials.oauth.http import Way, get_json, is_safe, shown

KEPT_SECONDS: Final = 3600.0
_AGAIN_SECONDS: Final = 60.0
"""After a failure the old document serves so long before another try."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of it."""

    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    sends_issuer: bool = False
    """Whether each of its answers says whose it is (RFC 9207 section 3)."""


class Discovery:
    """One issuer's document, asked for when it is first needed and kept for an hour."""

    def __init__(self, issuer: str, way: Way) -> None:
        self._issuer = issuer
        self._way = way
        self._kept: Metadata | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def metadata(self) -> Metadata:
        """
        Raises:
            CredentialUnavailable: it cannot be had now, and none is kept.
            CredentialRefused: it is another issuer's, or names what is no https address.
        """
        async with self._asking:
            clock = self._way.clock
            if self._kept is None or clock.monotonic() >= self._until:
                try:
                    self._kept, lasts = await self._read(), KEPT_SECONDS
                except CredentialFault:
                    if self._kept is None:
                        raise
                    # Endpoints hardly ever move: better the old ones than none.
                    lasts = _AGAIN_SECONDS
                self._until = clock.monotonic() + lasts
            return self._kept

    async def _read(self) -> Metadata:
        whose = self._way.whose
        for url in _addresses(self._issuer):
            answer = await get_json(self._way, "issuer's discovery document", url)
            if answer.status == 200 and answer.document is not None:
                return self._metadata(answer.document)
            if answer.busy:
                raise CredentialUnavailable(
                    f"{whose}: its issuer is busy or out of order ({answer.said})",
                    retry_after_seconds=answer.retry_after_seconds,
                )
        raise CredentialRefused(
            f"{whose}: its issuer has no discovery document: see that `issuer` is right, or write the endpoints in its place"
        )

    def _metadata(self, document: Mapping[str, object]) -> Metadata:
        whose = self._way.whose
        issuer = document.get("issuer")
        if issuer != self._issuer:
            # RFC 8414 section 3.3: it "MUST NOT be used".
            name = f"`{shown(issuer)}`" if shown(issuer) else "nobody"
            raise CredentialRefused(
                f"{whose}: its discovery document is that of {name}: write as `issuer` exactly what the server calls itself"
            )
        found: dict[str, str | None] = {}
        for key in ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint", "revocation_endpoint"):
            url = document.get(key)
            if url is not None and not self._may_lead_to(url):
                raise CredentialRefused(
                    f"{whose}: the {key} of its discovery document is not an https address: the server has to be mended"
                )
            found[key] = None if url is None else str(url)
        return Metadata(**found, sends_issuer=document.get("authorization_response_iss_parameter_supported") is True)

    def _may_lead_to(self, url: object) -> bool:
        """Whether it is an address that secrets may go to. By http only where the issuer itself is on this machine: any other
        would have us speak to what is behind our back."""
        if not (isinstance(url, str) and url.isascii() and url.isprintable() and is_safe(url)):
            return False
        return urlsplit(url).scheme == "https" or urlsplit(self._issuer).scheme == "http"


def _addresses(issuer: str) -> tuple[str, str]:
    """OpenID Connect Discovery section 4 puts it behind the issuer's path, RFC 8414 section 3 before it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
    )
