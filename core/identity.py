"""Who is calling (the values of ``AuthContext``), and what each may do."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any


class Role(IntEnum):
    """Roles, lowest first; each may do what the ones before it may."""

    USER = 1
    POWER_USER = 2
    MANAGER = 3
    ADMIN = 4


class Scope(StrEnum):
    """What an API token opens."""

    USER = "scope_token_user"
    POWER_USER = "scope_token_power_user"
    MANAGER = "scope_token_manager"
    ADMIN = "scope_token_admin"
    METRICS = "scope_metrics"


# The role that a scope lends on the management API. `scope_token_user` opens no management route,
# `scope_metrics` opens `/metrics` alone.
SCOPE_ROLES: dict[Scope, Role | None] = {
    Scope.USER: None,
    Scope.POWER_USER: Role.POWER_USER,
    Scope.MANAGER: Role.MANAGER,
    Scope.ADMIN: Role.ADMIN,
    Scope.METRICS: None,
}
_SCOPES_OF_ROLES = {
    Role.USER: Scope.USER,
    Role.POWER_USER: Scope.POWER_USER,
    Role.MANAGER: Scope.MANAGER,
    Role.ADMIN: Scope.ADMIN,
}
_ROLES_OF_SCOPES = {scope: role for role, scope in _SCOPES_OF_ROLES.items()}


def effective_scope(scope: Scope, owner_role: Role | None) -> Scope | None:
    """The lower of ``scope`` and the role of whose it is; None: nothing is left. Where nobody's role is known, ``scope``.

    `scope_metrics` stands beside the others: it is an administrator's to lend.
    """
    if owner_role is None:
        return scope
    role = _ROLES_OF_SCOPES.get(scope)
    if role is None:
        return scope if owner_role is Role.ADMIN else None
    return _SCOPES_OF_ROLES[min(role, owner_role)]


class Grant(StrEnum):
    """Groups of endpoints that a token may use (`tokens[].endpoints`)."""

    INFERENCE = "inference"
    FILES = "files"
    BATCHES = "batches"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class Anonymous:
    """A caller without credentials."""

    name: str = "anonymous"


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The holder of `management.admin_key_hash`'s key."""

    name: str = "admin-key"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Until when, and from where, an API token may be used."""

    until: float = math.inf
    """Seconds since the Unix epoch."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """None: from everywhere."""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """The holder of an API token; the token's text is not kept."""

    name: str
    scope: Scope = Scope.USER
    grants: frozenset[Grant] = frozenset({Grant.INFERENCE})
    allows_model: Callable[[str], bool] = field(default=lambda _model: False, compare=False, repr=False)
    any_model: bool = False
    """Whether it is open to every model, so that a request may leave the choice to the provider."""
    bounds: Bounds | None = None
    """None: for ever and from everywhere."""
    id: str | None = None
    """Of one that the API has made; None: the file declares it."""
    owner: str | None = None
    limits: tuple[Any, ...] = ()
    """Its own limits, as :class:`access.quotas.limits.Terms`."""
    counted_as: str = ""
    """What the counters of its own limits are named by, where it has any. A token that was rotated and its successor have one
    between them, and another name changes nothing: neither gives a new allowance. It can be the name of none."""
    owner_role: Role | None = None
    """What the owner may do at the time of the request; None: nobody is known by that name."""

    @property
    def effective_scope(self) -> Scope | None:
        """The lower of its scope and of its owner's role; None: nothing is left."""
        return effective_scope(self.scope, self.owner_role)


@dataclass(frozen=True, slots=True)
class Session:
    """A person who has signed in."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class ExternalApp:
    """A program that acts for a person, with the ``scope`` that they have granted it; ``role`` is the person's."""

    name: str
    scope: Scope
    role: Role


AuthContext = Anonymous | AdminKey | ApiToken | Session | ExternalApp


def effective_role(caller: AuthContext) -> Role | None:
    """What ``caller`` may do on the management API: the lower of the scope's role and the person's; None: nothing."""
    match caller:
        case AdminKey():
            return Role.ADMIN
        case Session():
            return caller.role
        case ApiToken():
            scope = caller.effective_scope
            return None if scope is None else SCOPE_ROLES[scope]
        case ExternalApp():
            scope = effective_scope(caller.scope, caller.role)
            return None if scope is None else SCOPE_ROLES[scope]
        case Anonymous():
            return None


_KINDS: dict[type[AuthContext], str] = {
    Anonymous: "anonymous",
    AdminKey: "admin_key",
    ApiToken: "api_token",
    Session: "session",
    ExternalApp: "external_app",
}


@dataclass(frozen=True, slots=True)
class Author:
    """Who has changed something, for revisions and the audit."""

    kind: str
    """`admin_key`, `api_token`, `session`, `external_app`; without a request: `file`, `signal`, `command`, `gateway`."""
    name: str
    address: str | None = None
    """Whence the request came; None where there was none."""


def author_of(caller: AuthContext, address: str | None) -> Author:
    """``caller`` as an author."""
    return Author(_KINDS[type(caller)], caller.name, address)
