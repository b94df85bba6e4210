"""What is told of a sign-in."""

from typing import Literal

import msgspec

from credentials.errors import LoginFault, StoreFault
from credentials.oauth.server import Flow
from credentials.records import AccountSettings, LoginEnd, PendingLogin

ShownFlow = Literal["code", "device"]
"""How a person answers: by coming back from the server, or by typing a code in there."""


class LoginWanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the account is to be, once it has signed in."""

    settings: AccountSettings | None = None
    """None: one that there is keeps its own."""
    proxy_url: str | None = None
    """The same."""
    scopes: tuple[str, ...] | None = None
    """None: what the configuration says."""
    replaces: bool = True
    """Whether it takes the place of an account that works."""

    def __repr__(self) -> str:
        return "LoginWanted(…)"


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that waits for a person. Whoever knows its state can end it: it is for who has begun it alone."""

    state: str
    provider: str
    name: str
    flow: ShownFlow
    expires_at: float
    """Seconds since the Unix epoch."""
    authorization_url: str | None = None
    """Where the person signs in; of the flow `code`."""
    redirect_url: str | None = None
    """Where they come back to; of the same."""
    user_code: str | None = None
    """What they type in; of the flow `device`."""
    verification_uri: str | None = None
    """Where."""
    verification_uri_complete: str | None = None
    """The same with the code in it, where the server has that."""

    def __repr__(self) -> str:
        return f"Begun({self.provider}/{self.name}, {self.flow})"


class LoginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a sign-in stands."""

    provider: str
    name: str
    flow: ShownFlow
    status: Literal["pending"] | LoginEnd
    message: str | None
    """Why it failed."""
    expires_at: float
    """Seconds since the Unix epoch."""


def shown_flow(flow: Flow) -> ShownFlow:
    """As people choose it: to them an exchange for a key is no other way."""
    return "device" if flow == "device" else "code"


def status_of(login: PendingLogin, status: Literal["pending"] | LoginEnd) -> LoginStatus:
    """``login`` as it is told."""
    return LoginStatus(
        provider=login.provider,
        name=login.name,
        flow=shown_flow(login.flow),
        status=status,
        message=login.message,
        expires_at=login.expires_at / 1_000_000,
    )


def told(error: BaseException) -> str:
    """What is kept of a failure, for people; no secret."""
    if isinstance(error, LoginFault | StoreFault):
        return str(error)
    return "The gateway failed; its log says how." if isinstance(error, Exception) else "The gateway was stopped."
