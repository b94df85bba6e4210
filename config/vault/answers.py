"""What Vault is asked, for how long, and what its answers are made of."""

from typing import Annotated, Any

import msgspec

from core.clock import Clock

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
"""A duration as Vault tells it, whose own are of 292 years at most: JSON as it is read here knows NaN and Infinity."""


class Asked(msgspec.Struct, frozen=True):
    """What a call is for, as a policy names it: ``path`` begins at the mount."""

    path: str
    capability: str = "read"


class Limit:
    """The time that one question may take, whatever number of calls it needs."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, not negative."""
        return max(0.0, self._end - self._clock.monotonic())


class Unshown(msgspec.Struct):
    """Holds what Vault told: no rendering shows it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Auth(Unshown):
    """What a sign-in or the renewal of a token earned; times are seconds."""

    client_token: str
    lease_duration: Seconds = 0.0
    renewable: bool = False


class Answer(Unshown):
    """The form of every answer; times are seconds."""

    data: dict[str, Any] | None = None
    lease_id: str = ""
    lease_duration: Seconds = 0.0
    renewable: bool = False
    auth: Auth | None = None


class TokenDescription(Unshown):
    """What `auth/token/lookup-self` tells; times are seconds."""

    ttl: Seconds = 0.0
    creation_ttl: Seconds = 0.0
    renewable: bool = False


class Reading(Unshown):
    """What one read of a secret gave; times are seconds. ``sign_in`` numbers the token that it was read with."""

    data: dict[str, object]
    version: int | None = None
    lease_id: str = ""
    lease_seconds: float = 0.0
    renewable: bool = False
    sign_in: int = 0
