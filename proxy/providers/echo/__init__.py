"""The embedded `echo` provider: answers without a network, a key or a model, the same for the same request.

For a first run, for demonstrations, and to rehearse faults: a model named after one of
:data:`proxy.providers.echo.faults.FAULTS` fails in that way, any other name answers.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from config.faults import ConfigFaults, Fault
from config.schema import Provider
from core.errors import UpstreamAnswered
from core.headers import Headers
from core.secret import Secret
from proxy.providers.base import Call, ModelPage, Trial
from proxy.providers.classify import classify
from proxy.providers.echo import chat, embeddings, faults, responses, uploads
from proxy.providers.echo.answer import CREATED, Answer, Pace, Rejected, document, error_answer, play
from proxy.providers.entry import read_options
from proxy.providers.model_list import read_models
from transport.messages import Pieces, UpstreamRequest
from transport.script import Receive, Received, Script

_KEEP_JSON_BYTES = 32 * 1024 * 1024
_KEEP_FORM_BYTES = 64 * 1024

_Seconds = Annotated[float, Meta(ge=0, le=3600)]


class EchoOptions(msgspec.Struct, frozen=True):
    """How fast the provider answers."""

    delay_seconds: _Seconds = 0.0
    """Silence before the first token, or before a document."""
    interval_seconds: _Seconds = 0.02
    """Silence between two events of a stream."""


class _Named(msgspec.Struct):
    """The one member by which a fault is asked for."""

    model: str = ""


JSON_ENDPOINTS: dict[str, Callable[[bytes], Answer]] = {
    "/chat/completions": chat.chat_completion,
    "/completions": chat.completion,
    "/embeddings": embeddings.embeddings,
    "/responses": responses.response,
}
FORM_ENDPOINTS: dict[str, Callable[[Received], Answer]] = {
    "/files": uploads.file_object,
    "/audio/transcriptions": uploads.transcript,
    "/audio/translations": uploads.transcript,
}


class Echo:
    """:class:`proxy.providers.base.LocalAdapter` of the type `echo`."""

    account_headers: frozenset[str] = frozenset()
    models_path = "/models"

    def __init__(self, provider: Provider) -> None:
        """
        Raises:
            config.faults.ConfigFaults: what is wrong with the entry, with paths relative to it.
        """
        found: list[Fault] = []
        if provider.base_url is not None:
            found.append(Fault(("base_url",), "`echo` answers by itself and has no address: remove it"))
        if provider.headers:
            found.append(Fault(("headers",), "`echo` sends its requests nowhere: remove them"))
        options = read_options(provider.options, EchoOptions, found)
        if found:
            raise ConfigFaults(found)
        self._name = provider.name
        self._pace = Pace(options.delay_seconds, options.interval_seconds)

    def url(self, path: str, query: str = "") -> str:
        """``echo://NAME/PATH``: no such address exists."""
        return f"echo://{self._name}{path}" + (f"?{query}" if query else "")

    def prepare(self, call: Call, api_key: Secret | None) -> UpstreamRequest:
        """The call as it is: credentials are neither needed nor looked at."""
        return UpstreamRequest(
            call.method, self.url(call.path, call.query), call.headers, call.body, call.body_length, call.clocks
        )

    def classify(self, status: int, headers: Headers, body: bytes) -> UpstreamAnswered:
        """See :func:`proxy.providers.classify.classify`."""
        return classify(status, headers, body)

    def read_models(self, body: bytes) -> ModelPage:
        """See :func:`proxy.providers.model_list.read_models`."""
        return read_models(body)

    def trial(self, model: str) -> Trial:
        """A chat of one word."""
        body = {"model": model, "messages": [{"role": "user", "content": "ping"}]}
        return Trial("/chat/completions", msgspec.json.encode(body))

    def respond(self, request: UpstreamRequest) -> Script | Receive:
        """The answer, step by step. A streamed body is taken in whole before it is answered."""
        path = urlsplit(request.url).path
        if request.method == "GET" and (path == "/models" or path.startswith("/models/")):
            return play(_models(path), self._pace)
        if request.method != "POST" or path not in (JSON_ENDPOINTS.keys() | FORM_ENDPOINTS.keys()):
            return play(_not_rehearsed(request.method, path), self._pace)
        if path in FORM_ENDPOINTS:
            return _received(request.body, _KEEP_FORM_BYTES, partial(self._form, path, request.headers))
        return _received(request.body, _KEEP_JSON_BYTES, partial(self._json, path))

    def _json(self, path: str, received: Received) -> Script:
        try:
            if received.length > len(received.kept):
                raise Rejected(413, f"The request body is over {_KEEP_JSON_BYTES} bytes.", "request_too_large")
            answer = JSON_ENDPOINTS[path](received.kept)
        except Rejected as rejected:
            return play(rejected.answer, self._pace)
        return self._rehearse(msgspec.json.decode(received.kept, type=_Named).model, answer)

    def _form(self, path: str, headers: Headers, received: Received) -> Script:
        if not (headers.get("content-type") or "").lower().startswith("multipart/form-data"):
            wrong = error_answer(400, "An upload is sent as multipart/form-data.", "invalid_content_type")
            return play(wrong, self._pace)
        return self._rehearse(uploads.form_field(received.kept, "model"), FORM_ENDPOINTS[path](received))

    def _rehearse(self, model: str | None, answer: Answer) -> Script:
        fault = faults.find(model or "")
        return play(answer, self._pace) if fault is None else fault(answer, self._pace)


def _received(
    body: bytes | Pieces | AsyncIterator[bytes] | None, keep_bytes: int, then: Callable[[Received], Script]
) -> Script | Receive:
    """``then`` of a body in memory at once, of a streamed one when it has come in."""
    if body is None or isinstance(body, bytes):
        body = (body or b"",)
    if isinstance(body, tuple):
        whole = b"".join(body)
        return then(Received(len(whole), hashlib.sha256(whole).hexdigest(), whole[:keep_bytes]))
    return Receive(then, keep_bytes)


def _models(path: str) -> Answer:
    """`GET /models` and `/models/{id}`: every name answers, so every name is a model."""

    def model(name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": CREATED, "owned_by": "echo"}

    name = path.removeprefix("/models").removeprefix("/")
    if name:
        return document(model(name))
    names = ["echo", *(fault.replace("NNN", "503") for fault in faults.FAULTS)]
    return document({"object": "list", "data": [model(name) for name in names]})


def _not_rehearsed(method: str, path: str) -> Answer:
    served = ", ".join(["GET /models", *(f"POST {known}" for known in (*JSON_ENDPOINTS, *FORM_ENDPOINTS))])
    message = f"The echo provider does not answer {method} {path}. It answers: {served}."
    return error_answer(404, message, "not_rehearsed")
