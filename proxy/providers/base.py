"""What an adapter is: the only place where a vendor's name and habits stand."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import msgspec

from core.errors import UpstreamAnswered
from core.headers import Headers
from core.secret import Secret
from transport.messages import STRAIGHT, Clocks, ConnectionOptions, Pieces, UpstreamRequest
from transport.script import Receive, Script


class Call(msgspec.Struct, frozen=True):
    """One request on its way out, before the vendor's own shape."""

    method: str
    path: str
    """Below the provider's base URL, with its leading slash: ``/chat/completions``."""
    query: str
    """Without the question mark; empty where there is none."""
    headers: Headers
    """The client's end-to-end fields that may be forwarded: no credentials, no hop-by-hop fields."""
    body: bytes | Pieces | AsyncIterator[bytes] | None
    body_length: int | None
    model: str | None
    """The provider's own model name; None for calls that have none (files, batches)."""
    clocks: Clocks
    options: ConnectionOptions = STRAIGHT


class ListedModel(msgspec.Struct, frozen=True):
    """A model of a provider's list."""

    id: str
    """What the provider calls it: text that can be shown."""
    owned_by: str | None = None
    created: float | None = None
    """Seconds since the Unix epoch."""
    raw: bytes = b""
    """Its entry as the provider wrote it: a JSON object, or nothing where it was a name alone."""


class ModelPage(msgspec.Struct, frozen=True):
    """One answer to the question for models."""

    models: tuple[ListedModel, ...]
    next_query: str | None
    """What asks for those that follow; None: these were the last."""


class Trial(msgspec.Struct, frozen=True):
    """A request that has a model say something, as little as can be."""

    path: str
    body: bytes


class ProviderAdapter(Protocol):
    """A provider of one type, bound to its entry in the configuration. Pure: no IO, no clock."""

    @property
    def account_headers(self) -> frozenset[str]:
        """Fields by which the vendor chooses or names an account, in lower case: ours is nobody else's business."""
        ...

    def url(self, path: str, query: str = "") -> str:
        """Where a call for ``path`` goes. Shown by `explain`; carries no secret."""
        ...

    def prepare(self, call: Call, api_key: Secret | None) -> UpstreamRequest:
        """The request as the vendor wants it: URL, authentication, headers."""
        ...

    def classify(self, status: int, headers: Headers, body: bytes) -> UpstreamAnswered:
        """Which error an answer with ``status`` >= 400 is. Decides by status and code, never by wording."""
        ...

    @property
    def models_path(self) -> str:
        """Where a GET tells the provider's models, which costs nothing."""
        ...

    def read_models(self, body: bytes) -> ModelPage:
        """The models of an answer with status 200.

        Raises:
            core.errors.UpstreamMalformed: it is no list of models.
        """
        ...

    def trial(self, model: str) -> Trial:
        """The smallest question to ``model``, for a POST."""
        ...


@runtime_checkable
class LocalAdapter(ProviderAdapter, Protocol):
    """A provider that answers by itself: its requests go to :class:`transport.scripted.ScriptedClient`."""

    def respond(self, request: UpstreamRequest) -> Script | Receive:
        """The answer to a request that ``prepare`` made, step by step; the same for the same request."""
        ...
