"""Credentials of providers as the management API takes and shows them."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from config.schema import Name
from core.moments import Moment, moment
from credentials.credential_state import CredentialState
from credentials.records import AccountSettings
from management.handler.pages import Cursor, Limit

MAX_SECRET_CHARACTERS = 32_768
"""Of a token: those that carry claims are long."""
MAX_SEALED_CHARACTERS = 262_144

Weight = Annotated[int, Meta(ge=1, le=1000, description="share of requests among the pool")]
Priority = Annotated[
    int,
    Meta(ge=-1000, le=1000, description="the highest of those that can be used come first; weights share among equals"),
]
Prefix = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)",
        description="requests for PREFIX/model are served by credentials of this prefix alone",
    ),
]
Models = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
    Meta(max_length=256, description="globs of the models it may be used for; none: all"),
]
Note = Annotated[str, Meta(max_length=500, description="for people")]
Text = Annotated[str, Meta(min_length=1, max_length=MAX_SECRET_CHARACTERS)]


class SecretSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="action", tag="set"):
    """A secret that is given; it never comes out."""

    value: Text

    def __repr__(self) -> str:
        return "SecretSet()"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Else msgspec gives all fields to whatever renders tracebacks.
        return []


class SecretKept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="action", tag="keep"):
    """What is there already."""


class NewCredential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account with tokens that its operator has already: a refresh token, an access token, or both."""

    provider: Name
    """An entry of `providers` that says with `oauth` where its accounts sign in."""
    name: Name
    refresh_token: SecretSet | None = None
    access_token: SecretSet | None = None
    """None: one is got with the refresh token when it is needed."""
    expires_at: Moment | None = None
    """Of the access token; null: it does not end."""
    account: Annotated[str, Meta(min_length=1, max_length=200, description="whose it is, for people")] | None = None
    scopes: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=500)], ...], Meta(max_length=100)] = ()
    """What was granted."""
    weight: Weight = 1
    priority: Priority = 0
    prefix: Prefix | None = None
    models: Models = ()
    disabled: bool = False
    note: Note | None = None
    proxy_url: SecretSet | None = None
    """Instead of the provider's; `direct`: none."""

    @property
    def settings(self) -> AccountSettings:
        """What is said of the account."""
        return AccountSettings(**{name: getattr(self, name) for name in AccountSettings.__struct_fields__})


class CredentialPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be changed of an account, as a merge patch (RFC 7396): what is left out stays, lists are replaced."""

    weight: Weight | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    prefix: Prefix | None | UnsetType = UNSET
    models: Models | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    note: Note | None | UnsetType = UNSET
    proxy_url: SecretSet | SecretKept | None | UnsetType = UNSET
    """Instead of the provider's; `direct`: none; null: the provider's."""

    def patched(self, settings: AccountSettings) -> AccountSettings:
        """``settings`` as they are to be."""
        given = {name: getattr(self, name) for name in AccountSettings.__struct_fields__}
        return msgspec.structs.replace(settings, **{name: value for name, value in given.items() if value is not UNSET})


class CredentialShown(msgspec.Struct, frozen=True, kw_only=True):
    """A credential, without what it opens."""

    id: str
    """`PROVIDER/NAME`; in a path its `/` is `%2F`."""
    provider: str
    name: str
    kind: Literal["api_key", "client_credentials", "google_service_account", "azure_entra", "command", "oauth"]
    source: Literal["account", "file"]
    """Those of the file are changed there."""
    state: Literal["ready", "pending", "needs_login", "failing", "disabled", "damaged", "shadowed"]
    """As the worker that answers knows. `pending`: it has had no token yet; `failing`: it could not be refreshed, and serves
    on by the token that it has; `shadowed`: the file has one of its name, which counts."""
    message: str | None
    """Why it is not `ready`."""
    oauth: str | None
    """The entry of `oauth.providers` where it has signed in."""
    account: str | None
    """Whose it is, as the server shows it."""
    scopes: tuple[str, ...]
    weight: int
    priority: int
    prefix: str | None
    models: tuple[str, ...]
    disabled: bool
    note: str | None
    has_proxy: bool
    """Whether it has a `proxy_url` of its own, which is not shown."""
    expires_at: Moment | None
    """Of its token; null: it has none, or none that ends."""
    refreshed_at: Moment | None
    next_refresh_at: Moment | None
    created_at: Moment | None
    updated_at: Moment | None
    version: int | None
    """Of an account; null: it is the file's, or cannot be read."""

    @classmethod
    def of(cls, state: CredentialState) -> "CredentialShown":
        """``state`` as it is shown."""
        times = ("expires_at", "refreshed_at", "next_refresh_at", "created_at", "updated_at")
        return cls(
            id=f"{state.provider}/{state.name}",
            **{
                name: getattr(state, name)
                for name in (
                    *("provider", "name", "kind", "source", "state", "message", "oauth", "account", "scopes"),
                    *("has_proxy", "version"),
                )
            },
            **msgspec.structs.asdict(state.settings),
            **{name: moment(getattr(state, name)) for name in times},
        )


class CredentialList(msgspec.Struct, frozen=True):
    """Credentials by provider and name."""

    data: tuple[CredentialShown, ...]
    next_cursor: str | None


class CredentialQuery(msgspec.Struct, frozen=True):
    """Which of them."""

    provider: Annotated[str, Meta(max_length=64)] | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


class CredentialRemoved(msgspec.Struct, frozen=True):
    """An account is gone."""

    revoked: bool
    """Whether the server where it had signed in has taken its tokens back; false: they may be good until they end."""
    message: str | None
    """Why not."""


class ExportedSettings(AccountSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of an account."""

    weight: Weight = 1
    priority: Priority = 0
    prefix: Prefix | None = None
    models: Models = ()
    note: Note | None = None


class Exported(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account to be kept elsewhere: its tokens are sealed, and open where the same master key is."""

    sluice_credential: Literal[1]
    """The version of this form."""
    provider: Name
    name: Name
    oauth: Name
    settings: ExportedSettings = ExportedSettings()
    sealed: Annotated[str, Meta(min_length=1, max_length=MAX_SEALED_CHARACTERS)]
    """`KEYID:BASE64URL`."""
