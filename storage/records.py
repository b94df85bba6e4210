"""What is stored, as plain values: to import them costs nothing, as none of SQL comes with them.

Times are whole microseconds since the Unix epoch, UTC.
"""

from typing import Any, Generic, TypeVar

import msgspec

from core.ids import new_audit_id

T = TypeVar("T")

Files = tuple[tuple[str, bytes], ...]
"""The root file and then its includes: the path of each, relative to the root's directory, and its bytes."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some entries of a list; ``next_cursor`` is None at its end."""

    entries: tuple[T, ...]
    next_cursor: str | None = None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token to keep."""

    id: str
    name: str
    sha256: bytes
    prefix: str
    """The first characters of its text, to tell it by."""
    scope: str
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    owner: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    ip_ranges: tuple[str, ...] = ()
    expires_at: int | None = None
    limits: tuple[dict[str, Any], ...] = ()
    """Each as it was asked for, such as ``{"requests": 60, "per": "minute"}``."""
    counted_as: str | None = None
    """What the counters of its limits are named by; None: its id."""
    created_by: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id} {self.name!r})"


class StoredToken(NewToken, frozen=True, kw_only=True):
    """A token as it is kept."""

    created_at: int
    rotated_from: str | None = None
    """The id of the token that it has taken the place of."""
    grace_until: int | None = None
    """Until when it lives on beside its successor; None where it has none."""
    revoked_at: int | None = None
    changed: int
    """Its version."""

    def living(self, now: int) -> bool:
        return self.revoked_at is None and (self.grace_until is None or self.grace_until > now)


class TokenChanges(msgspec.Struct, frozen=True):
    """What has changed since a version: the newest version, and those tokens as they are now, dead ones too."""

    version: int
    tokens: tuple[StoredToken, ...]


class RevisionMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Where a revision of the configuration comes from."""

    revision: str
    """The hash of the files (config/sources.py)."""
    before: str | None = None
    """That of the files which an edit has replaced by these; None: they were found so."""
    at: int
    """When it was put in force."""
    author: str
    trigger: str
    """What brought it into force, such as `file`, `api` or `restore`."""
    comment: str | None = None


class StoredRevision(RevisionMeta, frozen=True, kw_only=True):
    """A revision as a list shows it."""

    id: str
    """The hash and the number: one that was restored has the hash of the earlier one."""
    seq: int
    """In which order they were kept."""


class KeptRevision(msgspec.Struct, frozen=True):
    """What keeping a revision has come to."""

    added: StoredRevision | None
    """None: it was there already."""
    previous: StoredRevision | None
    """The one that the list has next below it."""


class SeenModel(msgspec.Struct, frozen=True):
    """One model of a provider's list."""

    model: str
    raw: bytes
    """Its entry as the provider wrote it: JSON, byte for byte."""


class ProviderModels(msgspec.Struct, frozen=True):
    """What a provider has, by the names of the models."""

    seen_at: int
    models: tuple[SeenModel, ...]


class NewAuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what. Holds no secret: who makes it has left them out."""

    id: str = msgspec.field(default_factory=new_audit_id)
    """Unique, so that an entry which is written twice counts once."""
    at: int
    actor: str
    actor_kind: str
    """`admin_key`, `api_token`, `session`, `file`, `signal` or `command`."""
    address: str | None = None
    """From where."""
    action: str
    """Such as `provider.create`."""
    resource: str
    """The kind of thing, such as `provider`."""
    resource_id: str | None = None
    before: str | None = None
    """JSON text, and so is ``after``."""
    after: str | None = None
    outcome: str
    """`done`, or the code of the error that refused it."""
    request_id: str | None = None


class AuditEntry(NewAuditEntry, frozen=True, kw_only=True):
    """An entry as it is kept, in a chain: its hash is over that of the one before it and over itself."""

    seq: int
    """From 1, without gaps."""
    previous_hash: bytes
    hash: bytes


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries a list is to have; what is None does not matter."""

    actor: str | None = None
    action: str | None = None
    """As it is, or a glob: `*` stands for any text, `?` for one character."""
    resource: str | None = None
    resource_id: str | None = None
    outcome: str | None = None
    since: int | None = None
    until: int | None = None
    """Before this."""


class AuditHead(msgspec.Struct, frozen=True):
    """The end of the chain."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq} {self.hash.hex()}"


class AuditBreak(msgspec.Struct, frozen=True):
    """The first place where the chain is not what it was."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"entry {self.seq} {self.what}"


class VerifiedAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What following the chain has found."""

    head: AuditHead | None
    """The last good entry; None where there is none."""
    broken: AuditBreak | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work that an answer did not wait for."""

    id: str
    kind: str
    """Such as `models.refresh`."""
    state: str
    """`running`, `done` or `failed`."""
    created_at: int
    finished_at: int | None = None
    result: Any = None
    """What came of it: a value of JSON."""
