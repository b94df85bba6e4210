"""Who may call a management route, as a value that the routes' table, the handlers and the docs share."""

from dataclasses import dataclass

from core.identity import SCOPE_ROLES, AdminKey, Anonymous, AuthContext, Role, Scope


@dataclass(frozen=True, slots=True)
class Permit:
    """Made by :func:`requires`, :func:`any_caller` and :func:`opened`."""

    role: Role | None = None
    scope: Scope | None = None
    """A scope that opens the route besides the role."""
    open_because: str | None = None
    """Why nobody is asked who they are; None: everybody is."""

    def admits(self, caller: AuthContext) -> bool:
        """Whether ``caller`` may call."""
        if self.open_because is not None:
            return True
        if isinstance(caller, Anonymous):
            return False
        if self.role is None or isinstance(caller, AdminKey):
            return True
        if caller.scope is self.scope:
            return True
        role = SCOPE_ROLES[caller.scope]
        return role is not None and role >= self.role

    def __str__(self) -> str:
        """As the docs' table shows it."""
        if self.open_because is not None:
            return "open"
        if self.role is None:
            return "any known caller"
        role = f"`{self.role.name.lower()}`"
        return role if self.scope is None else f"{role} or `{self.scope}`"


def requires(role: Role, or_scope: Scope | None = None) -> Permit:
    """Callers of at least ``role``, and tokens of ``or_scope``."""
    return Permit(role=role, scope=or_scope)


def any_caller() -> Permit:
    """Everybody whose credentials are known, whatever they open."""
    return Permit()


def opened(because: str) -> Permit:
    """Everybody, without a look at credentials; ``because`` is the reason.

    Raises:
        ValueError: no reason.
    """
    if not because.strip():
        raise ValueError("a route that is open to everybody states why")
    return Permit(open_because=because)
