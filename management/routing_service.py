"""What handlers ask of routing as it is now. `gateway/routing_service.py` answers."""

from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from management.handler.inputs import NO_NUL
from routing.explain import Report

HeaderName = Annotated[str, Meta(min_length=1, max_length=256)]
HeaderValue = Annotated[str, Meta(max_length=8192)]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of a request that routing looks at."""

    model: Annotated[str, Meta(max_length=1024)] | None = None
    token: Annotated[str, Meta(max_length=256, pattern=NO_NUL, description="name of the client's token")] | None = None
    path: Annotated[str, Meta(max_length=4096)] = "/v1/chat/completions"
    headers: Annotated[dict[HeaderName, HeaderValue], Meta(max_length=128)] = {}
    stream: bool = False


class CooldownShown(msgspec.Struct, frozen=True, kw_only=True):
    """What is out of rotation: a credential, a target (its ``model``), or, where both are null, the whole provider."""

    provider: str
    model: str | None
    credential: str | None
    reason: str
    """`failures`, `rate_limited`, `credential_refused`, `credential_not_ready` or `retry_after`."""
    seconds: float
    """How long it stays out."""


class Cleared(msgspec.Struct, frozen=True):
    """What is back in the rotation."""

    cleared: tuple[CooldownShown, ...]
    """Of the worker that answers; each counts for itself."""
    everywhere: bool
    """False (and the status is 202): some worker has not answered in time that it has followed; it will."""


class UnknownToken(Exception):
    """No token has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no token is named `{name}`")
        self.name = name


class RoutingService(Protocol):
    """Where requests go, and what they pass over."""

    async def explain(self, question: Question) -> Report:
        """As `./sluice explain` tells it, and with the cooldowns of this worker.

        Raises:
            UnknownToken: as it says.
            storage.errors.StorageUnavailable: the token may be one of the database, which does not answer.
        """
        ...

    def cooldowns(self) -> tuple[CooldownShown, ...]:
        """Of this worker, the longest last."""
        ...

    async def clear_cooldowns(self, provider: str, model: str | None, credential: str | None) -> Cleared:
        """Take back what fits, here and on all other workers: of a provider all, or of it one target or credential."""
        ...
