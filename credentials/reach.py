"""The store of accounts as it is reached from here: asked within a bounded time, and known to be down or just back."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.clock import Clock
from credentials.errors import StoreUnavailable
from credentials.records import AccountStore

_log = logging.getLogger("sluice.credentials")

ANSWER_SECONDS = 10.0
"""So long the store may take for one answer."""
OUTAGE_SECONDS = 5.0
SETTLE_SECONDS = 15.0
"""So long after an outage that lasted for longer than 5 seconds no refresh is begun: whoever has tokens that could not be
written writes them first. While it was shorter their locks have not run out."""

_T = TypeVar("_T")


class Reach:
    """For one process."""

    def __init__(
        self, store: Callable[[], Awaitable[AccountStore]], clock: Clock, back: Callable[[], None] = lambda: None
    ) -> None:
        """``back`` is called when the store answers again."""
        self._store = store
        self._clock = clock
        self._back = back
        self._down_since: float | None = None
        self._settled_at = -math.inf

    async def ask(self, question: Callable[[AccountStore], Awaitable[_T]]) -> _T:
        """What ``question`` gives.

        Raises:
            StoreUnavailable: it has no answer within 10 seconds; what was to be written may have been, or may be still.
            StoreFault: as ``question`` raises it.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await question(await self._store())
        except TimeoutError:
            fault = StoreUnavailable(f"the store of accounts does not answer within {ANSWER_SECONDS:g} seconds")
            self._fails(fault)
            raise fault from None
        except StoreUnavailable as fault:
            self._fails(fault)
            raise
        self._answers()
        return answer

    @property
    def down(self) -> bool:
        """Whether it did not answer when it was asked last; a log record has told so."""
        return self._down_since is not None

    @property
    def settled(self) -> bool:
        """Whether a refresh may be begun; asked after the store has answered."""
        return self._clock.monotonic() >= self._settled_at

    def _fails(self, fault: StoreUnavailable) -> None:
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
            _log.warning("accounts can be neither read nor written, and serve as they were known: %s", fault)

    def _answers(self) -> None:
        if self._down_since is not None:
            now = self._clock.monotonic()
            if now > self._down_since + OUTAGE_SECONDS:
                self._settled_at = now + SETTLE_SECONDS
            self._down_since = None
            _log.info("accounts are read and written again")
            self._back()
