"""The master keys of the configuration in force, for what is sealed while the gateway runs."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from config.load import LoadedConfig
from config.master_key import NO_MASTER_KEY, OWN_FILE, VARIABLE, MasterKeyFault, Wrapper, read_key_ring
from config.sealing import KeyRing
from config.secret_stores import SecretStores
from credentials.errors import StoreUnavailable


class MasterKeys:
    """Owned by Resources. Read when they are first needed, and again when their file has changed (`./sluice rekey`)."""

    def __init__(self, secrets: SecretStores, environment: Mapping[str, str]) -> None:
        """``environment`` is where ``SLUICE_MASTER_KEY`` may be. A key is made only where ``secrets`` may write."""
        self._secrets = secrets
        self._environment = environment
        self._loaded: LoadedConfig | None = None
        self._known: tuple[object, KeyRing] | None = None

    def follow(self, loaded: LoadedConfig) -> None:
        """``loaded`` is put in force."""
        self._loaded, self._known = loaded, None

    async def read(self) -> KeyRing:
        """As they are now.

        Raises:
            StoreUnavailable: there are none, or they cannot be had; nothing can be sealed or opened.
        """
        loaded = self._loaded
        assert loaded is not None, "a configuration comes first"
        try:
            keys = await asyncio.get_running_loop().run_in_executor(None, self._read, loaded)
        except MasterKeyFault as fault:
            raise StoreUnavailable(f"what is sealed cannot be read or written: {fault}") from None
        if keys is None:
            raise StoreUnavailable(f"what is sealed cannot be read or written: {NO_MASTER_KEY}")
        return keys

    def _read(self, loaded: LoadedConfig) -> KeyRing | None:
        settings, directory = loaded.config.secrets, loaded.sources.root.parent
        seen = self._look(directory / (settings.master_key.file or f"{settings.directory}/{OWN_FILE}"))
        known = self._known
        if known is not None and seen is not None and known[0] == seen:
            return known[1]
        session: Callable[[], Wrapper] | None = None
        if loaded.vault is not None:
            session = partial(self._secrets.unwrapping.by, loaded.vault.signed_in)
        keys = read_key_ring(
            settings.master_key, self._environment, directory, settings.directory, session, make=self._secrets.writes
        )
        if keys is not None and loaded is self._loaded:
            self._known = seen, keys
        return keys

    def _look(self, path: Path) -> object:
        """What changes when the keys do; None: it cannot be told."""
        if self._environment.get(VARIABLE):
            return VARIABLE
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
