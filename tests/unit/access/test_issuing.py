"""Who may make which tokens, and what a token is worth in the hands of whom: the whole matrix of DESIGN section 7."""

import pytest

from access.issuing import creatable_scopes, may_manage
from core.identity import (
    AdminKey,
    Anonymous,
    ApiToken,
    AuthContext,
    ExternalApp,
    Role,
    Scope,
    Session,
    effective_role,
    effective_scope,
)

USER, POWER_USER, MANAGER, ADMIN = Role.USER, Role.POWER_USER, Role.MANAGER, Role.ADMIN

CALLERS: dict[str, AuthContext] = {
    "nobody": Anonymous(),
    "admin key": AdminKey(),
    **{f"session of {role.name.lower()}": Session("ann", role) for role in Role},
    **{str(scope): ApiToken("token", scope, owner="ann", owner_role=ADMIN) for scope in Scope},
    **{f"app with {scope}": ExternalApp("app", scope, ADMIN) for scope in Scope},
}

CREATES = {
    "admin key": {Scope.USER, Scope.POWER_USER, Scope.METRICS},
    "session of user": {Scope.USER},
    "session of power_user": {Scope.USER, Scope.POWER_USER},
    "session of manager": {Scope.USER, Scope.POWER_USER},
    "session of admin": {Scope.USER, Scope.POWER_USER, Scope.METRICS},
}
"""All others: nothing."""


@pytest.mark.parametrize("who", CALLERS)
def test_each_caller_creates_the_scopes_of_the_table_and_no_other(who: str) -> None:
    assert CREATES.get(who, set[Scope]()) == set(creatable_scopes(CALLERS[who]))


MANAGES = {
    "admin key": {"ann", "bob", None},
    "session of user": {"ann"},
    "session of power_user": {"ann"},
    "session of manager": {"ann", "bob", None},
    "session of admin": {"ann", "bob", None},
}


@pytest.mark.parametrize("who", CALLERS)
def test_each_caller_sees_to_the_tokens_of_the_table_and_no_other(who: str) -> None:
    allowed = {owner for owner in ("ann", "bob", None) if may_manage(CALLERS[who], owner)}
    assert MANAGES.get(who, set[str | None]()) == allowed


# scope → role of its owner → what is left of it and what that lends on the management API.
EFFECTIVE: dict[Scope, dict[Role | None, tuple[Scope | None, Role | None]]] = {
    Scope.USER: dict.fromkeys((None, *Role), (Scope.USER, None)),
    Scope.POWER_USER: {
        None: (Scope.POWER_USER, POWER_USER),
        USER: (Scope.USER, None),
        POWER_USER: (Scope.POWER_USER, POWER_USER),
        MANAGER: (Scope.POWER_USER, POWER_USER),
        ADMIN: (Scope.POWER_USER, POWER_USER),
    },
    Scope.MANAGER: {
        None: (Scope.MANAGER, MANAGER),
        USER: (Scope.USER, None),
        POWER_USER: (Scope.POWER_USER, POWER_USER),
        MANAGER: (Scope.MANAGER, MANAGER),
        ADMIN: (Scope.MANAGER, MANAGER),
    },
    Scope.ADMIN: {
        None: (Scope.ADMIN, ADMIN),
        USER: (Scope.USER, None),
        POWER_USER: (Scope.POWER_USER, POWER_USER),
        MANAGER: (Scope.MANAGER, MANAGER),
        ADMIN: (Scope.ADMIN, ADMIN),
    },
    Scope.METRICS: {
        None: (Scope.METRICS, None),
        USER: (None, None),
        POWER_USER: (None, None),
        MANAGER: (None, None),
        ADMIN: (Scope.METRICS, None),
    },
}


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("owner_role", [None, *Role])
def test_the_right_of_a_token_is_the_lower_of_its_scope_and_of_its_owners_role(
    scope: Scope, owner_role: Role | None
) -> None:
    left, role = EFFECTIVE[scope][owner_role]
    assert left is effective_scope(scope, owner_role)
    token = ApiToken("token", scope, owner="ann", owner_role=owner_role)
    assert (left, role) == (token.effective_scope, effective_role(token))
    if owner_role is not None:
        assert role == effective_role(ExternalApp("app", scope, owner_role))


@pytest.mark.parametrize(
    ("caller", "role"),
    [(Anonymous(), None), (AdminKey(), ADMIN), *((Session("ann", role), role) for role in Role)],
    ids=repr,
)
def test_a_person_has_their_role_and_the_admin_key_the_highest(caller: AuthContext, role: Role | None) -> None:
    assert role is effective_role(caller)
