"""Who is calling (the values of ``AuthContext``), and what each may do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


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
class ApiToken:
    """The holder of an API token; the token's text is not kept."""

    name: str
    scope: Scope = Scope.USER
    grants: frozenset[Grant] = frozenset({Grant.INFERENCE})
    allows_model: Callable[[str], bool] = field(default=lambda _model: False, compare=False, repr=False)
    any_model: bool = False
    """Whether it is open to every model, so that a request may leave the choice to the provider."""


AuthContext = Anonymous | AdminKey | ApiToken
