"""Tells what becomes of live credentials: by log, event and metric."""

import logging
from collections.abc import Callable

from core.clock import Clock
from core.events import CredentialRefreshed, CredentialRefreshFailed, Event
from credentials.errors import CredentialFault, NeedsLogin
from credentials.live import LiveCredential

_log = logging.getLogger("sluice.credentials")


class Observer:
    """Told of each token and of each exchange; nothing comes of it here."""

    def renewed(self, provider: str, credential: str) -> None:
        """It has another token."""

    def refresh_ended(self, provider: str, outcome: str) -> None:
        """``outcome``: `refreshed`, or the reason of the fault: `unavailable`, `refused`, `needs_login`."""


class Outcomes:
    """Fulfils :class:`credentials.live.Listener`."""

    def __init__(
        self, clock: Clock, tell: Callable[[Event], None], observer: Observer, then: Callable[[], None]
    ) -> None:
        """``then`` is called after each exchange."""
        self._clock = clock
        self._tell = tell
        self._observer = observer
        self._then = then

    def renewed(self, live: LiveCredential) -> None:
        self._observer.renewed(live.provider, live.name)

    def refreshed(self, live: LiveCredential, *, exchanged: bool, recovers: bool) -> None:
        if recovers:
            _log.info("%s is refreshed again", live.called)
        if exchanged:
            seconds = None if live.tokens is None or live.tokens.expires_at is None else live.ends - self._clock.time()
            self._tell(
                CredentialRefreshed(
                    provider=live.provider,
                    credential=live.name,
                    expires_in_seconds=None if seconds is None else round(seconds, 3),
                )
            )
            self._observer.refresh_ended(live.provider, "refreshed")
        self._then()

    def failed(self, live: LiveCredential, fault: CredentialFault, *, begins: bool) -> None:
        self._observer.refresh_ended(live.provider, fault.reason)
        if begins:
            needs_login = isinstance(fault, NeedsLogin)
            what = "needs a person to sign in again" if needs_login else "could not be refreshed"
            _log.warning("%s %s: %s", live.called, what, fault)
            self._tell(
                CredentialRefreshFailed(
                    provider=live.provider, credential=live.name, reason=fault.reason, needs_login=needs_login
                )
            )
        self._then()
