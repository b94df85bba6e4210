"""Who may call a management operation, as a value that the routes' table, the handlers and the docs share."""

from dataclasses import dataclass

from core.identity import AdminKey, Anonymous, ApiToken, AuthContext, ExternalApp, Role, Scope, effective_role


@dataclass(frozen=True, slots=True)
class Permit:
    """Made by :func:`requires`, :func:`any_caller` and :func:`opened`."""

    role: Role | None = None
    scope: Scope | None = None
    """A scope that opens the route besides the role."""
    tokens: bool = True
    """Whether programs may call that somebody has lent a scope (API tokens, external apps), be their role high enough."""
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
        if self.scope is not None and isinstance(caller, ApiToken) and caller.effective_scope is self.scope:
            return True
        if isinstance(caller, ApiToken | ExternalApp) and not self.tokens:
            return False
        role = effective_role(caller)
        return role is not None and role >= self.role

    def for_caller(self, caller: AuthContext) -> str:
        """What a ``caller`` who is refused would need: a token has no role, and may have another scope."""
        scope = Scope.POWER_USER
        if isinstance(caller, ApiToken) and caller.scope is not scope and self.admits(ApiToken(caller.name, scope)):
            return f"`{scope}`"
        return str(self)

    def __str__(self) -> str:
        """As the docs' table shows it."""
        if self.open_because is not None:
            return "open"
        if self.role is None:
            return "any known caller"
        role = f"`{self.role.name.lower()}`" + ("" if self.tokens else ", no token")
        return role if self.scope is None else f"{role} or `{self.scope}`"


def requires(role: Role, or_scope: Scope | None = None, *, tokens: bool = True) -> Permit:
    """Callers of at least ``role``, and tokens of ``or_scope``; without ``tokens`` no other token, whatever its scope."""
    return Permit(role=role, scope=or_scope, tokens=tokens)


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
