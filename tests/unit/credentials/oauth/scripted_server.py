"""A server that exists only as a script: for answers that no real one gives when it is asked to."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from config.schema import OAuthProvider
from core.clock import ManualClock
from core.headers import Headers
from credentials.oauth.server import OAuthServer
from credentials.oauth.templates import TEMPLATES
from transport.messages import STRAIGHT, UpstreamRequest
from transport.script import Head, Receive, Received, Script, Send, Step
from transport.scripted import ScriptedClient

HERE = "https://gateway.example.com/oauth/callback"
TOKENS = "https://login.example.com/token"


class Asked(msgspec.Struct, frozen=True):
    """A request as the server saw it."""

    url: str
    headers: Headers
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


class ScriptedServer:
    """Stands in for OAuth servers: plays what it was told for each address, and 404 for others."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[str, tuple[Step, ...]] = {}
        self.client = ScriptedClient(self._respond)
        self.clock = ManualClock()

    def answers(self, url: str, *steps: Step) -> None:
        self._answers[url] = steps

    def answers_json(
        self, url: str, document: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        fields = Headers((headers or {}).items())
        self.answers(url, Head(status, fields), Send(msgspec.json.encode(document)))

    def known_as(self, entry: OAuthProvider | None = None, timeout_seconds: float = 10.0, **keys: Any) -> OAuthServer:
        """The server as the gateway knows it, with ``keys`` in its entry."""
        if entry is None:
            given = {"name": "company", "client_id": "sluice", "token_endpoint": TOKENS} | keys
            entry = OAuthProvider(**given)
        template = TEMPLATES.get(entry.template or "")
        return OAuthServer(
            entry, template, self.client, STRAIGHT, self.clock, lambda: HERE, timeout_seconds=timeout_seconds
        )

    def _respond(self, request: UpstreamRequest) -> Receive:
        def then(received: Received) -> Script:
            self.asked.append(Asked(request.url, request.headers, received.kept))
            return Script(self._answers.get(request.url, (Head(404),)))

        return Receive(then, keep_bytes=1 << 16)
