"""Where Vault is and how the gateway signs in: one `secrets.vault` section with the directory that it stands in."""

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from config.schema import Vault
from core.secret import Secret


class VaultSettings(msgspec.Struct, frozen=True):
    """One server. Its secrets (`auth.token`, `auth.secret_id`) are revealed only when they are used."""

    config: Vault
    directory: Path
    """Where relative names in it begin."""

    @property
    def server(self) -> str:
        """The address as it may be shown, for messages: where it is, without a user, a password or a query."""
        try:
            parts = urlsplit(self.config.address)
            known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            known = False
        if not known:
            return "`secrets.vault.address`"
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        return bare.geturl().rstrip("/")

    def path(self, name: str) -> Path:
        """The file that ``name`` in the section means."""
        return self.directory / name

    def same_server(self, other: "VaultSettings") -> bool:
        """Whether values that were read by one of them serve the other: all but times is equal."""
        ours, theirs = self.config.auth, other.config.auth
        return (
            _without_times_and_secrets(self) == _without_times_and_secrets(other)
            and _same(ours.token, theirs.token)
            and _same(ours.secret_id, theirs.secret_id)
        )


def _without_times_and_secrets(settings: VaultSettings) -> VaultSettings:
    auth = msgspec.structs.replace(settings.config.auth, token=None, secret_id=None)
    config = msgspec.structs.replace(settings.config, auth=auth, cache_seconds=1.0, timeout_seconds=1.0)
    return msgspec.structs.replace(settings, config=config)


def _same(one: Secret | None, other: Secret | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.label == other.label and one.matches(other.reveal())
