"""What the Vault stand-in remembers: namespaces, mounts, secrets with their versions, tokens, leases, policies.

Nothing here knows HTTP or reads a clock. Facts are those of Vault's documentation of its HTTP API and policies.
"""

import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

SYSTEM_TTL = 2764800.0
"""768 hours: Vault's own `default_lease_ttl` and `max_lease_ttl`."""

DEFAULT_POLICY: dict[str, tuple[str, ...]] = {
    "auth/token/lookup-self": ("read",),
    "auth/token/renew-self": ("update",),
    "auth/token/revoke-self": ("update",),
    "sys/capabilities-self": ("update",),
    "sys/leases/lookup": ("update",),
    "sys/leases/renew": ("update",),
}
"""What every token may by Vault's policy `default`. To revoke a lease is not among it."""

Rules = Mapping[str, Iterable[str]]
"""Capabilities by path, as in a policy: a path may end in `*`, and `+` stands for one segment."""


class Refused(Exception):
    """An answer other than a good one: its status and the texts of `errors`."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status, *errors)
        self.status = status
        self.errors = errors


def permission_denied() -> Refused:
    """What a token hears whose policies do not grant the path."""
    return Refused(403, "1 error occurred:\n\t* permission denied\n\n")


def invalid_token() -> Refused:
    """What a token hears that has expired, was revoked, or never was."""
    return Refused(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")


def no_route(path: str) -> Refused:
    return Refused(404, f'no handler for route "{path}". route entry not found.')


def timestamp(seconds: float) -> str:
    """As Vault writes times: RFC 3339 with nanoseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def seconds_of(duration: object) -> float:
    """Seconds of a duration as Vault takes it: a number, or a text such as `90`, `90s`, `15m`, `1h`."""
    if isinstance(duration, int | float):
        return float(duration)
    if not isinstance(duration, str) or not duration:
        return 0.0
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(duration[-1])
    return float(duration) if unit is None else float(duration[:-1]) * unit


@dataclass(eq=False)
class Token:
    id: str
    namespace: str
    policies: tuple[str, ...]
    made_at: float
    path: str
    ttl: float = 0.0
    """At its making and at each renewal that asks for nothing else; 0: it never ends."""
    max_ttl: float = SYSTEM_TTL
    period: float = 0.0
    renewable: bool = True
    expires_at: float | None = None
    accessor: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    meta: dict[str, str] | None = None

    @property
    def is_root(self) -> bool:
        return "root" in self.policies

    def renew(self, now: float, increment: float = 0.0) -> float:
        """Prolong it, `max_ttl` from its making at most; seconds from now on."""
        if self.expires_at is None or not self.renewable:
            raise Refused(400, "lease is not renewable")
        asked = self.period or increment or self.ttl
        left = asked if self.period else min(asked, self.made_at + self.max_ttl - now)
        if left <= 0:
            raise Refused(400, "past the max TTL, cannot renew")
        self.expires_at = now + left
        return left


@dataclass(eq=False)
class CredentialsRole:
    """A role of a database engine."""

    ttl: float
    max_ttl: float
    renewable: bool


@dataclass(eq=False)
class Lease:
    id: str
    token: Token
    role: CredentialsRole
    made_at: float
    expires_at: float
    username: str

    def renew(self, now: float, increment: float) -> tuple[float, list[str]]:
        """Seconds from now on, and Vault's warnings where they are fewer than was asked for."""
        if not self.role.renewable:
            raise Refused(400, "lease is not renewable")
        asked = increment or self.role.ttl
        most = self.made_at + self.role.max_ttl - now
        if most <= 0:
            raise Refused(400, "past the max TTL, cannot renew")
        left = min(asked, most)
        self.expires_at = now + left
        if left == asked:
            return left, []
        return left, [
            f'TTL of "{asked:g}s" exceeded the effective max_ttl of "{left:g}s"; TTL value is capped accordingly'
        ]


@dataclass(eq=False)
class Version:
    data: dict[str, Any] | None
    made_at: float
    deleted_at: float | None = None
    destroyed: bool = False

    def metadata(self, number: int) -> dict[str, Any]:
        return {
            "created_time": timestamp(self.made_at),
            "custom_metadata": None,
            "deletion_time": "" if self.deleted_at is None else timestamp(self.deleted_at),
            "destroyed": self.destroyed,
            "version": number,
        }


@dataclass(eq=False)
class TransitKey:
    versions: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])


@dataclass(eq=False)
class LoginRole:
    """A role of AppRole or Kubernetes authentication: what the tokens that it gives are like."""

    name: str
    policies: tuple[str, ...]
    ttl: float = 0.0
    max_ttl: float = 0.0
    period: float = 0.0
    renewable: bool = True
    role_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret_ids: dict[str, int] = field(default_factory=dict)
    """Each with how often it may still be used; 0: as often as one likes."""
    jwts: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Login:
    """What a client of AppRole authentication is given."""

    mount: str
    role_id: str
    secret_id: str


@dataclass(eq=False)
class Mount:
    """A secrets engine or an authentication method."""

    path: str
    """Without a slash at its end."""
    type: str
    options: dict[str, str] | None = None
    versions: dict[str, list[Version]] = field(default_factory=dict)
    """Of key-value version 2."""
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of key-value version 1."""
    credentials: dict[str, CredentialsRole] = field(default_factory=dict)
    keys: dict[str, TransitKey] = field(default_factory=dict)
    logins: dict[str, LoginRole] = field(default_factory=dict)
    accessor: str = field(default_factory=lambda: secrets.token_hex(4))
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def is_kv2(self) -> bool:
        return self.type == "kv" and (self.options or {}).get("version") == "2"

    def description(self) -> dict[str, Any]:
        """As `sys/mounts` and `sys/internal/ui/mounts/…` tell of it."""
        return {
            "accessor": f"{self.type}_{self.accessor}",
            "config": {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0},
            "description": "",
            "external_entropy_access": False,
            "local": False,
            "options": self.options,
            "path": f"{self.path}/",
            "plugin_version": "",
            "running_plugin_version": "v1.20.4+builtin.vault",
            "running_sha256": "",
            "seal_wrap": False,
            "type": self.type,
            "uuid": self.uuid,
        }


@dataclass(eq=False)
class Namespace:
    path: str
    """Without a slash at its end; of the root it is empty."""
    mounts: dict[str, Mount] = field(default_factory=dict)
    auths: dict[str, Mount] = field(default_factory=dict)
    policies: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=lambda: {"default": DEFAULT_POLICY.copy()})

    def absolute(self, path: str) -> str:
        return f"{self.path}/{path}" if self.path else path


def mounted_at(mounts: Mapping[str, Mount], path: str) -> tuple[Mount, str] | None:
    """The mount that ``path`` is of, the longest that fits, and the rest of the path."""
    for mount in sorted(mounts.values(), key=lambda each: -len(each.path)):
        if path == mount.path or path.startswith(f"{mount.path}/"):
            return mount, path[len(mount.path) + 1 :]
    return None


def segments_match(pattern: str, path: str) -> bool:
    """Whether a policy's path covers ``path``."""
    whole = not pattern.endswith("*")
    wanted = pattern.removesuffix("*").split("/")
    got = path.split("/")
    if len(got) < len(wanted) or (whole and len(got) != len(wanted)):
        return False
    *before, last = wanted
    if any(want not in ("+", have) for want, have in zip(before, got, strict=False)):
        return False
    have = got[len(before)]
    return (last in ("+", have)) if whole else have.startswith(last)


def specificity(pattern: str) -> tuple[int, bool, int, int, str]:
    """Which of several paths that match Vault goes by: the greatest.

    Its documentation gives the order: where the first wildcard stands, no `*` at the end, fewer `+`, longer, later
    in the alphabet.
    """
    wild = [place for place in (pattern.find("+"), pattern.find("*")) if place >= 0]
    first = min(wild, default=len(pattern) + 1_000_000)
    return first, not pattern.endswith("*"), -pattern.count("+"), len(pattern), pattern


def capabilities(rules: Iterator[tuple[str, tuple[str, ...]]], path: str) -> frozenset[str]:
    """What ``rules`` (of all policies of a token) allow on ``path``: those of the most specific pattern, joined."""
    matching = [(pattern, granted) for pattern, granted in rules if segments_match(pattern, path)]
    if not matching:
        return frozenset()
    best = max((pattern for pattern, _ in matching), key=specificity)
    granted = frozenset(each for pattern, some in matching if pattern == best for each in some)
    return frozenset() if "deny" in granted else granted


def reaches(pattern: str, mount: str) -> bool:
    """Whether a policy's path is inside ``mount`` (`secret/`) or covers it: what the mount's description asks for."""
    return pattern.startswith(mount) or segments_match(pattern, mount)
