"""Seals what the management API is given, as `./sluice seal` does."""

from collections.abc import Callable, Mapping
from pathlib import Path

from config.faults import ConfigFaults
from config.master_key import MasterKeyFault
from gateway.sealing import sealed
from management.secrets.entry_values import CannotSeal


class MasterKeySealer:
    """:class:`management.secrets.entry_values.Sealer` with the master key of the configuration."""

    def __init__(self, path: Callable[[], Path], env: Mapping[str, str]) -> None:
        """``path``: of its root file; ``env``: where ``SLUICE_MASTER_KEY`` may be."""
        self._path = path
        self._env = env

    def seal(self, text: str) -> str:
        """See :class:`management.secrets.entry_values.Sealer`. The key is read anew, as `./sluice rekey` may have changed it."""
        try:
            return sealed(self._path(), self._env, text.encode())
        except (MasterKeyFault, ConfigFaults) as fault:
            raise CannotSeal(f"no master key can be had to seal the secret with: {fault}") from None
