"""What Vault's refusals mean.

::

    VaultFault
    ├── VaultMissing        there is no such secret, version or field
    ├── VaultUnusable       it is there, and nothing that can be used
    ├── VaultDenied         the token's policies do not allow it
    ├── VaultSignInFailed   no token could be had, or ours is refused
    └── VaultUnavailable    sealed, out of reach, too slow, overloaded or broken: later it may answer

A message is a sentence without its full stop: it names the path and the mend, and never a value. What Vault itself
writes in an error is not repeated: it may quote what it was sent.
"""

from typing import Literal

Reason = Literal["sealed", "unreachable", "slow", "denied", "rate_limited", "error", "missing"]


class VaultFault(Exception):
    """Vault did not give what it was asked for; ``reason`` is for events and metrics."""

    def __init__(self, message: str, reason: Reason = "error") -> None:
        super().__init__(message)
        self.reason: Reason = reason


class VaultMissing(VaultFault):
    """There is no such secret, version or field, or it has been deleted, or it is empty."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "missing")


class VaultUnusable(VaultFault):
    """Vault rejects the request, or the value is of a kind that no secret can be."""


class VaultDenied(VaultFault):
    """The token's policies do not allow ``capability`` on ``path`` (which begins at the mount)."""

    def __init__(self, path: str, capability: str) -> None:
        line = f'path "{path}" {{ capabilities = ["{capability}"] }}'
        super().__init__(f"Vault denies it (403): a policy of the gateway's token must have `{line}`", "denied")


class VaultSignInFailed(VaultFault):
    """Vault refuses the token or the credentials that would earn one."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "denied")


class VaultUnavailable(VaultFault):
    """Vault cannot answer now. Nothing is wrong with the reference, as far as can be told."""


def not_vault(server: str) -> VaultUnavailable:
    """What answers at ``server`` is something else: a proxy, a portal, another program."""
    return VaultUnavailable(f"{server} answers, but not as Vault does: see that `secrets.vault.address` is right")
