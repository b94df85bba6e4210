"""What a gateway's own process has to say of its tasks and its garbage."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.gateway_process import ROOT, Gateway, until

_PROBE = ROOT / "tests/probe"


@dataclass(frozen=True)
class Inside:
    """What was found."""

    tasks: int
    garbage: dict[str, int]
    """Objects that only the garbage collector can free, since the last look: their number by type."""


class Probe:
    """To be put into a gateway at its start, with :attr:`extra`."""

    def __init__(self, place: Path, *, garbage: bool = False) -> None:
        """With ``garbage``, that is counted too; from the first look on, the gateway collects none by itself."""
        self._file = place / "probe.json"
        self.extra = {"PYTHONPATH": f"{_PROBE}:{ROOT}", "SLUICE_PROBE": str(self._file)}
        if garbage:
            self.extra["SLUICE_PROBE_GARBAGE"] = "1"
        """For the environment of the gateway."""

    async def look(self, running: Gateway) -> Inside:
        self._file.unlink(missing_ok=True)
        running.signal(signal.SIGUSR1)
        await until(self._file.exists, what="the probe's answer")
        return Inside(**json.loads(self._file.read_text()))
