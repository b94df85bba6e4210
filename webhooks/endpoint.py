"""A webhook as its part of the configuration says it: what it wants to be told, and where."""

import hashlib

import msgspec

from core.secret import Secret
from transport.messages import STRAIGHT, ConnectionOptions
from webhooks.signing import parse_secret
from webhooks.subscriptions import Subscription


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where one webhook's deliveries go, and how."""

    name: str
    url: str
    """May have a secret in its path: it is shown in no log and no error."""
    secrets: tuple[Secret, ...]
    """Each signs; the first is the present one."""
    subscription: Subscription
    options: ConnectionOptions = STRAIGHT
    """Authorities, a proxy, and whether the address may be in a private network."""
    timeout_seconds: float = 15.0
    """For one try: from looking up its name to the head of its answer."""
    concurrency: int = 2
    """Deliveries under way at a time, for each process."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def address(self) -> bytes:
        """What tells the URL from another one."""
        return hashlib.sha256(self.url.encode()).digest()

    def keys(self) -> tuple[bytes, ...]:
        """What to sign with now.

        Raises:
            SecretFault: one of the secrets is none to sign with.
            Exception: one of them cannot be had.
        """
        return tuple(parse_secret(secret.reveal()) for secret in self.secrets)
