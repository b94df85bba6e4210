"""What handlers ask of sign-ins of accounts, and what is said of these. `gateway/login_service.py` answers."""

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from config.schema import Name
from core.moments import Moment
from credentials.logins.pasted import MOST_CHARACTERS
from management.credential_bodies import CredentialPatch, Models, Note, Prefix, Priority, SecretSet, Weight

Flow = Annotated[
    Literal["code", "device"],
    Meta(
        description="`code`: the person comes back from the server with a code; `device`: they type one in there; left out: "
        "what the server does best"
    ),
]


class NewLogin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account that is to sign in. What is left out stays as it is, where the account is there already."""

    provider: Name
    """An entry of `providers` that says with `oauth` where its accounts sign in."""
    name: Name | None = None
    """What the account is to be called: it takes the place of one that is called so. Left out: `main`, or `main-2` and so on
    where that works already."""
    flow: Flow | None = None
    scopes: (
        Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=500)], ...], Meta(min_length=1, max_length=100)]
        | None
    ) = None
    """What is asked for, instead of what the configuration says."""
    weight: Weight | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    prefix: Prefix | None | UnsetType = UNSET
    models: Models | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    note: Note | None | UnsetType = UNSET
    proxy_url: SecretSet | None = None
    """Instead of the provider's; `direct`: none."""

    @property
    def patch(self) -> CredentialPatch | None:
        """What is said of the account; None: nothing."""
        names = ("weight", "priority", "prefix", "models", "disabled", "note")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not UNSET}
        return CredentialPatch(**given) if given else None


class LoginBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that waits for a person."""

    state: str
    """What it is asked for by, and cancelled. Who knows it can answer it: keep it to yourself."""
    provider: str
    name: str
    """What the account will be called."""
    flow: Literal["code", "device"]
    authorization_url: str | None
    """Where the person signs in; null: of the flow `device`."""
    redirect_url: str | None
    """Where they come back to. A browser that cannot reach it shows its address all the same: complete the sign-in with that."""
    user_code: str | None
    """What the person types in; null: of the flow `code`."""
    verification_uri: str | None
    """Where."""
    verification_uri_complete: str | None
    """The same with the code in it, where the server has that."""
    expires_at: Moment

    def __repr__(self) -> str:
        return f"LoginBegun({self.provider}/{self.name})"


class LoginShown(msgspec.Struct, frozen=True, kw_only=True):
    """How a sign-in stands."""

    provider: str
    name: str
    flow: Literal["code", "device"]
    status: Literal["pending", "complete", "failed", "expired", "cancelled"]
    message: str | None
    """Why it failed."""
    account: str | None
    """Whose it is, as the server shows it, once it is complete."""
    expires_at: Moment


class LoginAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the browser was sent back with."""

    redirect_url: Annotated[
        str, Meta(min_length=1, max_length=MOST_CHARACTERS, description="its whole address, with its query")
    ]

    def __repr__(self) -> str:
        return "LoginAnswer()"


class LoginService(Protocol):
    """The sign-ins of all processes that share the store of accounts. Every method may raise
    :class:`credentials.errors.StoreUnavailable`, all that take a state LoginUnknown."""

    async def begin(self, new: NewLogin) -> LoginBegun:
        """
        Raises:
            management.credential_service.Unfit: something of what it is to be cannot be.
            credentials.errors.LoginImpossible, TooManyLogins, LoginFailed: nothing was begun.
        """
        ...

    async def status(self, state: str) -> LoginShown:
        """How it stands."""
        ...

    async def look(self, state: str) -> LoginShown:
        """The same, for strangers.

        Raises:
            credentials.errors.TooManyLogins: too many ask at once.
        """
        ...

    async def cancel(self, state: str) -> LoginShown:
        """How it stood.

        Raises:
            credentials.errors.LoginUsed: it has ended already.
        """
        ...

    async def complete(self, redirect_url: str) -> LoginShown:
        """As :meth:`credentials.logins.logins.Logins.complete`."""
        ...

    async def callback(self, query: Mapping[str, str]) -> LoginShown:
        """As :meth:`credentials.logins.logins.Logins.callback`."""
        ...
