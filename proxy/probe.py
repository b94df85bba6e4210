"""Questions of the gateway's own to a provider: for its models, or for a word of one of them.

They are no client's requests: nothing cools down by them, no event tells of them, and their way is another pool of
connections. They go where the provider's entry says, with a credential of its entry: nothing else can be passed in.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import msgspec

from core.clock import Clock
from core.errors import (
    CredentialNotReady,
    CredentialsRejected,
    UpstreamError,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from core.headers import Headers
from credentials.members import Member
from credentials.pool import NAMELESS
from proxy.answer import read_error, without_echo
from proxy.dataplane import BoundProvider, DataPlane
from proxy.live_credentials import freshen
from proxy.placement import prepared
from proxy.providers.base import Call, ListedModel
from transport.messages import Clocks, UpstreamClient, UpstreamRequest, UpstreamResponse

MAX_LIST_BYTES = 16 * 1024 * 1024
"""The largest list of models that is read, all its pages together."""
MAX_MODELS = 10_000
"""More are not kept."""

_MAX_PAGES = 100
_CLOCKS = Clocks(connect_seconds=5, first_byte_seconds=15, idle_seconds=15)
_LIST_SECONDS = 30.0
_KNOCK_SECONDS = 15.0
# A model may have to be loaded first.
_TRIAL_CLOCKS = Clocks(connect_seconds=5, first_byte_seconds=60, idle_seconds=30)
_TRIAL_SECONDS = 90.0
_TRIAL_BYTES = 1024 * 1024
# What is larger is taken apart in a thread: it would hold up requests.
_AT_ONCE_BYTES = 64 * 1024
_ASKS_FOR_JSON = Headers([("accept", "application/json"), ("accept-encoding", "identity")])
_SENDS_JSON = Headers([*_ASKS_FOR_JSON, ("content-type", "application/json")])

_CREDENTIAL_FIELDS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
# Shorter ones are words that any list may hold: local servers take whatever they are given.
_SHORTEST_SECRET = 10
# Of other fields of the entry, and of its address's query: they may be secrets, and are versions and names mostly.
_SHORTEST_OTHER = 16
# Lists say them themselves: models are owned by organizations.
_TOLD_FIELDS = frozenset({"openai-organization", "openai-project"})

# As JSON may write ASCII: a secret that is repeated so is the same once it is read.
_ESCAPED = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|(/))")

_Models = tuple[ListedModel, ...]


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a question."""

    method: str
    url: str
    credential: str | None
    """Its name; None: the provider has none."""
    status: int | None
    """The provider's; None: it gave none."""
    error: UpstreamError | None
    seconds: float
    models: _Models = ()
    """Where it was asked for them."""


class Prober:
    """Asks providers. Every method raises KeyError where there is none of that name, and nothing else."""

    def __init__(
        self,
        plane: Callable[[], DataPlane],
        client_of: Callable[[BoundProvider], UpstreamClient],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """``plane`` is the one in force; ``client_of`` the way to a provider, beside that of clients' requests."""
        self._plane = plane
        self._client_of = client_of
        self._clock = clock
        self._random = random

    async def models(self, name: str, *, others: bool = True) -> Probed:
        """Read the list of models whole; with ``others``, by another credential where one is refused."""
        return await self._probe(name, _Asking.all_models, _LIST_SECONDS, others=others)

    async def knock(self, name: str) -> Probed:
        """Ask for the models, and look no further than whether the answer begins as JSON does."""
        return await self._probe(name, _Asking.look, _KNOCK_SECONDS)

    async def trial(self, name: str, model: str) -> Probed:
        """Have ``model`` say a word, which may cost something."""
        return await self._probe(name, lambda asking: asking.say(model), _TRIAL_SECONDS)

    async def _probe(
        self, name: str, ask: "Callable[[_Asking], Awaitable[_Models]]", seconds: float, *, others: bool = False
    ) -> Probed:
        plane = self._plane()
        bound = plane.providers[name]
        began = self._clock.monotonic()
        tried: list[str] = []
        while True:
            known = plane.pools.names(name)
            # One that has a pause, or needs a login, still tells more than none.
            credential = plane.pools.choose(name, tried, began, self._random) or next(
                (each for each in known if each not in tried), None
            )
            if credential is None:
                return _unasked(bound, plane.pools.lack(name, None, None))
            tried.append(credential)
            member = plane.pools.member(name, credential)
            asking = _Asking(bound, self._client_of(bound), member)
            models: _Models = ()
            error: UpstreamError | None = None
            try:
                if member.live is not None and not member.live.fresh(self._clock.time()):
                    await freshen(member, name, _CLOCKS)
                async with asyncio.timeout(seconds):
                    models = await ask(asking)
            except TimeoutError:
                error = UpstreamTimeout(f"The provider's answer was not complete in {seconds:g} seconds.")
            except UpstreamError as failure:
                error = failure
                refused = isinstance(failure, CredentialsRejected | UpstreamRateLimited | CredentialNotReady)
                if refused and others and len(tried) < len(known):
                    continue
            return Probed(
                method=asking.method,
                url=asking.url,
                credential=None if credential == NAMELESS else credential,
                status=asking.status,
                error=error,
                seconds=self._clock.monotonic() - began,
                models=models,
            )


def _unasked(bound: BoundProvider, lack: str) -> Probed:
    """Of a provider that there is no credential for."""
    url = bound.adapter.url(bound.adapter.models_path)
    return Probed(method="GET", url=url, credential=None, status=None, error=CredentialNotReady(lack), seconds=0.0)


class _Asking:
    """One provider, asked by one credential."""

    def __init__(self, bound: BoundProvider, client: UpstreamClient, member: Member) -> None:
        self._bound = bound
        self._client = client
        self._member = member
        self.method = "GET"
        self.url = bound.adapter.url(bound.adapter.models_path)
        self.status: int | None = None
        self._sent: tuple[bytes, ...] = ()

    async def all_models(self) -> _Models:
        adapter = self._bound.adapter
        found: dict[str, ListedModel] = {}
        query: str | None = ""
        asked: set[str] = set()
        left = MAX_LIST_BYTES
        # A list that leads back to a page of its own, or on without end, is not followed.
        while query is not None and query not in asked and len(asked) < _MAX_PAGES and len(found) < MAX_MODELS:
            asked.add(query)
            body = await self._whole(self._get(query), left, "list of models")
            left -= len(body)
            if len(body) > _AT_ONCE_BYTES:
                page = await asyncio.get_running_loop().run_in_executor(None, adapter.read_models, body)
            else:
                page = adapter.read_models(body)
            for model in page.models:
                found.setdefault(model.id, model)
            query = page.next_query
        return tuple(found.values())[:MAX_MODELS]

    async def look(self) -> _Models:
        async with self._answer(self._get("")) as response:
            begun = b""
            while not begun.lstrip() and (piece := await response.read()):
                begun = piece
        if begun.lstrip()[:1] not in (b"{", b"["):
            raise UpstreamMalformed("The provider's list of models is not JSON: check `base_url`.")
        return ()

    async def say(self, model: str) -> _Models:
        trial = self._bound.adapter.trial(model)
        self.method, self.url = "POST", self._bound.adapter.url(trial.path)
        call = self._call("POST", trial.path, "", _SENDS_JSON, trial.body, model, _TRIAL_CLOCKS)
        body = await self._whole(call, _TRIAL_BYTES, "answer")
        if body.lstrip()[:1] != b"{":
            raise UpstreamMalformed("The provider's answer is not JSON: check `base_url`.")
        return ()

    def _get(self, query: str) -> Call:
        return self._call("GET", self._bound.adapter.models_path, query, _ASKS_FOR_JSON, None, None, _CLOCKS)

    def _call(
        self,
        method: str,
        path: str,
        query: str,
        headers: Headers,
        body: bytes | None,
        model: str | None,
        clocks: Clocks,
    ) -> Call:
        options = self._bound.options_for(self._member.proxy_url)
        return Call(method, path, query, headers, body, None, model, clocks, options)

    async def _whole(self, call: Call, most: int, what: str) -> bytes:
        async with self._answer(call) as response:
            pieces: list[bytes] = []
            size = 0
            while piece := await response.read():
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    raise UpstreamMalformed(f"The provider's {what} is larger than the gateway reads.")
        body = b"".join(pieces)
        if len(body) > _AT_ONCE_BYTES:
            repeats = await asyncio.get_running_loop().run_in_executor(None, _repeats, body, self._sent)
        else:
            repeats = _repeats(body, self._sent)
        if repeats:
            # It would be stored and shown.
            raise UpstreamMalformed(f"The provider's {what} repeats the credential that it was sent.")
        return body

    @asynccontextmanager
    async def _answer(self, call: Call) -> AsyncIterator[UpstreamResponse]:
        """A good answer. Raises UpstreamError otherwise."""
        adapter = self._bound.adapter
        request = prepared(adapter, call, self._member)
        placement = self._member.placement
        fields = _CREDENTIAL_FIELDS if placement is None else _CREDENTIAL_FIELDS | {placement.header.lower()}
        self._sent = tuple(_secrets(request, adapter.url(""), fields))
        response = await self._client.send(request)
        self.status = response.status
        try:
            if 400 <= response.status < 600:
                body = without_echo(await read_error(response), request.headers, call.headers)
                raise adapter.classify(response.status, response.headers, body)
            if not 200 <= response.status < 300:
                raise UpstreamMalformed(f"The provider answered with {response.status}: check `base_url`.")
            yield response
        finally:
            response.close()


def _repeats(body: bytes, sent: tuple[bytes, ...]) -> bool:
    """Whether one of the secrets that were ``sent`` is in a JSON text, however it is written there."""
    if any(secret in body for secret in sent):
        return True
    if b"\\" not in body:
        return False
    read = _ESCAPED.sub(lambda found: found[2] or bytes((int(found[1], 16),)), body)
    return any(secret in read for secret in sent)


def _secrets(request: UpstreamRequest, base_url: str, credential_fields: frozenset[str]) -> Iterator[bytes]:
    """What of ``request`` the entry alone has said, and may not have meant for everybody."""
    known = {name for name, _ in _SENDS_JSON}
    for name, value in request.headers:
        is_credential = name in credential_fields
        if name in known or name in _TOLD_FIELDS:
            continue
        # A scheme before a credential is no secret: `Bearer …`.
        text = value.rpartition(" ")[2]
        if len(text) >= (_SHORTEST_SECRET if is_credential else _SHORTEST_OTHER):
            yield text.encode("latin-1", "replace")
    # Not of the request's own: what tells a page of a list is said by the list.
    for _, value in parse_qsl(urlsplit(base_url).query):
        if len(value) >= _SHORTEST_OTHER:
            yield value.encode()
