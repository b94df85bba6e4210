"""Who may make which tokens, and whose they may see to. Pure: DESIGN section 7 as a table."""

from core.identity import AdminKey, AuthContext, Role, Scope, Session

_USER = frozenset({Scope.USER})
_POWER_USER = _USER | {Scope.POWER_USER}
_ADMIN = _POWER_USER | {Scope.METRICS}

CREATABLE_BY_ROLE: dict[Role, frozenset[Scope]] = {
    Role.USER: _USER,
    Role.POWER_USER: _POWER_USER,
    Role.MANAGER: _POWER_USER,
    Role.ADMIN: _ADMIN,
}
"""The scopes that a person of a role may give to a token. `scope_token_manager` and `scope_token_admin` nobody may."""


def creatable_scopes(caller: AuthContext) -> frozenset[Scope]:
    """What tokens ``caller`` may make. Tokens make none, and neither do programs that act for a person."""
    match caller:
        case AdminKey():
            return _ADMIN
        case Session():
            return CREATABLE_BY_ROLE[caller.role]
    return frozenset()


def may_manage(caller: AuthContext, owner: str | None) -> bool:
    """Whether ``caller`` may see, change and revoke a token of ``owner``, and make one for them."""
    match caller:
        case AdminKey():
            return True
        case Session():
            return caller.role >= Role.MANAGER or caller.name == owner
    return False
