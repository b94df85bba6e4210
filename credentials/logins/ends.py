"""How sign-ins ended, for those who ask: written at once, or as soon as the store takes it."""

import logging
from collections.abc import Awaitable, Callable
from itertools import repeat

from core.tasks import Tasks
from credentials.errors import StoreFault
from credentials.records import AccountStore, LoginEnd

_AGAIN_SECONDS = (1, 2, 5, 10, *repeat(30, 19))
"""Some ten minutes: by then a sign-in has expired anyway."""

_log = logging.getLogger("sluice.credentials")


class LoginEnds:
    """Of one process."""

    def __init__(
        self,
        store: Callable[[], Awaitable[AccountStore]],
        background: Tasks,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._store = store
        self._background = background
        self._sleep = sleep

    async def end(self, key: str, status: LoginEnd, message: str | None = None) -> None:
        """Remember how it ended. Where that cannot be kept now, what has come of it counts all the same."""
        try:
            await (await self._store()).end_login(key, status, message)
        except StoreFault as fault:
            _log.warning("how a sign-in ended (%s) could not be kept: %s", status, fault)
            self._background.spawn(self._again(key, status, message), "the end of a sign-in")

    async def _again(self, key: str, status: LoginEnd, message: str | None) -> None:
        for seconds in _AGAIN_SECONDS:
            await self._sleep(seconds)
            try:
                await (await self._store()).end_login(key, status, message)
            except StoreFault:
                continue
            return
