"""Vault: the way there, its state, and the token. That each reference can be read, loading has told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from config.schema import Vault
from config.vault.errors import VaultFault
from config.vault.values import VaultValues
from core.errors import UpstreamError
from core.headers import Headers
from gateway.doctor.context import SECONDS, Context, client_options, url_place
from gateway.doctor.report import Finding, Severity, Where, fault, fine, split_mend, warning
from gateway.doctor.ways import Server, leads_there, look
from transport.messages import UpstreamRequest

_SHORT_SECONDS = 30 * 86400.0
_KEY = ("secrets", "vault")
_MOST_BYTES = 64 * 1024

# https://developer.hashicorp.com/vault/api-docs/system/health
_GOOD_STATES = {
    200: "is active and unsealed",
    429: "is a standby, which passes requests on to the active node",
    473: "is a performance standby",
}
_BAD_STATES = {
    472: ("is a secondary for disaster recovery, which answers nothing", "name the address of the primary cluster"),
    474: ("is a standby that knows no active node", "look at its cluster: `vault operator members`"),
    501: ("is not initialized", "`vault operator init`, or correct `secrets.vault.address`"),
    503: ("is sealed", "unseal it: `vault operator unseal`, or mend its auto-unseal"),
}


class _Token(msgspec.Struct):
    """What `auth/token/lookup-self` tells."""

    ttl: float = 0
    renewable: bool = False
    expire_time: str | None = None


class _LookUp(msgspec.Struct):
    data: _Token


async def check(context: Context) -> AsyncIterator[Finding]:
    """Where a Vault is configured."""
    settings = context.config.secrets.vault
    if settings is None or context.settings.offline or context.is_damaged(*_KEY, but="auth"):
        return
    where = context.where(*_KEY, "address")
    host, port, tls = url_place(settings.address)
    options = client_options(context, settings.tls.ca, settings.tls.cert, settings.tls.key)
    server = Server("Vault", host, port, tls, where, options, "secrets.vault.tls.ca")
    way = [finding async for finding in look(context, server)]
    for finding in way:
        yield finding
    if not leads_there(way):
        return
    state = await _state(context, settings, where)
    yield state
    if state.severity is Severity.FAULT:
        return
    if context.is_damaged(*_KEY, "auth"):
        return
    if settings.auth.method == "token" and settings.auth.token is not None:
        yield await _token(context, settings)
    elif context.generation is not None and context.generation.loaded.vault is not None:
        yield await _sign_in(context.generation.loaded.vault, context.where(*_KEY, "auth"))


async def _sign_in(values: VaultValues, where: Where) -> Finding:
    """Loading has signed in already, where a reference is read from Vault."""
    try:
        await asyncio.to_thread(values.signed_in)
    except VaultFault as error:
        what, mend = split_mend(str(error), "correct `secrets.vault.auth`, or what Vault has for the role")
        return fault(where, f"the gateway cannot sign in to Vault: {what}", mend)
    return fine("the gateway signs in to Vault", where)


async def _state(context: Context, settings: Vault, where: Where) -> Finding:
    """`sys/health`, which asks for no token."""
    try:
        status, _ = await _get(context, settings, "sys/health")
    except UpstreamError as error:
        return fault(where, f"Vault does not answer: {_named(error)}", "look at Vault's own log")
    if status in _GOOD_STATES:
        return fine(f"Vault {_GOOD_STATES[status]}", where)
    if status in _BAD_STATES:
        what, mend = _BAD_STATES[status]
        return fault(where, f"Vault {what}", mend)
    return warning(
        where,
        f"what answers there is no Vault, as it seems: sys/health gives status {status}",
        "correct `secrets.vault.address`: scheme, host and port, without /v1",
    )


async def _token(context: Context, settings: Vault) -> Finding:
    """A token that is given cannot be had anew when it ends."""
    token = settings.auth.token
    assert token is not None
    where = context.where(*_KEY, "auth", "token")
    try:
        status, body = await _get(context, settings, "auth/token/lookup-self", token.reveal())
        found = msgspec.json.decode(body, type=_LookUp).data if status == 200 else None
    except (UpstreamError, msgspec.DecodeError):
        found, status = None, 0
    if found is None:
        if status == 403:
            return fault(
                where,
                "Vault refuses the token",
                "give one that is valid: `vault token create -policy=… -period=24h`; if it may not look itself up, "
                'its policy must have `path "auth/token/lookup-self" { capabilities = ["read"] }`',
            )
        return warning(where, "Vault does not tell how long the token is good for", "look at Vault's own log")
    if found.ttl and not found.renewable and found.ttl < _SHORT_SECONDS:
        return warning(
            where,
            f"the token for Vault ends in {_span(found.ttl)}, and cannot be renewed",
            "sign in by `approle` or `kubernetes`, or give a periodic token: `vault token create -policy=… -period=24h`",
        )
    return fine("Vault takes the token", where)


async def _get(context: Context, settings: Vault, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Status and body."""
    fields = [("accept", "application/json"), ("accept-encoding", "identity"), ("x-vault-request", "true")]
    if token is not None:
        fields.append(("x-vault-token", token))
        if settings.namespace is not None:
            fields.append(("x-vault-namespace", settings.namespace))
    options = client_options(context, settings.tls.ca, settings.tls.cert, settings.tls.key)
    url = f"{settings.address.rstrip('/')}/v1/{path}"
    answer = await context.resources.client.send(
        UpstreamRequest("GET", url, Headers(fields), None, None, SECONDS, options)
    )
    try:
        context.heard(url, answer.headers)
        body = b""
        while len(body) < _MOST_BYTES and (piece := await answer.read()):
            body += piece
    finally:
        answer.close()
    return answer.status, body


def _named(error: Any) -> str:
    """The transport's own words, which are for providers."""
    return str(error).replace("The provider", "it").replace("the provider", "it")


def _span(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / 60:.0f} minutes"
