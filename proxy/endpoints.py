"""The table of what the data plane serves: one line an endpoint."""

import re
from enum import Enum

import msgspec

from core.errors import MethodNotAllowed, UnknownPath
from core.identity import Grant


class Service(Enum):
    """What is done with a request."""

    FORWARD = "forward"
    LIST_MODELS = "list_models"
    SHOW_MODEL = "show_model"


class ModelRule(Enum):
    """Whether a request's body names a model."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


class Endpoint(msgspec.Struct, frozen=True):
    """One row. ``name`` is a metrics label; ``{…}`` in ``path`` stands for one segment, a final ``{…*}`` for several."""

    name: str
    path: str
    methods: tuple[str, ...]
    dialect: str = "openai-chat"
    grant: Grant = Grant.INFERENCE
    model: ModelRule = ModelRule.REQUIRED
    multipart: bool = False
    service: Service = Service.FORWARD
    writes: bool = False
    """Whether answers are text that a model writes, as long as it likes or the request allows."""
    reads_answer: bool = False
    """Whether answers are asked for unencoded, to be read in passing: true for plain inference. The usage of one that tells
    none is estimated."""
    usage_on_request: bool = False
    """Whether a stream tells its usage only to those who ask for it by `stream_options.include_usage`."""
    granted_members: tuple[tuple[str, Grant], ...] = ()
    """Members of the body that take a grant of their own, because they reach what other callers have stored."""
    upgrade_refused: bool = False
    """Whether `GET` with an upgrade gets 426, so that clients that try WebSocket first fall back."""


_POST = ("POST",)
_GET = ("GET",)
_STORED_MEMBERS = (("previous_response_id", Grant.RESPONSES), ("conversation", Grant.RESPONSES))

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("chat_completions", "/v1/chat/completions", _POST, reads_answer=True, writes=True, usage_on_request=True),
    Endpoint("completions", "/v1/completions", _POST, reads_answer=True, writes=True, usage_on_request=True),
    Endpoint("embeddings", "/v1/embeddings", _POST, reads_answer=True),
    Endpoint(
        "responses",
        "/v1/responses",
        _POST,
        "openai-responses",
        reads_answer=True,
        writes=True,
        granted_members=_STORED_MEMBERS,
        upgrade_refused=True,
    ),
    Endpoint(
        "responses",
        "/v1/responses/compact",
        _POST,
        "openai-responses",
        reads_answer=True,
        writes=True,
        granted_members=_STORED_MEMBERS,
    ),
    Endpoint(
        "response_input_tokens",
        "/v1/responses/input_tokens",
        _POST,
        "openai-responses",
        granted_members=_STORED_MEMBERS,
    ),
    Endpoint(
        "stored_responses",
        "/v1/responses/{id}",
        ("GET", "DELETE"),
        "openai-responses",
        grant=Grant.RESPONSES,
        model=ModelRule.NONE,
    ),
    Endpoint(
        "stored_responses",
        "/v1/responses/{id}/input_items",
        _GET,
        "openai-responses",
        grant=Grant.RESPONSES,
        model=ModelRule.NONE,
    ),
    Endpoint(
        "stored_responses",
        "/v1/responses/{id}/cancel",
        _POST,
        "openai-responses",
        grant=Grant.RESPONSES,
        model=ModelRule.NONE,
    ),
    Endpoint("models", "/v1/models", _GET, service=Service.LIST_MODELS),
    Endpoint("models", "/v1/models/{id*}", _GET, service=Service.SHOW_MODEL),
    Endpoint("images", "/v1/images/{kind}", _POST, model=ModelRule.OPTIONAL, multipart=True),
    Endpoint("audio", "/v1/audio/{kind}", _POST, model=ModelRule.OPTIONAL, multipart=True),
    Endpoint("moderations", "/v1/moderations", _POST, model=ModelRule.OPTIONAL),
    Endpoint("rerank", "/v1/rerank", _POST),
    Endpoint("files", "/v1/files", ("GET", "POST"), grant=Grant.FILES, model=ModelRule.NONE, multipart=True),
    Endpoint("files", "/v1/files/{id}", ("GET", "DELETE"), grant=Grant.FILES, model=ModelRule.NONE),
    Endpoint("files", "/v1/files/{id}/content", _GET, grant=Grant.FILES, model=ModelRule.NONE),
    Endpoint("batches", "/v1/batches", ("GET", "POST"), grant=Grant.BATCHES, model=ModelRule.NONE),
    Endpoint("batches", "/v1/batches/{id}", _GET, grant=Grant.BATCHES, model=ModelRule.NONE),
    Endpoint("batches", "/v1/batches/{id}/cancel", _POST, grant=Grant.BATCHES, model=ModelRule.NONE),
)

# The same requests under the management prefix, for clients that are given that base URL.
PATH_ALIASES = {"/api/v1/chat/completions": "/v1/chat/completions"}

# One segment of an id: no escapes, no separators, so that no path of ours can become another path of the provider's.
_SEGMENT = r"(?!\.+(?:/|\Z))[A-Za-z0-9_.\-:]+"


def _pattern(path: str) -> re.Pattern[str]:
    parts = [
        (r"(.+)" if part.endswith("*}") else _SEGMENT) if part.startswith("{") else re.escape(part)
        for part in path.split("/")
    ]
    return re.compile("/".join(parts) + r"\Z")


_EXACT = {endpoint.path: endpoint for endpoint in ENDPOINTS if "{" not in endpoint.path}
_PATTERNS = tuple((_pattern(endpoint.path), endpoint) for endpoint in ENDPOINTS if "{" in endpoint.path)


def canonical_path(path: str) -> str:
    """The path that the table and the providers know ``path`` by."""
    return PATH_ALIASES.get(path, path)


def upstream_path(path: str) -> str:
    """What a provider's base URL is followed by: a canonical ``path`` without the `/v1` that the base URL ends with."""
    return path.removeprefix("/v1")


def find(path: str) -> Endpoint | None:
    """The row that serves a canonical ``path``, whatever the method."""
    endpoint = _EXACT.get(path)
    if endpoint is not None:
        return endpoint
    for pattern, endpoint in _PATTERNS:
        if pattern.match(path):
            return endpoint
    return None


def require(path: str, method: str) -> Endpoint:
    """The row for a canonical ``path`` and ``method``.

    Raises:
        UnknownPath, MethodNotAllowed: there is none.
    """
    endpoint = find(path)
    if endpoint is None:
        raise UnknownPath(f"nothing is served at {_shown(method, path)}: see the list of paths in the documentation")
    if method not in endpoint.methods:
        allowed = " or ".join(endpoint.methods)
        raise MethodNotAllowed(f"this path takes {allowed}, not {_shown(method, path)}", endpoint.methods)
    return endpoint


def _shown(method: str, path: str) -> str:
    # A client's text: long ones would only fill logs.
    return f"{method[:32]} {path[:128]}"
