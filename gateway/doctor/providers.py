"""Providers: the way to each, and whether it takes our credentials. Lists of models cost nothing."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from config.schema import Credential, Provider, TokenPlacement
from core.errors import UpstreamError
from core.headers import Headers
from core.secret import Secret
from credentials.errors import CredentialFault, CredentialUnavailable
from credentials.members import Member
from credentials.tokens import CredentialSource
from gateway.doctor.context import SECONDS, Context, url_place
from gateway.doctor.report import Finding, Where, fault, fine, warning
from gateway.doctor.ways import Server, leads_there, look
from proxy.dataplane import BoundProvider
from proxy.placement import prepared
from proxy.providers import PROVIDER_TYPES
from proxy.providers.base import Call

_MODELS = "/models"
_AT_ONCE = 8
_LIVE_KINDS = ("client_credentials", "google_service_account", "azure_entra", "command")
_PROBE_HEADERS = Headers([("accept", "application/json"), ("accept-encoding", "identity")])


class Key(msgspec.Struct, frozen=True):
    """A credential to try; without a secret where the provider has none, or a source is to give it."""

    name: str
    where: Where
    secret: Secret | None
    source: CredentialSource | None = None


async def check(context: Context) -> AsyncIterator[Finding]:
    """Every provider on a network, several at a time."""
    generation = context.generation
    if generation is None or context.settings.offline:
        return
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(position: int, provider: Provider, bound: BoundProvider) -> list[Finding]:
        async with turns:
            return [finding async for finding in _provider(context, position, provider, bound)]

    entries = enumerate(generation.config.providers)
    for findings in await asyncio.gather(
        *(
            in_turn(position, provider, generation.plane.providers[provider.name])
            for position, provider in entries
            if PROVIDER_TYPES[provider.type].transport == "http"
        )
    ):
        for finding in findings:
            yield finding


async def _provider(
    context: Context, position: int, provider: Provider, bound: BoundProvider
) -> AsyncIterator[Finding]:
    entry = ("providers", position)
    proxy = (*entry, "proxy_url") if provider.proxy_url is not None else ("transport", "proxy_url")
    if context.is_damaged(*entry, but="credentials") or context.is_damaged(*proxy):
        # What is told already may be its address: whoever has the default one must not be sent its credentials.
        yield fine(f"the provider `{provider.name}` is not asked before what is told above is mended")
        return
    host, port, tls = url_place(bound.adapter.url(_MODELS))
    server = Server(
        f"the provider `{provider.name}`",
        host,
        port,
        tls,
        context.where(*entry, "base_url"),
        bound.options,
        f"providers[{context.examined.original(entry)[1]}].tls.ca",
        context.where(*proxy),
    )
    way = [finding async for finding in look(context, server)]
    for finding in way:
        yield finding
    if not leads_there(way):
        return
    for key in _keys(context, position, provider):
        yield await _probe(context, provider.name, bound, key)


def _keys(context: Context, position: int, provider: Provider) -> list[Key]:
    """Those that could be had; of the others it is told already."""
    if not provider.credentials and provider.oauth is None:
        where = context.where("providers", position)
        return [] if context.is_damaged("providers", position) else [Key("", where, None)]
    keys = []
    sources = context.generation.token_sources.sources if context.generation is not None else {}
    for number, credential in enumerate(provider.credentials):
        path = ("providers", position, "credentials", number, _kind(credential))
        source = sources.get((provider.name, credential.name))
        if credential.disabled or context.is_damaged(*path) or (credential.api_key is None and source is None):
            continue
        keys.append(Key(credential.name, context.where(*path), credential.api_key, source))
    return keys


def _kind(credential: Credential) -> str:
    return next((kind for kind in _LIVE_KINDS if getattr(credential, kind) is not None), "api_key")


async def _probe(context: Context, name: str, bound: BoundProvider, key: Key) -> Finding:
    """Ask for the list of models, as the gateway would."""
    call = Call("GET", _MODELS, "", _PROBE_HEADERS, None, None, None, SECONDS, bound.options)
    member = Member(name=key.name, secret=key.secret)
    if key.source is not None:
        try:
            tokens = await key.source.obtain(None)
        except CredentialFault as failed:
            return fault(
                key.where,
                f"there is no token for the credential `{key.name}` of the provider `{name}`: {failed}",
                "ask again a little later" if isinstance(failed, CredentialUnavailable) else "mend what is named there",
            )
        member = Member(name=key.name, secret=tokens.access_token, placement=TokenPlacement())
    request = prepared(bound.adapter, call, member)
    try:
        answer = await bound.client.send(request)
    except UpstreamError as error:
        return fault(key.where, f"the provider `{name}` does not answer: {error}", "look at its own log")
    status, kind = answer.status, answer.headers.get("content-type") or ""
    answer.close()
    context.heard(request.url, answer.headers)
    return judge(name, key, status, kind)


def judge(name: str, key: Key, status: int, content_type: str) -> Finding:
    """What the answer to the request for the list of models means."""
    whose = f"the provider `{name}`"
    credential = f"the credential `{key.name}`" if key.name else "requests without a credential"
    if status in (401, 403):
        mend = (
            "it was given a token that the provider does not take: see what the token is for, and what its owner may do there"
            if key.source is not None
            else "put a valid key where its reference leads: the provider's own pages tell which are, and what they may do"
            if key.name
            else f'add one: `credentials: [{{name: main, api_key: "${{env:{_variable(name)}}}"}}]`'
        )
        return fault(key.where, f"{whose} refuses {credential} (status {status})", mend)
    if status in (404, 405):
        return warning(
            key.where,
            f"{whose} has no list of models (status {status}), so that {credential} could not be tried",
            "check that `base_url` ends as its pages say, mostly in `/v1`; it may be right all the same",
        )
    if 300 <= status < 400:
        return warning(
            key.where,
            f"{whose} sends requests elsewhere (status {status}), where the gateway does not follow",
            "write the address that it redirects to in `base_url`",
        )
    if status >= 400:
        return warning(
            key.where,
            f"{whose} answers with status {status}, so that {credential} could not be tried",
            "try again later, and look at the provider's own page of its state",
        )
    if "json" not in content_type.lower():
        return warning(
            key.where,
            f"{whose} answers with something that is no JSON",
            "check that `base_url` is the address of its API, mostly ending in `/v1`",
        )
    return fine(f"{whose} takes {credential}", key.where)


def _variable(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.upper()) + "_API_KEY"
