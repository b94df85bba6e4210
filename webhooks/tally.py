"""What is counted for the log, which is told at once of the first, and of the rest once in a while."""

import asyncio
import logging
from collections import Counter

TELL_SECONDS = 60.0

_log = logging.getLogger("sluice.webhooks")


class Tally:
    """For one event loop."""

    def __init__(self, message: str) -> None:
        """``message`` has one ``%s`` for what was counted, such as ``3 of request.completed (full)``."""
        self._message = message
        self._counts: Counter[str] = Counter()
        """Since the log was told."""
        self._telling: asyncio.TimerHandle | None = None

    def add(self, what: str, count: int = 1) -> None:
        self._counts[what] += count
        if self._telling is None:
            # Not quite at once: what comes together is told together.
            self._telling = asyncio.get_running_loop().call_later(0, self._tell)

    def close(self) -> None:
        """Tell what has not been told."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell_now()
            self._telling = None

    def _tell(self) -> None:
        told = self._tell_now()
        self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell) if told else None

    def _tell_now(self) -> bool:
        if not self._counts:
            return False
        _log.warning(self._message, ", ".join(f"{count} of {what}" for what, count in sorted(self._counts.items())))
        self._counts.clear()
        return True
