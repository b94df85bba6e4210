"""The token of a session: how it is had, prolonged, replaced and given back."""

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from config.vault.answers import Answer, Asked, Auth, Limit, TokenDescription
from config.vault.entries import due_in, falls_short
from config.vault.errors import (
    VaultDenied,
    VaultFault,
    VaultMissing,
    VaultSignInFailed,
    VaultUnavailable,
    VaultUnusable,
    not_vault,
)
from config.vault.settings import VaultSettings
from core.clock import Clock
from core.secret import Secret

if TYPE_CHECKING:
    import hvac

    from config.vault.calls import Calls

_log = logging.getLogger("sluice.secrets")

OTHER_TOKEN_SECONDS = 60.0
"""How long after a sign-in for a denial's sake the next one may come; twice as long after each that was of no use, as
a secret id may be good for so many sign-ins only."""
_MAX_OTHER_TOKEN_SECONDS = 3600.0
_RETRY_SECONDS = 30.0
_NEAR_ITS_END = 1 / 5

T = TypeVar("T")


class Token:
    """A token in use, and the client that presents it."""

    def __init__(self, client: "hvac.Client", number: int, *, ttl: float, renewable: bool, own: bool) -> None:
        self.client = client
        # A handle, so that what masks secrets knows it.
        self.secret = Secret.literal(client.token, "token of Vault")
        self.number = number
        """Of the sign-in that it comes from."""
        self.ttl = ttl
        """Seconds that it was given; 0: it does not end."""
        self.renewable = renewable
        self.own = own
        """Whether we signed in for it: then it is ours to revoke."""
        self.due_at: float | None = None
        """When it is prolonged, by the monotonic clock."""


class Tokens:
    """Signs in when a token is first needed, and anew when it has ended. Methods may be called from any thread."""

    def __init__(self, settings: VaultSettings, clock: Clock, calls: "Calls") -> None:
        self._settings = settings
        self._clock = clock
        self._calls = calls
        self._lock = threading.Lock()
        """Held while signing in."""
        self._number = 0
        self._closed = False
        self._other_tried_at = -math.inf
        self._other_pause_seconds = OTHER_TOKEN_SECONDS
        self._warned_of: Secret | None = None
        self._tried: Secret | None = None
        """What `auth.token` held when it was last to take the place of the present token."""
        self._try_again_at = -math.inf
        self._blind = False
        """Whether our tokens may not be looked up, so that none can be told for dead."""
        self.present: Token | None = None

    @property
    def sign_in(self) -> int:
        """Number of the present token's sign-in: leases end with the token that they were read with."""
        token = self.present
        return self._number if token is None else token.number

    @property
    def due_at(self) -> float | None:
        """When to call :meth:`renew_if_due`, by the monotonic clock; None: not at all."""
        token = self.present
        if token is None:
            return None
        times = [time for time in (token.due_at, self._replaced_at(token)) if time is not None]
        return min(times, default=None)

    def retune(self, settings: VaultSettings) -> None:
        """Take what may be other in ``settings``, which name the same server."""
        self._settings = settings

    def get(self, limit: Limit) -> Token:
        """The present token.

        Raises:
            VaultFault: there is none, and none can be had.
        """
        token = self.present
        if token is not None:
            return token
        with self._locked(limit):
            if self.present is None:
                self.present = self._new(limit)
            return self.present

    def ask(self, question: Callable[[Token], T], limit: Limit) -> T:
        """The answer to ``question``, asked again with another token where a denial may be the token's fault.

        Raises:
            VaultFault: what ``question`` raised, or there is no token to ask with.
        """
        token = self.get(limit)
        try:
            return question(token)
        except VaultDenied as error:
            denied = error
        if not token.own and (self.present is not token or self._is_past(self._replaced_at(token))):
            try:
                token = self._replacement(token, limit)
            except VaultFault:
                pass  # for other questions the present one may do still
            else:
                return question(token)
        dead = self._is_dead(token, limit)
        if dead and not token.own:
            return question(self._instead_of(token, limit))
        paused = self._clock.monotonic() < self._other_tried_at + self._other_pause_seconds
        if token.own and ((dead and not self._blind) or not paused):
            try:
                return self._ask_with_other(question, token, limit, dead=dead)
            except VaultFault as fault:
                if dead and not isinstance(fault, VaultDenied):
                    raise
        raise denied

    def renew_if_due(self, limit: Limit) -> None:
        """Prolong a token that has spent two thirds of its life, or sign in anew where that is not to be had.

        A given one gives way to what is given in its place.

        Raises:
            VaultFault: neither is possible now. The token stays in use, and is due again soon.
        """
        token = self.present
        if token is None:
            return
        if self._is_past(self._replaced_at(token)):
            self._replacement(token, limit)
            return
        if not self._is_past(token.due_at):
            return
        with self._locked(limit):
            if self.present is not token:
                return
            token.due_at = self._clock.monotonic() + min(_RETRY_SECONDS, token.ttl / 8)
            if not self._prolong(token, limit):
                self.present = self._new(limit)

    def close(self, limit: Limit) -> None:
        """Give back a token that we signed in for, and with it its leases; a given one lives on. There is no other."""
        self._closed = True
        with suppress(VaultUnavailable), self._locked(limit):
            # A sign-in that was under way has given its token back.
            pass
        token, self.present = self.present, None
        if token is not None and token.own:
            self._give_back(token, limit)

    def _is_past(self, time: float | None) -> bool:
        return time is not None and time <= self._clock.monotonic()

    def _replaced_at(self, token: Token) -> float | None:
        """Since when `auth.token` gives another than ``token``, or when that is to be tried again; None: it does not."""
        given = self._settings.config.auth.token
        if token.own or given is None:
            return None
        text = given.reveal().strip()
        if token.secret.matches(text):
            return None
        return self._try_again_at if self._tried is not None and self._tried.matches(text) else -math.inf

    def _replacement(self, token: Token, limit: Limit) -> Token:
        """What `auth.token` gives now; where it is refused, ``token`` stays in use."""
        with self._locked(limit):
            if self.present is token:
                given = self._settings.config.auth.token
                self._tried = Secret.literal(given.reveal().strip()) if given is not None else None
                self._try_again_at = self._clock.monotonic() + _RETRY_SECONDS
                self.present = self._new(limit)
            if self.present is None:
                self.present = self._new(limit)
            return self.present

    @contextmanager
    def _locked(self, limit: Limit) -> Iterator[None]:
        if not self._lock.acquire(timeout=limit.left):
            raise VaultUnavailable(f"the sign-in to Vault at {self._settings.server} takes too long", "slow")
        try:
            yield
        finally:
            self._lock.release()

    def _instead_of(self, dead: Token, limit: Limit) -> Token:
        with self._locked(limit):
            if self.present is dead:
                self.present = None
            if self.present is None:
                self.present = self._new(limit)
            return self.present

    def _ask_with_other(self, question: Callable[[Token], T], token: Token, limit: Limit, *, dead: bool) -> T:
        """Ask anew with a token made now: ``token`` is ``dead``, or its role has been given further policies since, which
        only tokens have that are made later."""
        with self._locked(limit):
            if self.present is not token and self.present is not None:
                return question(self.present)
            self._other_tried_at = self._clock.monotonic()
            other = self._new(limit)
            try:
                answer = question(other)
            except VaultFault as fault:
                # A role may not be allowed to look up its tokens: then that of ``token`` told nothing.
                self._blind = dead and self._is_dead(other, limit)
                if dead and (not self._blind or not isinstance(fault, VaultDenied)):
                    self.present = other
                else:
                    self._other_pause_seconds = min(2 * self._other_pause_seconds, _MAX_OTHER_TOKEN_SECONDS)
                    self._give_back(other, limit)
                raise
            # The former ends by itself: requests in flight use leases that end with it.
            self.present = other
            self._other_pause_seconds = OTHER_TOKEN_SECONDS
            return answer

    def _is_dead(self, token: Token, limit: Limit) -> bool:
        try:
            self._look_up(token.client, limit)
        except VaultDenied:
            return True
        return False

    def _look_up(self, client: "hvac.Client", limit: Limit) -> Answer:
        return self._calls(Asked("auth/token/lookup-self"), limit, client.auth.token.lookup_self)

    def _new(self, limit: Limit) -> Token:
        if not self._is_open():
            raise self._ended()
        token = self._given(limit) if self._settings.config.auth.method == "token" else self._earned(limit)
        if not self._is_open():
            # It has ended meanwhile.
            if token.own:
                self._give_back(token, limit)
            raise self._ended()
        if token.ttl > 0:
            token.due_at = self._clock.monotonic() + due_in(token.ttl)
        return token

    def _is_open(self) -> bool:
        return not self._closed

    def _ended(self) -> VaultUnavailable:
        return VaultUnavailable(f"the session with Vault at {self._settings.server} has ended")

    def _given(self, limit: Limit) -> Token:
        secret = self._settings.config.auth.token
        text = secret.reveal().strip() if secret is not None else ""
        if not text or not text.isascii() or not text.isprintable():
            raise VaultSignInFailed("`secrets.vault.auth.token` is no token of Vault: mend what it refers to")
        client = self._calls.client(text)
        try:
            found = self._description(self._look_up(client, limit))
        except VaultDenied:
            raise VaultSignInFailed(
                f"Vault at {self._settings.server} refuses `secrets.vault.auth.token`: it has ended or was revoked, "
                "or its policies do not allow it to read `auth/token/lookup-self`; make another"
            ) from None
        former = self.present
        same = former is not None and former.secret.matches(text)
        if not same:
            self._number += 1
        token = Token(client, self._number, ttl=found.ttl, renewable=found.renewable, own=False)
        if same and 0 < found.ttl < found.creation_ttl * _NEAR_ITS_END:
            self._warn_of_end(token)
        return token

    def _warn_of_end(self, token: Token) -> None:
        if self._warned_of is not None and self._warned_of.matches(token.secret.reveal()):
            return
        self._warned_of = token.secret
        _log.warning(
            "`secrets.vault.auth.token` ends in %d s and cannot be prolonged: put another in its place", token.ttl
        )

    def _earned(self, limit: Limit) -> Token:
        auth = self._settings.config.auth
        mount = auth.mount or auth.method
        asked = Asked(f"auth/{mount}/login", "update")
        try:
            answer = self._calls(asked, limit, self._login(self._calls.client(""), mount))
        except (VaultDenied, VaultUnusable, VaultMissing):
            what = "`role_id` and `secret_id`" if auth.method == "approle" else "`role` and `jwt_file`"
            raise VaultSignInFailed(
                f"Vault at {self._settings.server} refuses the sign-in at `{asked.path}`: "
                f"see {what} in `secrets.vault.auth`, and that the method is mounted there"
            ) from None
        earned = self._auth(answer)
        self._number += 1
        return Token(
            self._calls.client(earned.client_token),
            self._number,
            ttl=earned.lease_duration,
            renewable=earned.renewable,
            own=True,
        )

    def _login(self, client: "hvac.Client", mount: str) -> Callable[[], Any]:
        auth = self._settings.config.auth
        if auth.method == "approle":
            secret = auth.secret_id
            # Revealed in the call: the text is in none of our frames.
            return lambda: client.auth.approle.login(
                role_id=auth.role_id,
                secret_id=secret.reveal().strip() if secret is not None else None,
                use_token=False,
                mount_point=mount,
            )
        try:
            jwt = Secret.literal(self._settings.path(auth.jwt_file).read_text().strip())
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise VaultSignInFailed(f"`secrets.vault.auth.jwt_file` {auth.jwt_file} cannot be read: {why}") from None
        return lambda: client.auth.kubernetes.login(
            role=auth.role, jwt=jwt.reveal(), use_token=False, mount_point=mount
        )

    def _prolong(self, token: Token, limit: Limit) -> bool:
        """Whether it lasts as long again as it once did."""
        if not token.renewable:
            return False
        increment = f"{math.ceil(token.ttl)}s"
        try:
            answer = self._calls(
                Asked("auth/token/renew-self", "update"),
                limit,
                lambda: token.client.auth.token.renew_self(increment=increment),
            )
        except VaultUnavailable:
            raise
        except VaultFault:
            return False
        granted = self._auth(answer).lease_duration
        if falls_short(granted, token.ttl):
            return False
        token.due_at = self._clock.monotonic() + due_in(granted)
        return True

    def _give_back(self, token: Token, limit: Limit) -> None:
        try:
            self._calls(Asked("auth/token/revoke-self", "update"), limit, token.client.auth.token.revoke_self)
        except VaultFault as fault:
            _log.info("a token of Vault could not be revoked and ends by itself: %s", fault)

    def _auth(self, answer: Answer) -> Auth:
        if answer.auth is None:
            raise not_vault(self._settings.server)
        return answer.auth

    def _description(self, answer: Answer) -> TokenDescription:
        try:
            return msgspec.convert(answer.data, TokenDescription)
        except msgspec.ValidationError:
            raise not_vault(self._settings.server) from None
