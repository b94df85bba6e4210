"""The values that `${vault:…}` references name: read when a document is loaded, then kept fresh beside the requests.

What a document gets is a handle on a cell (known.py), so that no request waits for Vault.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import NoReturn

import msgspec

from config.references import Reference
from config.vault.entries import MAX_RETRY_SECONDS, Place, falls_short
from config.vault.errors import VaultDenied, VaultFault, VaultSignInFailed, VaultUnavailable
from config.vault.kept import KeptValues
from config.vault.known import Entry, Known, Lease, StaleValue
from config.vault.session import Session
from config.vault.settings import VaultSettings
from core.clock import Clock
from core.events import Event

_log = logging.getLogger("sluice.secrets")

_LOOK_SECONDS = 0.25
_SHORTEST_PAUSE_SECONDS = 0.01
_KEEP_AGAIN_SECONDS = 30.0
"""After a disk was full."""


class VaultValues:
    """The values of one server; outlives documents. Methods may be called from any thread, but none of ``pool``."""

    def __init__(
        self,
        settings: VaultSettings,
        clock: Clock,
        pool: ThreadPoolExecutor,
        kept: KeptValues | None,
        tell: Callable[[Event], None],
        session: Session | None = None,
    ) -> None:
        """``pool`` is where Vault is waited for; ``tell`` is given events, from any thread."""
        self.settings = settings
        self._clock = clock
        self._pool = pool
        self._kept = kept
        self._session = session if session is not None else Session(settings, clock)
        self._known = Known(settings.config, clock, tell)
        self._warned: set[str] = set()
        self._closed = False
        self._keep_at = -math.inf

    def retune(self, settings: VaultSettings, kept: KeptValues | None) -> None:
        """Take the times of ``settings``, which name the same server, and keep values in ``kept`` from now on."""
        self.settings = settings
        if self._kept is None and kept is not None:
            self._known.changed = True
        self._kept = kept
        self._known.retune(settings.config)
        self._session.retune(settings)

    def signed_in(self) -> Session:
        """The session, once it has a token.

        Raises:
            VaultFault: it can have none.
        """
        return self._session.signed_in()

    # For documents

    def fetch(self, references: Iterable[Reference]) -> None:
        """Read what is not known yet, several at once; :meth:`resolve` tells what could not be read.

        A server that does not answer the first question is not asked the others.
        """
        lacking = self._known.lacking(references)
        question = _Question(lambda entry: entry.lacks_a_text)
        for entry in lacking[:1]:
            self._refresh(entry, question)
        try:
            for future in [self._pool.submit(self._refresh, entry, question) for entry in lacking[1:]]:
                future.result()
        except (CancelledError, RuntimeError):
            if not self._closed:
                raise
            # The gateway ends in the middle of a reload: nobody waits for its outcome.
        unread = [entry for entry in lacking if entry.lacks_a_text]
        if unread and self._kept is not None:
            kept = self._kept.read()
            self._known.fill(unread, lambda place: kept.get(self._kept_id(place), {}))
        self._keep()

    def resolve(self, reference: Reference) -> Callable[[], str]:
        """A function that gives the current text, empty where the reference's default stands in for it.

        Raises:
            ReferenceFault: there is neither a value nor a default that may stand in for what went wrong.
        """
        if not self._known.has(reference):
            self.fetch([reference])
        return self._known.give(reference)

    def follow(self, references: Iterable[Reference]) -> None:
        """Keep what ``references`` of the document in force name; the rest is given up at a later round."""
        self._known.follow(references)

    def stale(self) -> tuple[StaleValue, ...]:
        """What is in use though it could not be read again."""
        return self._known.stale()

    # Beside the requests

    async def keep_fresh(self) -> NoReturn:
        """Read again what is due and prolong what is borrowed, in the pool, until it is cancelled."""
        while True:
            await asyncio.sleep(self._pause())
            try:
                await self._round()
            except Exception:  # a fault of ours: values go stale unseen where nobody goes on
                _log.exception("values of Vault could not be kept fresh")
                await asyncio.sleep(MAX_RETRY_SECONDS)

    def close(self) -> None:
        """Give back what is borrowed and end the session. Waits for Vault, for a bounded time; never raises."""
        self._closed = True
        end = self._clock.monotonic() + 2 * self.settings.config.timeout_seconds
        for lease in self._known.take_leases():
            # Those of a token that is ours end with it, all at once.
            if not self._session.ends_with_session(lease.sign_in) and (self._is_past(end) or not self._revoke(lease)):
                break
        self._session.close()

    # How

    async def _round(self) -> None:
        run = partial(asyncio.get_running_loop().run_in_executor, self._pool)
        if self._is_past(self._session.token_due_at()):
            await run(self._renew_token)
        due = self._known.due(self._session.sign_in)
        question = _Question(lambda entry: self._known.is_due(entry, self._session.sign_in))
        for entry in due[:1]:
            await run(self._refresh, entry, question)
        await asyncio.gather(*(run(self._refresh, entry, question) for entry in due[1:]))
        self._known.give_up()
        await asyncio.gather(*(run(self._revoke, lease) for lease in self._known.take_retired()))
        if self._kept is not None and self._must_keep():
            await run(self._keep)

    def _pause(self) -> float:
        """Seconds until it is worth looking."""
        token_due_at = self._session.token_due_at()
        due_at = self._known.next_due_at()
        seconds = (due_at if token_due_at is None else min(due_at, token_due_at)) - self._clock.monotonic()
        return min(max(seconds, _SHORTEST_PAUSE_SECONDS), _LOOK_SECONDS)

    def _is_past(self, time: float | None) -> bool:
        return time is not None and time <= self._clock.monotonic()

    def _refresh(self, entry: Entry, question: "_Question") -> None:
        with entry.lock:
            # Somebody else may have read it while we waited.
            if not question.wants(entry):
                return
            fault = question.outage or self._ask(entry)
            # What our own end has brought about is no trouble of Vault's.
            if fault is not None and not self._closed:
                question.failed(fault, signed_in=self._session.has_token)
                self._known.failed(entry, fault)

    def _ask(self, entry: Entry) -> VaultFault | None:
        """Prolong or read it; what stood in the way."""
        place = entry.place
        try:
            if entry.lease is None or not self._prolong(entry, entry.lease):
                self._known.read(entry, self._session.read(place.mount, place.path, place.version, place.kv))
                if self._closed and entry.lease is not None:
                    # It came after the leases had been given back.
                    self._revoke(entry.lease)
        except VaultFault as fault:
            # It is remembered, so without its frames.
            return fault.with_traceback(None)
        return None

    def _prolong(self, entry: Entry, lease: Lease) -> bool:
        """Whether its lease lasts as long again; else it must be read anew."""
        if not lease.renewable or lease.sign_in != self._session.sign_in or self._is_past(lease.ends_at):
            return False
        try:
            granted = self._session.renew_lease(lease.lease_id, lease.seconds)
        except VaultUnavailable:
            raise
        except VaultFault:
            return False
        lease = msgspec.structs.replace(lease, ends_at=self._clock.monotonic() + granted)
        if falls_short(granted, lease.seconds):
            entry.lease = lease
            return False
        self._known.prolonged(entry, lease)
        return True

    def _revoke(self, lease: Lease) -> bool:
        """Tried once: a lease that is not revoked ends by itself. Whether Vault answers."""
        if self._is_past(lease.ends_at):
            return True
        try:
            self._session.revoke(lease.lease_id)
        except VaultDenied as fault:
            self._warn_once("leases cannot be revoked and end by themselves", fault)
        except VaultFault as fault:
            _log.info("a lease could not be revoked and ends by itself: %s", fault)
            return not isinstance(fault, VaultUnavailable)
        return True

    def _renew_token(self) -> None:
        try:
            self._session.renew_token_if_due()
        except VaultSignInFailed as fault:
            self._warn_once("the token of Vault cannot be replaced before it ends", fault)
        except VaultFault as fault:
            # It is tried again soon, and what goes stale by it is told.
            _log.info("the token of Vault could not be prolonged yet: %s", fault)

    def _warn_once(self, what: str, fault: VaultFault) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _log.warning("%s: %s", what, fault)

    def _keep(self) -> None:
        kept = self._kept
        if kept is None or not self._must_keep():
            return
        if not kept.keep({self._kept_id(place): texts for place, texts in self._known.texts().items()}):
            self._known.changed = True
            self._keep_at = self._clock.monotonic() + _KEEP_AGAIN_SECONDS

    def _must_keep(self) -> bool:
        return self._known.changed and self._is_past(self._keep_at)

    def _kept_id(self, place: Place) -> str:
        """Names the server too: another's values are never taken for its own."""
        parts = (self.settings.server, self.settings.config.namespace, place.mount, place.path, place.version)
        return "\t".join("" if part is None else str(part) for part in parts)


class _Question:
    """One look at several entries: which it ``wants``, and the outage that spares Vault the rest of them."""

    def __init__(self, wants: Callable[[Entry], bool]) -> None:
        self.wants = wants
        self.outage: VaultFault | None = None
        self._hampered = 0

    def failed(self, fault: VaultFault, *, signed_in: bool) -> None:
        """Learn from the ``fault`` of one entry."""
        # One that is slow or limited may be an engine's affair, of two it is taken for the server's.
        self._hampered += fault.reason in ("slow", "rate_limited")
        if not signed_in or fault.reason in ("sealed", "unreachable") or self._hampered > 1:
            self.outage = fault
