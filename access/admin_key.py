"""The admin key: how it is made, and how a try with it is checked.

The key is kept as an argon2id hash (RFC 9106). Its parameters are those of argon2-cffi's defaults, which are
RFC 9106's second recommended option: 64 MiB of memory, 3 passes, 4 lanes, a 16-byte salt, a 32-byte tag
(https://argon2-cffi.readthedocs.io/en/stable/parameters.html). One check takes tens of milliseconds, so:

- a key that has been verified passes by a keyed digest of it, without argon2 and whatever the lock-out says:
  whoever shares the administrator's address (a reverse proxy that nobody declared) cannot lock it out;
- argon2 runs in one thread, and only so many keys may wait for it; the rest are turned away;
- tries that fail are counted by address, and an address with too many is locked out for a while.

That a verified key passes a locked-out address makes guesses against it cheap for whoever shares one; that is why
:func:`hash_admin_key` takes no key of less than 16 characters.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import argon2

from access.address import lockout_key
from access.tokens import looks_like_token
from config.faults import ConfigFaults, Fault
from core.clock import Clock
from core.errors import AdminKeyBusy, TooManyFailures, Unauthenticated
from core.secret import Secret

_log = logging.getLogger("sluice.access")

MIN_KEY_CHARACTERS = 16
MAX_KEY_CHARACTERS = 1024
"""Longer ones are refused unread: nobody's admin key, but work for argon2."""
MAX_WAITING = 4
"""Distinct keys that may be in argon2's thread or wait for it."""
FAILURES_BEFORE_LOCKOUT = 10
LOCKOUT_SECONDS = 300.0
"""Failures are forgotten, and a lock-out ends, this long after the last failure that was counted."""
MAX_ADDRESSES = 10_000
"""Addresses whose failures are remembered; beyond it the one that failed longest ago is forgotten."""

LockedOut = Callable[[str, float], None]
"""Takes what is locked out (an IPv4 address or an IPv6 /64) and for how many seconds."""

_KEY_PREFIX = "sluice-admin-"
_HASH_PATH = ("management", "admin_key_hash")


def new_admin_key() -> str:
    """A fresh admin key: ``sluice-admin-`` and 43 characters (256 random bits)."""
    return _KEY_PREFIX + secrets.token_urlsafe(32)


def hash_admin_key(key: str) -> str:
    """The argon2id hash of ``key``, fit for `management.admin_key_hash`. Blocks for tens of milliseconds.

    Raises:
        ValueError: a key that is too short, too long, no printable ASCII, or that looks like an API token.
    """
    if len(key) < MIN_KEY_CHARACTERS:
        raise ValueError(f"an admin key has at least {MIN_KEY_CHARACTERS} characters, this one has {len(key)}")
    if len(key) > MAX_KEY_CHARACTERS:
        raise ValueError(f"an admin key has at most {MAX_KEY_CHARACTERS} characters, this one has {len(key)}")
    if looks_like_token(key):
        raise ValueError("an admin key must not look like an API token: choose one that does not begin with sk-sluice-")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError(
            "an admin key is printable ASCII without space at its ends: a header field must carry it whole"
        )
    return argon2.PasswordHasher().hash(key)


def check_admin_key_hash(admin_key_hash: Secret | None) -> None:
    """Refuse a configuration whose hash could never match.

    Raises:
        config.faults.ConfigFaults: not an argon2id hash.
    """
    if admin_key_hash is None:
        return
    try:
        parameters = argon2.extract_parameters(admin_key_hash.reveal())
    except argon2.exceptions.InvalidHashError:
        mend = "not an argon2id hash: make one with `./sluice hash-key`"
    else:
        if parameters.type is argon2.Type.ID:
            return
        mend = f"an argon2{parameters.type.name.lower()} hash: make an argon2id one with `./sluice hash-key`"
    raise ConfigFaults([Fault(_HASH_PATH, mend)])


class AdminKeys:
    """Checks tries with the admin key. Outlives generations; lives on one event loop."""

    def __init__(self, clock: Clock, locked_out: LockedOut = lambda _address, _seconds: None) -> None:
        """``locked_out`` is told of each lock-out, once."""
        self._lockouts = Lockouts(clock, locked_out)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="admin-key")
        self._hasher = argon2.PasswordHasher()
        # Keyed with a secret of this process: a digest that leaks is of no use against another.
        self._digest_key = secrets.token_bytes(32)
        self._verified: bytes | None = None
        self._checks: dict[bytes, asyncio.Future[bool]] = {}

    async def require(self, key: str, admin_key_hash: Secret | None, address: str) -> None:
        """Return if ``key`` is the admin key; without a hash none is.

        Raises:
            core.errors.Unauthenticated: it is not; the try was counted against ``address``.
            core.errors.TooManyFailures: ``address`` has failed too often of late.
            core.errors.AdminKeyBusy: too many other keys wait for their check.
        """
        if self.is_known(key, admin_key_hash):
            return
        stored = "" if admin_key_hash is None else admin_key_hash.reveal()
        tried = self._digest(key, stored)
        self._lockouts.require_open(address)
        if stored and len(key) <= MAX_KEY_CHARACTERS and await self._check(tried, key, stored):
            self._verified = tried
            return
        self._lockouts.failed(address)
        raise Unauthenticated("The admin key or API token is not known: check it.")

    def is_known(self, key: str, admin_key_hash: Secret | None) -> bool:
        """Whether ``key`` is the one that was found to be the admin key last, and the hash is as it was."""
        stored = "" if admin_key_hash is None else admin_key_hash.reveal()
        # The hash is part of the digest: once it changes, no earlier digest matches.
        return (
            bool(stored)
            and self._verified is not None
            and hmac.compare_digest(self._digest(key, stored), self._verified)
        )

    def close(self) -> None:
        """Turn waiting checks away and let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _check(self, tried: bytes, key: str, stored: str) -> bool:
        # Requests that present the same key at the same time share one check.
        check = self._checks.get(tried)
        if check is None:
            if len(self._checks) >= MAX_WAITING:
                raise AdminKeyBusy("Too many admin keys are being checked: try again.", retry_after_seconds=1.0)
            check = asyncio.get_running_loop().run_in_executor(self._thread, self._matches, key, stored)
            self._checks[tried] = check
            check.add_done_callback(lambda _check: self._checks.pop(tried))
        # Shielded: the departure of one client must not cancel the check of another.
        return await asyncio.shield(check)

    def _matches(self, key: str, stored: str) -> bool:
        try:
            return self._hasher.verify(stored, key.encode("utf-8", "surrogatepass"))
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.InvalidHashError:
            # It was one when the configuration was loaded, and has been rotated since.
            _log.error("`management.admin_key_hash` is not an argon2id hash: make one with `./sluice hash-key`")
            return False

    def _digest(self, key: str, stored: str) -> bytes:
        # The hash has a fixed alphabet without NUL, so the two cannot run into each other.
        message = f"{stored}\0{key}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._digest_key, message, hashlib.sha256)


class Lockouts:
    """Addresses that have failed of late, and how often. Tries during a lock-out neither count nor prolong it."""

    def __init__(self, clock: Clock, locked_out: LockedOut = lambda _address, _seconds: None) -> None:
        self._clock = clock
        self._locked_out = locked_out
        # In order of their last counted failure, oldest first: address → (failures, forgotten at).
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def require_open(self, address: str) -> None:
        """
        Raises:
            core.errors.TooManyFailures: ``address`` is locked out; says for how long.
        """
        count, until = self._failures.get(lockout_key(address), (0, 0.0))
        left = until - self._clock.monotonic()
        if count >= FAILURES_BEFORE_LOCKOUT and left > 0:
            raise TooManyFailures(
                "Too many failed tries with the admin key from this address: wait, then try again.",
                retry_after_seconds=left,
            )

    def failed(self, address: str) -> None:
        """Count a failed try against ``address``."""
        key = lockout_key(address)
        now = self._clock.monotonic()
        count, until = self._failures.pop(key, (0, 0.0))
        count = count + 1 if now < until else 1
        self._failures[key] = (count, now + LOCKOUT_SECONDS)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        # Tries that were being checked when the last one failed still count; told is the first of them alone.
        if count == FAILURES_BEFORE_LOCKOUT:
            self._locked_out(key, LOCKOUT_SECONDS)
