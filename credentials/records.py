"""What is kept of an account that has signed in, and where; every secret in it is sealed."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from credentials.tokens import TokenSet

FORMAT = 1
"""Of a record, for those that read what other versions of the program have written: another one with every field that is
added or means something else (credentials/stores/cells.py)."""

LoginEnd = Literal["complete", "failed", "expired", "cancelled"]
"""How a sign-in can end."""


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What its operator says of an account; as on a credential of the file."""

    weight: int = 1
    priority: int = 0
    prefix: str | None = None
    models: tuple[str, ...] = ()
    disabled: bool = False
    note: str | None = None


class SignIn(msgspec.Struct, frozen=True):
    """What a sign-in has given, to be kept in the place of what there was."""

    provider: str
    name: str
    oauth: str
    tokens: TokenSet
    settings: AccountSettings | None = None
    """None: an account that there is keeps its own."""
    proxy_url: str | None = None
    """The same."""

    def __repr__(self) -> str:
        return f"SignIn({self.provider}/{self.name})"


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An account of a provider. ``(provider, name)`` is its identity."""

    provider: str
    """Name of the entry of `providers:`."""
    name: str
    """As names of credentials of the file, which it may not repeat within its provider."""
    version: int
    """Counts its writes, from 1: whoever changes it says which one they saw."""
    fence: int = 0
    """Of the lock under which the tokens were written last: a holder whose lock has run out writes nothing any more."""
    oauth: str
    """Name of the entry of `oauth.providers` that it signed in at."""
    settings: AccountSettings = AccountSettings()
    sealed_proxy_url: str | None = None
    """``KEYID:BASE64URL``, for the purpose that :func:`purpose` gives for `proxy_url`."""
    sealed_tokens: str | None = None
    """``KEYID:BASE64URL`` of JSON, for the purpose that :func:`purpose` gives for `tokens`; None: it has not signed in."""
    account: str | None = None
    scopes: tuple[str, ...] = ()
    expires_at: int | None = None
    """Of the access token, in microseconds since the Unix epoch, as all times here; None: not said."""
    needs_login: str | None = None
    """Why only a person can mend it, in words; None: it needs none."""
    created_at: int
    updated_at: int
    """When its operator, a sign-in or a refresh wrote it last."""
    refreshed_at: int | None = None
    """When its tokens were written last."""


def purpose(provider: str, name: str, what: Literal["tokens", "proxy_url"]) -> str:
    """What a sealed part is bound to: one that is moved to another record does not open there."""
    return f"credential\0{provider}\0{name}\0{what}"


class Damaged(msgspec.Struct, frozen=True):
    """A record that is kept and cannot be read. It is left as it is, and others are not affected."""

    provider: str
    name: str
    message: str
    """What is wrong and how to mend it; no secret."""


class Listing(msgspec.Struct, frozen=True):
    """Everything that a store has."""

    version: int
    """Another one after every change."""
    records: tuple[AccountRecord, ...]
    damaged: tuple[Damaged, ...] = ()


class Lock(Protocol):
    """The right to refresh one account, for a bounded time; held by one process of all that share the store."""

    @property
    def fence(self) -> int:
        """Greater than that of every holder before."""
        ...

    async def release(self) -> None:
        """Give it up; raises nothing. One that has run out is another's by now, and stays so."""
        ...


class PendingLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in under way, or ended a short time ago. ``state`` itself is not kept: whoever reads the store cannot use it."""

    key: str
    """SHA-256 of the state, in hex."""
    provider: str
    name: str
    oauth: str
    flow: Literal["code", "device", "key_exchange"]
    status: Literal["pending"] | LoginEnd = "pending"
    message: str | None = None
    """Why it failed, for people."""
    sealed: str | None = None
    """What the exchange needs (verifier, device code, redirect URL, settings), sealed; None once it has ended."""
    created_at: int
    expires_at: int
    """Microseconds since the Unix epoch."""


class AccountStore(Protocol):
    """Where accounts are kept: `memory`, `database`, `redis` or `file`. Each method may raise
    :class:`credentials.errors.StoreUnavailable`."""

    async def version(self) -> int:
        """Another one after every change of a record, by any process; cheap."""
        ...

    async def all(self) -> Listing:
        """Everything; what cannot be read is told apart."""
        ...

    async def get(self, provider: str, name: str) -> AccountRecord | None:
        """One; None: there is none.

        Raises:
            RecordDamaged, RecordUnknown: it cannot be read.
        """
        ...

    async def put(self, record: AccountRecord, seen: int | None) -> AccountRecord:
        """Keep ``record`` in the place of the one of version ``seen`` (None: there must be none); gives it with its new
        version.

        Raises:
            StoreConflict: another version is there by now, or one was written under a later lock (``record.fence``).
        """
        ...

    async def delete(self, provider: str, name: str, seen: int | None) -> bool:
        """Remove it, also a damaged one; False: there was none. ``seen`` None: whichever version it has.

        Raises:
            StoreConflict: it has another version than ``seen``.
        """
        ...

    async def lock(self, provider: str, name: str, seconds: float) -> Lock | None:
        """The right to refresh it, for ``seconds`` at most; None: another holds it."""
        ...

    async def add_login(self, login: PendingLogin) -> None:
        """Keep a sign-in until a while after its end."""
        ...

    async def take_login(self, key: str) -> PendingLogin | None:
        """One that is pending, with what is ``sealed`` in it, to exactly one of all that ask; None: there is none, or it was
        taken already. It stays `pending` for :meth:`login`, until :meth:`end_login`."""
        ...

    async def end_login(self, key: str, status: LoginEnd, message: str | None) -> None:
        """How it ended: the first time counts, but `complete` always. What was sealed is forgotten."""
        ...

    async def login(self, key: str) -> PendingLogin | None:
        """How it stands; None: there is none, or no longer."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


def ordered(records: Sequence[AccountRecord]) -> tuple[AccountRecord, ...]:
    """By provider and name, as every store lists them."""
    return tuple(sorted(records, key=lambda record: (record.provider, record.name)))
