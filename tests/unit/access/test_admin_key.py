import asyncio
import threading
from collections.abc import Iterator

import argon2
import pytest

from access import admin_key
from access.admin_key import (
    FAILURES_BEFORE_LOCKOUT,
    LOCKOUT_SECONDS,
    AdminKeys,
    Lockouts,
    check_admin_key_hash,
    hash_admin_key,
    new_admin_key,
)
from config.faults import ConfigFaults
from core.clock import ManualClock
from core.errors import AdminKeyBusy, TooManyFailures, Unauthenticated
from core.secret import Secret
from tests.conftest import ExpectLog
from tests.planted import planted

KEY = planted("admin-key")
# Cheap, so that the tests are quick; the parameters stand in the hash itself.
_cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = Secret.literal(_cheap.hash(KEY))
HOME = "192.0.2.1"
AWAY = "198.51.100.7"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys(clock: ManualClock) -> Iterator[AdminKeys]:
    admin_keys = AdminKeys(clock)
    yield admin_keys
    admin_keys.close()


async def fail(keys: AdminKeys, address: str, times: int) -> None:
    for number in range(times):
        with pytest.raises(Unauthenticated):
            await keys.require(f"guess {number}", HASH, address)


async def test_the_right_key_passes_and_another_does_not(keys: AdminKeys) -> None:
    await keys.require(KEY, HASH, HOME)
    with pytest.raises(Unauthenticated):
        await keys.require(KEY + "!", HASH, HOME)


async def test_without_a_hash_no_key_passes_and_a_stranger_is_told_the_same(keys: AdminKeys) -> None:
    with pytest.raises(Unauthenticated) as without:
        await keys.require(KEY, None, HOME)
    with pytest.raises(Unauthenticated) as wrong:
        await keys.require("guess", HASH, HOME)
    assert wrong.value.message == without.value.message


@pytest.mark.parametrize("key", ["", "\udcff", "k" * 100_000])
async def test_any_text_of_a_stranger_is_merely_unknown(keys: AdminKeys, key: str) -> None:
    with pytest.raises(Unauthenticated):
        await keys.require(key, HASH, HOME)


async def test_a_verified_key_costs_argon2_once(keys: AdminKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    await keys.require(KEY, HASH, HOME)
    monkeypatch.setattr(keys, "_matches", lambda *_: pytest.fail("argon2 ran again"))
    await keys.require(KEY, HASH, HOME)
    await keys.require(KEY, HASH, AWAY)


async def test_a_changed_hash_ends_the_old_key_at_once(keys: AdminKeys) -> None:
    current = HASH.reveal()
    secret = Secret(lambda: current, "file")
    await keys.require(KEY, secret, HOME)
    current = _cheap.hash("another key altogether")
    with pytest.raises(Unauthenticated):
        await keys.require(KEY, secret, HOME)
    await keys.require("another key altogether", secret, HOME)


async def test_too_many_failures_lock_their_address_out_and_no_other(keys: AdminKeys, clock: ManualClock) -> None:
    await fail(keys, AWAY, FAILURES_BEFORE_LOCKOUT)
    with pytest.raises(TooManyFailures) as raised:
        await keys.require(KEY, HASH, AWAY)
    assert LOCKOUT_SECONDS == raised.value.retry_after_seconds
    await keys.require(KEY, HASH, HOME)
    clock.advance(LOCKOUT_SECONDS)
    await keys.require(KEY, HASH, AWAY)


async def test_a_verified_key_passes_a_lock_out_that_others_caused_at_its_address(keys: AdminKeys) -> None:
    await keys.require(KEY, HASH, HOME)
    await fail(keys, HOME, FAILURES_BEFORE_LOCKOUT)
    await keys.require(KEY, HASH, HOME)
    with pytest.raises(TooManyFailures):
        await keys.require("guess", HASH, HOME)


async def test_a_success_forgives_no_failure(keys: AdminKeys) -> None:
    # Else whoever shares the administrator's address could guess on between its requests.
    await fail(keys, HOME, FAILURES_BEFORE_LOCKOUT - 1)
    await keys.require(KEY, HASH, HOME)
    await fail(keys, HOME, 1)
    with pytest.raises(TooManyFailures):
        await keys.require("guess", HASH, HOME)


class _Gate:
    """Holds argon2's thread until it is opened."""

    def __init__(self, keys: AdminKeys, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.checks: list[str] = []
        monkeypatch.setattr(keys, "_matches", self._matches)

    def _matches(self, key: str, _stored: str) -> bool:
        self.checks.append(key)
        assert self.open.wait(60)
        return key == KEY


async def test_more_waiting_keys_than_the_thread_takes_are_turned_away(
    keys: AdminKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = _Gate(keys, monkeypatch)
    tries = [keys.require(f"guess {number}", HASH, AWAY) for number in range(admin_key.MAX_WAITING)]
    waiting = asyncio.gather(*tries, return_exceptions=True)
    await asyncio.sleep(0)
    with pytest.raises(AdminKeyBusy) as raised:
        await keys.require(KEY, HASH, HOME)
    assert 1.0 == raised.value.retry_after_seconds
    gate.open.set()
    assert [Unauthenticated] * admin_key.MAX_WAITING == [type(outcome) for outcome in await waiting]
    await keys.require(KEY, HASH, HOME)


async def test_requests_with_the_same_key_share_one_check_and_one_may_leave(
    keys: AdminKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = _Gate(keys, monkeypatch)
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(keys.require(KEY, HASH, HOME)) for _ in range(20)]
        await asyncio.sleep(0)
        tries[0].cancel()
        gate.open.set()
    assert [KEY] == gate.checks
    assert [True] + [False] * 19 == [one.cancelled() for one in tries]


async def test_argon2_works_in_a_thread_of_its_own(keys: AdminKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread = threading.get_ident()
    ran_in: list[int] = []

    def matches(_key: str, _stored: str) -> bool:
        ran_in.append(threading.get_ident())
        return True

    monkeypatch.setattr(keys, "_matches", matches)
    await keys.require(KEY, HASH, HOME)
    assert 1 == len(ran_in)
    assert loop_thread != ran_in[0]


def test_failures_are_forgotten_after_a_while(clock: ManualClock) -> None:
    lockouts = Lockouts(clock)
    for _ in range(FAILURES_BEFORE_LOCKOUT - 1):
        lockouts.failed(AWAY)
    clock.advance(LOCKOUT_SECONDS)
    lockouts.failed(AWAY)
    lockouts.require_open(AWAY)


def test_a_lock_out_is_told_once_and_a_new_one_again(clock: ManualClock) -> None:
    told: list[tuple[str, float]] = []
    lockouts = Lockouts(clock, lambda address, seconds: told.append((address, seconds)))
    for number in range(FAILURES_BEFORE_LOCKOUT - 1):
        lockouts.failed(f"2001:db8::{number}")
    assert [] == told
    # The last two were being checked at the same time.
    for _ in range(2):
        lockouts.failed("2001:db8::1")
    assert [("2001:db8::/64", LOCKOUT_SECONDS)] == told
    clock.advance(LOCKOUT_SECONDS)
    for _ in range(FAILURES_BEFORE_LOCKOUT):
        lockouts.failed("2001:db8::1")
    assert 2 == len(told)


def test_failures_of_one_ipv6_network_count_together(clock: ManualClock) -> None:
    lockouts = Lockouts(clock)
    for number in range(FAILURES_BEFORE_LOCKOUT):
        lockouts.failed(f"2001:db8::{number}")
    with pytest.raises(TooManyFailures):
        lockouts.require_open("2001:db8::ffff")
    lockouts.require_open("2001:db8:0:1::1")


def test_the_memory_for_failures_is_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_key, "MAX_ADDRESSES", 3)
    lockouts = Lockouts(clock)
    for _ in range(FAILURES_BEFORE_LOCKOUT):
        lockouts.failed("192.0.2.1")
    for number in range(2, 5):
        lockouts.failed(f"192.0.2.{number}")
    assert 3 == len(lockouts)
    # Forgotten: it was the one that failed longest ago.
    lockouts.require_open("192.0.2.1")


def test_a_new_key_can_be_hashed_and_the_hash_is_accepted() -> None:
    hashed = hash_admin_key(new_admin_key())
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    check_admin_key_hash(Secret.literal(hashed))
    check_admin_key_hash(None)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "at least 16"),
        ("k" * 2000, "at most 1024"),
        ("sk-sluice-" + "a" * 39, "look like an API token"),
        (" a key with a space before it", "white space|space at its ends"),
        ("ein Schlüssel mit Umlaut", "printable ASCII"),
    ],
)
def test_a_key_that_could_not_serve_is_not_hashed(key: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        hash_admin_key(key)


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ("the key itself", "not an argon2id hash"),
        ("", "not an argon2id hash"),
        (argon2.PasswordHasher(1, 8, 1, type=argon2.Type.I).hash(KEY), "an argon2i hash"),
    ],
)
def test_a_hash_that_could_never_match_is_a_fault_that_shows_no_value(stored: str, why: str) -> None:
    with pytest.raises(ConfigFaults) as raised:
        check_admin_key_hash(Secret.literal(stored))
    (fault,) = raised.value.faults
    assert ("management", "admin_key_hash") == fault.path
    assert why in fault.message
    assert "./sluice hash-key" in fault.message
    assert not stored or stored not in fault.message


async def test_a_hash_that_has_become_none_lets_nobody_in_and_is_told(keys: AdminKeys, expect_log: ExpectLog) -> None:
    with expect_log("is not an argon2id hash"), pytest.raises(Unauthenticated):
        await keys.require(KEY, Secret.literal("no hash any more"), HOME)
