"""`server.public_url`: whether clients come through it to the gateway, and whether streams come back event by event."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from itertools import pairwise

import msgspec

from config.schema import Provider
from core.errors import GatewayError, UpstreamError
from core.headers import Headers
from gateway.doctor.context import SECONDS, Context, url_place
from gateway.doctor.report import Finding, Severity, Where, fault, fine, warning
from gateway.doctor.ways import Server, leads_there, look
from proxy.providers import PROVIDER_TYPES
from proxy.providers.echo import EchoOptions
from routing.plan import RouteQuery
from transport.messages import STRAIGHT, UpstreamRequest, UpstreamResponse

_WORDS = 24
_TRIES = 3
_LEAST_INTERVAL_SECONDS = 0.005
_MODEL = "doctor"
_MOST_SECONDS = 20.0
_STREAMS = "/v1/chat/completions"

_KEY = ("server", "public_url")
_UNBUFFER = (
    "have the proxy pass answers on as they come: `proxy_buffering off;` for nginx (and no `gzip` for "
    "`text/event-stream`), or `X-Accel-Buffering: no` added to the answers on the way to it"
)


class _NotTried(Exception):
    """Why the stream was not asked for; the message says what is needed."""


async def check(context: Context) -> AsyncIterator[Finding]:
    """The way, `/healthz` at its end, and a stream."""
    url = context.config.server.public_url
    if url is None or context.settings.offline:
        return
    where = context.where(*_KEY)
    host, port, tls = url_place(url)
    server = Server("`server.public_url`", host, port, tls, where, STRAIGHT, "the gateway's own `server.tls.cert`")
    way = [finding async for finding in look(context, server)]
    for finding in way:
        yield finding
    if not leads_there(way):
        return
    health = await _health(context, url.rstrip("/"), where)
    yield health
    if health.severity is not Severity.FINE:
        return
    try:
        yield await _stream(context, url.rstrip("/"), where)
    except _NotTried as reason:
        what = "whether streams come through `server.public_url` event by event was not looked at"
        yield warning(where, what, str(reason))


async def _health(context: Context, url: str, where: Where) -> Finding:
    request = UpstreamRequest("GET", f"{url}/healthz", Headers(), None, None, SECONDS)
    # Where no gateway runs yet, it cannot answer.
    worse = fault if context.runs_here else warning
    running = "" if context.runs_here else "start the gateway and ask again; if it runs: "
    try:
        answer = await context.resources.client.send(request)
    except UpstreamError as error:
        said = str(error).replace("The provider", "whoever listens there")
        return worse(where, f"{url}/healthz has no answer: {said}", f"{running}look at the log of the proxy before it")
    answer.close()
    if answer.status == HTTPStatus.OK:
        return fine(f"{url}/healthz answers", where)
    return worse(
        where,
        f"{url}/healthz answers with status {answer.status}",
        f"{running}have the proxy pass every path on to the gateway, whose address is `server.listen`",
    )


async def _stream(context: Context, url: str, where: Where) -> Finding:
    """Ask for a stream of the provider that costs nothing. A machine that is busy may have one come in bunches; a proxy that
    holds streams back does so each time."""
    provider, interval_seconds, token = _means(context)
    question = " ".join(f"word{number}" for number in range(_WORDS))
    body = {
        "model": f"{provider.name}/{_MODEL}",
        "stream": True,
        "messages": [{"role": "user", "content": question}],
    }
    headers = Headers(
        [
            ("authorization", f"Bearer {token}"),
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
        ]
    )
    clocks = msgspec.structs.replace(SECONDS, first_byte_seconds=_MOST_SECONDS)
    request = UpstreamRequest("POST", url + _STREAMS, headers, msgspec.json.encode(body), None, clocks)
    for _ in range(_TRIES):
        try:
            async with asyncio.timeout(_MOST_SECONDS + _WORDS * interval_seconds):
                answer = await context.resources.client.send(request)
                if answer.status != HTTPStatus.OK:
                    answer.close()
                    raise _NotTried(_refusal(answer.status, provider, context))
                arrivals, events = await _arrivals(answer, context)
        except (UpstreamError, TimeoutError):
            return fault(
                where, "a stream through `server.public_url` is cut", "raise the timeouts of the proxy before it"
            )
        if not came_together(arrivals, events, interval_seconds):
            return fine("streams come through `server.public_url` event by event", where)
    return fault(where, "a proxy before the gateway holds streams back: all events come at once", _UNBUFFER)


async def _arrivals(answer: UpstreamResponse, context: Context) -> tuple[list[float], int]:
    """When pieces of the stream came (monotonic seconds), and how many events there were."""
    arrivals, whole = [], b""
    while piece := await answer.read():
        arrivals.append(context.resources.clock.monotonic())
        whole += piece
    return arrivals, whole.count(b"data:")


def came_together(arrivals: Sequence[float], events: int, interval_seconds: float) -> bool:
    """Whether ``events``, sent ``interval_seconds`` apart, have come in few bunches.

    A slow machine may put some together, so that they are only held back if four and more come as one all the time.
    """
    bunches = 1 + sum(later - earlier > interval_seconds / 2 for earlier, later in pairwise(arrivals))
    return bunches * 4 <= events


def _means(context: Context) -> tuple[Provider, float, str]:
    """A provider that costs nothing, how fast it speaks, and a token that may ask for it.

    Raises:
        _NotTried: one of them is missing.
    """
    generation = context.generation
    assert generation is not None
    local = [each for each in generation.config.providers if PROVIDER_TYPES[each.type].transport == "local"]
    if not local:
        raise _NotTried(
            "add a provider that answers by itself, `{name: echo, type: echo}`, and name a token that may ask for it "
            "by --token-env"
        )
    name = context.settings.token_env
    token = None if name is None else context.env.get(name)
    if not token:
        missing = "--token-env NAME" if name is None else f"the environment variable {name}, which is not set"
        raise _NotTried(
            f"give a token by {missing}: the variable holds the text of one whose `models` "
            f"let `{local[0].name}/{_MODEL}` through"
        )
    reasons = []
    for provider in local:
        interval = msgspec.convert(provider.options, EchoOptions).interval_seconds
        reason = _objection(context, provider, token)
        if reason is None and interval < _LEAST_INTERVAL_SECONDS:
            reason = f"set `interval_seconds: 0.02` in the options of `{provider.name}`: it says all words at once"
        if reason is None:
            return provider, interval, token
        reasons.append(reason)
    raise _NotTried(reasons[0])


def _objection(context: Context, provider: Provider, token: str) -> str | None:
    """Why ``provider`` cannot be asked with ``token`` without anything else being asked; None: it can."""
    generation = context.generation
    assert generation is not None
    model = f"{provider.name}/{_MODEL}"
    try:
        caller = generation.plane.tokens.find(token)
        if caller is None:
            return "give the text of a token that the document knows, by --token-env"
        plan = generation.plane.router.resolve(RouteQuery(model=model, path=_STREAMS, token=caller.name, stream=True))
    except GatewayError:
        return f"have no route take `{model}` elsewhere"
    groups = [plan.first, *plan.fallbacks.error, *plan.fallbacks.context, *plan.fallbacks.content]
    if any(target.provider != provider.name for group in groups for target in group.targets):
        return f"a route takes `{model}` elsewhere, where it might cost something: have it leave that name alone"
    if not caller.allows_model(model):
        return f"add `{model}` to the `models` of the token `{caller.name}`, or give another by --token-env"
    return None


def _refusal(status: int, provider: Provider, context: Context) -> str:
    if status == HTTPStatus.UNAUTHORIZED:
        return f"the gateway there does not know the token of {context.settings.token_env}: give one that it knows"
    if status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        return f"the token of {context.settings.token_env} may not ask for `{provider.name}/{_MODEL}` there: let it"
    return f"the gateway there answered with status {status}: look at its log"
