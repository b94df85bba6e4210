"""What secrets are read from, and outlives the documents that name them: files, and the values of a Vault server."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from config.references import Reference
from config.sealing import KeyRing
from config.secret_files import SecretFiles
from config.vault.kept import KeptValues
from config.vault.settings import VaultSettings
from config.vault.known import StaleValue
from config.vault.values import VaultValues
from core.clock import Clock, SystemClock
from core.events import Event

KEPT_VALUES = "vault-values.sealed"
_THREADS = 4
"""hvac waits in these. Vault answers in milliseconds, and a few at a time are kind to it."""


def _tell_nobody(_event: Event) -> None:
    pass


class SecretStores:
    """Owned by whoever loads documents again and again. Methods may be called from any thread."""

    def __init__(self, clock: Clock | None = None, tell: Callable[[Event], None] = _tell_nobody) -> None:
        """``tell`` is given events of values that rotate or go stale, from any thread."""
        self.files = SecretFiles()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._tell = tell
        self._pool = ThreadPoolExecutor(_THREADS, "vault")
        self.in_force: VaultValues | None = None

    def vault(self, settings: VaultSettings, keys: KeyRing | None, directory: Path) -> VaultValues:
        """The values of the server that ``settings`` name: those in force where it is the same.

        With ``keys`` they are kept in ``directory``, sealed.
        """
        current = self.in_force
        kept = KeptValues(directory / KEPT_VALUES, keys) if keys is not None else None
        if current is not None and current.settings.same_server(settings):
            current.retune(settings, kept)
            return current
        return VaultValues(settings, self._clock, self._pool, kept, self._tell)

    def follow(self, vault: VaultValues | None, references: Iterable[Reference]) -> None:
        """Keep what ``references`` of a document that is put in force need, and nothing else."""
        former, self.in_force = self.in_force, vault
        if vault is not None:
            vault.follow(references)
        if former is not None and former is not vault:
            # Requests in flight hold its values; nothing reads them again.
            self._pool.submit(former.close)

    def stale(self) -> tuple[StaleValue, ...]:
        """What is in use though it could not be read again."""
        return self.in_force.stale() if self.in_force is not None else ()

    def close(self) -> None:
        """Give back what is borrowed. Waits for Vault, for a bounded time."""
        if self.in_force is not None:
            self.in_force.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
