"""How a credential stands, for show; no secret."""

from typing import Literal

import msgspec

from config.schema import Credential
from core.moments import MICROSECONDS
from credentials.account import Account
from credentials.declared import Declared, settings_of
from credentials.errors import NeedsLogin
from credentials.live import LiveCredential
from credentials.records import AccountRecord, AccountSettings

Standing = Literal["ready", "pending", "needs_login", "failing", "disabled", "damaged", "shadowed"]


class CredentialState(msgspec.Struct, frozen=True, kw_only=True):
    """One credential of the file, or one account. Times are whole microseconds since the Unix epoch."""

    provider: str
    name: str
    kind: str
    """`api_key`, `client_credentials`, `google_service_account`, `azure_entra`, `command`, or `oauth` for accounts."""
    source: Literal["file", "account"]
    settings: AccountSettings
    state: Standing
    """`pending`: it has had no token yet. `failing`: the last exchange failed; a token that it has serves on to its end.
    `shadowed`: the file has a credential of its name, which counts. `disabled`: by its settings, or its provider is gone."""
    message: str | None = None
    """Why it is not `ready`, for people."""
    oauth: str | None = None
    """The entry of `oauth.providers` that it signs in at."""
    account: str | None = None
    scopes: tuple[str, ...] = ()
    expires_at: int | None = None
    refreshed_at: int | None = None
    next_refresh_at: int | None = None
    has_proxy: bool = False
    """Whether it has a way out of its own."""
    version: int | None = None
    """Of an account's record; None: it is the file's, or damaged."""
    created_at: int | None = None
    updated_at: int | None = None


def key_state(provider: str, credential: Credential) -> CredentialState:
    """Of one that has no end."""
    settings = settings_of(credential)
    return CredentialState(
        provider=provider,
        name=credential.name,
        kind="api_key",
        source="file",
        settings=settings,
        state="disabled" if settings.disabled else "ready",
        has_proxy=credential.proxy_url is not None,
    )


def declared_state(declared: Declared, next_refresh_at: float | None) -> CredentialState:
    """Of one of the file whose tokens end."""
    live, tokens, settings = declared.live, declared.live.tokens, settings_of(declared.credential)
    state, message = _standing(live)
    return CredentialState(
        provider=live.provider,
        name=live.name,
        kind=live.kind,
        source="file",
        settings=settings,
        state="disabled" if settings.disabled else state,
        message=None if settings.disabled else message,
        oauth=declared.credential.client_credentials,
        account=None if tokens is None else tokens.account,
        scopes=() if tokens is None else tokens.scopes,
        expires_at=None if tokens is None else _at(tokens.expires_at),
        refreshed_at=None if tokens is None else _at(tokens.issued_at),
        next_refresh_at=_at(next_refresh_at),
        has_proxy=declared.credential.proxy_url is not None,
    )


def account_state(
    account: Account, left_out: tuple[Standing, str] | None, next_refresh_at: float | None
) -> CredentialState:
    """``left_out``: why it does not serve, whatever its tokens are."""
    live, record = account.live, account.record
    state: Standing
    message: str | None
    if account.damaged is not None:
        state, message = "damaged", account.damaged
    elif left_out is not None:
        state, message = left_out
    elif record is not None and record.sealed_tokens is None:
        state, message = "pending", f"{live.called} has not signed in yet"
    else:
        state, message = _standing(live)
    shown = CredentialState(
        provider=live.provider,
        name=live.name,
        kind=live.kind,
        source="account",
        settings=AccountSettings(),
        state=state,
        message=message,
        next_refresh_at=_at(next_refresh_at),
    )
    if record is None:
        return shown
    shown = of_record(shown, record)
    if account.damaged is not None:
        shown = msgspec.structs.replace(shown, version=None)
    tokens = live.tokens
    if tokens is None:
        return shown
    return msgspec.structs.replace(shown, scopes=tokens.scopes, expires_at=_at(tokens.expires_at))


def of_record(state: CredentialState, record: AccountRecord) -> CredentialState:
    """``state`` with all that ``record`` says of the account."""
    return msgspec.structs.replace(
        state,
        settings=record.settings,
        oauth=record.oauth,
        account=record.account,
        scopes=record.scopes,
        expires_at=record.expires_at,
        refreshed_at=record.refreshed_at,
        has_proxy=record.sealed_proxy_url is not None,
        version=record.version,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def _standing(live: LiveCredential) -> tuple[Standing, str | None]:
    if live.fault is None:
        return ("pending" if live.tokens is None else "ready"), None
    return ("needs_login" if isinstance(live.fault, NeedsLogin) else "failing"), str(live.fault)


def _at(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MICROSECONDS)
