"""What secrets are read from, and outlives the documents that name them: files, and the values of a Vault server."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from config.master_key import Unwrapping
from config.references import Reference
from config.sealing import KeyRing
from config.secret_files import SecretFiles
from config.vault.kept import KeptValues
from config.vault.known import GRACE_SECONDS, StaleValue
from config.vault.settings import VaultSettings
from config.vault.values import VaultValues
from core.clock import Clock, SystemClock
from core.events import Event

KEPT_VALUES = "vault-values.sealed"
CLOSE_SECONDS = 10.0
"""Less than supervisors wait before they kill. What is not given back by then ends by itself."""
_MOST_RETIRED = 4
_THREADS = 4
"""So many questions at a time: Vault answers in milliseconds, and a few at a time are kind to it."""


def _tell_nobody(_event: Event) -> None:
    pass


class SecretStores:
    """Owned by whoever loads documents again and again. Methods may be called from any thread."""

    def __init__(
        self, clock: Clock | None = None, tell: Callable[[Event], None] = _tell_nobody, *, writes: bool = True
    ) -> None:
        """``tell`` is given events of values that rotate or go stale, from any thread. Without ``writes`` nothing is made
        on disk: no key, no kept values."""
        self.writes = writes
        self.files = SecretFiles()
        self.unwrapping = Unwrapping()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._tell = tell
        self._pool = ThreadPoolExecutor(_THREADS, "vault")
        self._lock = threading.RLock()
        """Documents are loaded in a thread, and put in force on the event loop."""
        self._closed = False
        self._retired: dict[VaultValues, threading.Timer] = {}
        """Of documents that were in force before."""
        self.in_force: VaultValues | None = None
        self._candidate: VaultValues | None = None
        """Of a document that was loaded last and is not in force."""
        self._tuning: tuple[VaultSettings, KeptValues | None] | None = None
        """What the document that was loaded last says of values that there were before."""

    def vault(self, settings: VaultSettings, keys: KeyRing | None, directory: Path) -> VaultValues:
        """The values of the server that ``settings`` name: those in force where it is the same.

        With ``keys`` they are kept in ``directory``, sealed.
        """
        kept = KeptValues(directory / KEPT_VALUES, keys, writes=self.writes) if keys is not None else None
        with self._lock:
            for known in (self.in_force, self._candidate):
                if known is not None and known.settings.same_server(settings):
                    self._tuning = settings, kept
                    return known
            self._give_up(self._candidate)
            self._tuning = None
            self._candidate = VaultValues(settings, self._clock, self._pool, kept, self._tell)
            return self._candidate

    def follow(self, vault: VaultValues | None, references: Iterable[Reference]) -> None:
        """Keep what ``references`` of a document that is put in force need, and nothing else."""
        with self._lock:
            former, self.in_force = self.in_force, vault
            candidate, self._candidate = self._candidate, None
            if vault is not None:
                if self._tuning is not None:
                    vault.retune(*self._tuning)
                vault.follow(references)
            if candidate is not vault:
                self._give_up(candidate)
            if former is not None and former is not vault:
                self._retire(former)

    def stale(self) -> tuple[StaleValue, ...]:
        """What is in use though it could not be read again."""
        return self.in_force.stale() if self.in_force is not None else ()

    def close(self) -> None:
        """Give back what is borrowed. Waits for Vault, for :data:`CLOSE_SECONDS` at most."""
        with self._lock:
            self._closed = True
            for timer in self._retired.values():
                timer.cancel()
            values = [each for each in (self.in_force, self._candidate, *self._retired) if each is not None]
        closing = [threading.Thread(target=each.close, name="vault close", daemon=True) for each in values]
        for thread in closing:
            thread.start()
        end = self._clock.monotonic() + CLOSE_SECONDS
        for thread in closing:
            thread.join(max(0.0, end - self._clock.monotonic()))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _retire(self, values: VaultValues) -> None:
        """Close them when requests in flight, which hold them and what was lent, have had their time."""
        with self._lock:
            if len(self._retired) >= _MOST_RETIRED:
                self._give_up_retired(next(iter(self._retired)))
            timer = self._retired[values] = threading.Timer(GRACE_SECONDS, self._give_up_retired, [values])
            timer.daemon = True
            timer.start()

    def _give_up_retired(self, values: VaultValues) -> None:
        with self._lock:
            timer = self._retired.pop(values, None)
        if timer is not None:
            timer.cancel()
            self._give_up(values)

    def _give_up(self, values: VaultValues | None) -> None:
        if values is not None and not self._closed:
            self._pool.submit(values.close)
