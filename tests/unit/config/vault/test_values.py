"""Values of Vault: had at a load, kept fresh in time, served through any outage, and given up when nobody needs them."""

import asyncio
import contextlib
import threading
import timeit
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from config.references import Reference, ReferenceFault, References, parse_template
from config.schema import KvVersion, Vault
from config.sealing import KeyRing, SealingKey
from config.vault.answers import Reading
from config.vault.errors import (
    Reason,
    VaultDenied,
    VaultFault,
    VaultMissing,
    VaultSignInFailed,
    VaultUnavailable,
    VaultUnusable,
)
from config.vault.kept import KeptValues
from config.vault.known import GRACE_SECONDS, StaleValue
from config.vault.session import Session
from config.vault.settings import VaultSettings
from config.vault.values import VaultValues
from core.clock import ManualClock
from core.events import Event, SecretFresh, SecretRotated, SecretStale

ExpectLog = Callable[..., AbstractContextManager[None]]

CACHE_SECONDS = 60.0
OPENAI = "secret/llm/openai"
DATABASE = "database/creds/app"


class FakeSession(Session):
    """A session whose server is a few dictionaries. ``fault`` stands in the way of everything, ``faults`` of one path."""

    def __init__(self, settings: VaultSettings, clock: ManualClock) -> None:
        super().__init__(settings, clock)
        self.secrets: dict[str, dict[str, object]] = {}
        self.fault: VaultFault | None = None
        self.faults: dict[str, VaultFault] = {}
        self.lease_seconds = 0.0
        self.renewable = True
        self.granted_seconds: list[float] = []
        """What prolongations give; then what was asked for."""
        self.sign_ins = 1
        self.token_is_ours = False
        self.token_times: list[float] = []
        self.token_fault: VaultFault | None = None
        self.asked: list[str] = []
        self.revoked: list[str] = []
        self.closed = 0
        self._leases = 0
        self._guard = threading.Lock()

    def read(self, mount: str, path: str, version: int | None, kv: KvVersion) -> Reading:
        name = f"{mount}/{path}"
        with self._guard:
            self.asked.append(name)
            self._leases += 1
            lease = f"{name}/{self._leases}" if self.lease_seconds else ""
        for fault in (self.fault, self.faults.get(name)):
            if fault is not None:
                raise fault
        if name not in self.secrets:
            raise VaultMissing(f"Vault has nothing at `{name}`")
        return Reading(
            dict(self.secrets[name]),
            lease_id=lease,
            lease_seconds=self.lease_seconds,
            renewable=self.renewable and bool(lease),
            sign_in=self.sign_ins,
        )

    def renew_lease(self, lease_id: str, increment: float) -> float:
        self.asked.append(f"renew {lease_id}")
        for fault in (self.fault, self.faults.get("renew")):
            if fault is not None:
                raise fault
        return self.granted_seconds.pop(0) if self.granted_seconds else increment

    def revoke(self, lease_id: str) -> None:
        if "revoke" in self.faults:
            raise self.faults["revoke"]
        self.revoked.append(lease_id)

    @property
    def sign_in(self) -> int:
        return self.sign_ins

    @property
    def has_token(self) -> bool:
        return self.sign_ins > 0

    def ends_with_session(self, sign_in: int) -> bool:
        return self.token_is_ours and sign_in == self.sign_ins

    def token_due_at(self) -> float | None:
        return self.token_times[0] if self.token_times else None

    def renew_token_if_due(self) -> None:
        self.token_times.pop(0)
        if self.token_fault is not None:
            raise self.token_fault

    def close(self) -> None:
        self.closed += 1

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


class Held:
    """Values and what they are made of; rounds are run by the test."""

    def __init__(self, pool: ThreadPoolExecutor, kept: KeptValues | None = None, address: str = "http://vault") -> None:
        self.clock = ManualClock()
        self.events: list[Event] = []
        settings = VaultSettings(Vault(address=address, cache_seconds=CACHE_SECONDS), Path())
        self.vault = FakeSession(settings, self.clock)
        self.values = VaultValues(settings, self.clock, pool, kept, self.events.append, self.vault)

    def load(self, *texts: str) -> list[Callable[[], str]]:
        """Handles on the references, as a document gets them, which is put in force."""
        references = [named(text) for text in texts]
        self.values.fetch(references)
        handles = [References({"vault": self.values.resolve}).secret((each,)).reveal for each in references]
        self.values.follow(references)
        return handles

    async def pass_on(self, seconds: float) -> None:
        """Let time pass, and the round run that comes then."""
        self.clock.advance(seconds)
        await self.values._round()

    def take(self) -> list[Event]:
        events, self.events[:] = list(self.events), []
        return events


def named(text: str) -> Reference:
    (reference,) = parse_template(f"${{vault:{text}}}")
    assert isinstance(reference, Reference)
    return reference


def unavailable(reason: Reason = "unreachable") -> VaultUnavailable:
    return VaultUnavailable(f"Vault is {reason}", reason)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def held(pool: ThreadPoolExecutor) -> Held:
    held = Held(pool)
    held.vault.secrets[OPENAI] = {"key": "one", "user": "u1"}
    return held


KEY = f"{OPENAI}#key"
LABEL = f"${{vault:{KEY}}}"


# At a load


def test_all_fields_of_a_secret_come_from_one_reading(held: Held) -> None:
    assert ["one", "u1", "one"] == [read() for read in held.load(KEY, f"{OPENAI}#user", KEY)]
    assert [OPENAI] == held.vault.take()


def test_what_is_known_is_not_read_again_by_the_next_load(held: Held) -> None:
    held.load(KEY)
    held.vault.take()
    assert ["one", "u1"] == [read() for read in held.load(KEY, f"{OPENAI}#user")]
    assert [] == held.vault.take()


def test_a_field_that_was_written_since_is_read_by_the_load_that_names_it(held: Held) -> None:
    (key,) = held.load(KEY)
    held.vault.secrets[OPENAI] = {"key": "two", "new": "n"}
    assert ["n"] == [read() for read in held.load(f"{OPENAI}#new")]
    # All its fields are of that reading.
    assert "two" == key()
    assert [SecretRotated(reference=LABEL)] == held.take()


def test_a_reference_that_nobody_fetched_is_read_when_it_is_resolved(held: Held) -> None:
    assert "one" == held.values.resolve(named(KEY))()


@pytest.mark.parametrize("reason", ["unreachable", "sealed", "slow", "rate_limited"])
def test_a_server_that_is_out_is_asked_once_in_a_load(held: Held, reason: Reason) -> None:
    held.vault.fault = unavailable(reason)
    references = [named(f"secret/{number}#key") for number in range(20)]
    held.values.fetch(references)
    assert ["secret/0"] == held.vault.take()
    for reference in references:
        with pytest.raises(ReferenceFault, match=rf"`\${{vault:secret/\d+#key}}` cannot be read: Vault is {reason}"):
            held.values.resolve(reference)


@pytest.mark.parametrize("fault", [VaultSignInFailed("refused"), VaultUnavailable("fails (500)")], ids=["403", "500"])
def test_a_sign_in_that_fails_is_tried_once_in_a_load(held: Held, fault: VaultFault) -> None:
    held.vault.sign_ins = 0
    held.vault.fault = fault
    held.values.fetch([named(f"secret/{number}#key") for number in range(20)])
    assert ["secret/0"] == held.vault.take()


def test_what_is_wrong_with_one_path_is_not_wrong_with_another(held: Held) -> None:
    held.vault.secrets["secret/a"] = held.vault.secrets["secret/d"] = {"key": "fine"}
    held.vault.faults = {"secret/b": VaultDenied("secret/data/b", "read"), "secret/c": VaultUnavailable("fails (500)")}
    a, b, c, d, none = (named(f"secret/{name}#key") for name in ("a", "b", "c", "d", "none"))
    held.values.fetch([b, c, none, a, d])
    assert ["fine", "fine"] == [held.values.resolve(each)() for each in (a, d)]
    for reference, words in ((b, r'path "secret/data/b"'), (c, "500"), (none, "has nothing")):
        with pytest.raises(ReferenceFault, match=words):
            held.values.resolve(reference)


def test_a_fault_is_forgotten_by_the_next_load(held: Held) -> None:
    held.vault.fault = unavailable()
    held.values.fetch([named(KEY)])
    held.vault.fault = None
    assert ["one"] == [read() for read in held.load(KEY)]
    assert [] == held.take()


@pytest.mark.parametrize("value", [{"a": "b"}, ["x"]])
def test_what_no_secret_can_be_is_refused_even_with_a_default(held: Held, value: object) -> None:
    held.vault.secrets[OPENAI] = {"key": value}
    with pytest.raises(ReferenceFault, match="a secret is a text"):
        held.load(f"{KEY}:-default")


# Defaults


async def test_a_default_stands_in_for_what_is_not_there_until_it_is(held: Held) -> None:
    (read,) = held.load("secret/none#key:-default")
    assert "default" == read()
    assert () == held.values.stale()
    held.vault.secrets["secret/none"] = {"key": "real"}
    await held.pass_on(CACHE_SECONDS)
    assert "real" == read()
    assert [SecretRotated(reference="${vault:secret/none#key}")] == held.take()


async def test_a_default_stands_in_for_an_outage_and_is_stale(held: Held, expect_log: ExpectLog) -> None:
    held.vault.fault = unavailable("sealed")
    with expect_log(r"`\$\{vault:secret/llm/openai#key\}` cannot be read, its default is in use: Vault is sealed"):
        (read,) = held.load(f"{KEY}:-default")
    assert "default" == read()
    assert (StaleValue(LABEL, "sealed", held.clock.time(), None),) == held.values.stale()
    assert [SecretStale(reference=LABEL, reason="sealed")] == held.take()
    held.vault.fault = None
    await held.pass_on(1)
    assert "one" == read()
    assert [SecretRotated(reference=LABEL), SecretFresh(reference=LABEL)] == held.take()


async def test_a_default_is_no_longer_stale_once_it_is_known_that_there_is_nothing(
    held: Held, expect_log: ExpectLog
) -> None:
    held.vault.fault = unavailable()
    with expect_log("its default is in use"):
        (read,) = held.load("secret/none#key:-default")
    held.vault.fault = None
    held.take()
    await held.pass_on(1)
    assert "default" == read()
    assert () == held.values.stale()
    assert [SecretFresh(reference="${vault:secret/none#key}")] == held.take()


@pytest.mark.parametrize("fault", [VaultDenied("secret/data/x", "read"), VaultSignInFailed("no"), VaultUnusable("no")])
def test_a_default_does_not_hide_a_mistake(held: Held, fault: VaultFault) -> None:
    held.vault.fault = fault
    with pytest.raises(ReferenceFault):
        held.load(f"{KEY}:-default")


def test_an_empty_text_is_none(held: Held) -> None:
    held.vault.secrets[OPENAI] = {"key": ""}
    assert ["default"] == [read() for read in held.load(f"{KEY}:-default")]
    with pytest.raises(ReferenceFault, match="is empty"):
        held.load(KEY)


# Reading again


async def test_a_value_is_read_again_in_its_time_and_rotates(held: Held) -> None:
    (read,) = held.load(KEY)
    held.vault.take()
    held.vault.secrets[OPENAI] = {"key": "two"}
    await held.pass_on(CACHE_SECONDS * 0.9 - 0.1)
    assert [] == held.vault.take()
    await held.pass_on(CACHE_SECONDS * 0.1 + 0.1)
    assert "two" == read()
    assert [SecretRotated(reference=LABEL)] == held.take()
    await held.pass_on(CACHE_SECONDS)
    assert [] == held.take()


async def test_a_version_that_differs_only_elsewhere_rotates_nothing(held: Held) -> None:
    held.load(KEY)
    held.vault.secrets[OPENAI] = {"key": "one", "user": "u2"}
    await held.pass_on(CACHE_SECONDS)
    assert [] == held.take()


async def test_through_an_outage_the_last_value_serves_and_is_told_once(held: Held, expect_log: ExpectLog) -> None:
    (read,) = held.load(KEY)
    known_at = held.clock.time()
    held.vault.fault = unavailable()
    with expect_log("its last value stays in use: Vault is unreachable"):
        await held.pass_on(CACHE_SECONDS)
    since = held.clock.time()
    held.vault.take()
    for pause in (1, 2, 4, 8, 16, 30, 30):
        await held.pass_on(pause - 0.01)
        assert [] == held.vault.take()
        await held.pass_on(0.01)
        assert [OPENAI] == held.vault.take()
    held.vault.fault = unavailable("sealed")
    await held.pass_on(30)
    assert "one" == read()
    assert (StaleValue(LABEL, "sealed", since, known_at),) == held.values.stale()
    assert [SecretStale(reference=LABEL, reason="unreachable")] == held.take()
    held.vault.fault = None
    await held.pass_on(30)
    assert () == held.values.stale()
    assert [SecretFresh(reference=LABEL)] == held.take()


async def test_in_an_outage_one_question_a_round_is_enough(held: Held, expect_log: ExpectLog) -> None:
    names = [f"secret/{number}" for number in range(20)]
    held.vault.secrets |= {name: {"key": name} for name in names}
    handles = held.load(*(f"{name}#key" for name in names))
    held.vault.take()
    held.vault.fault = unavailable()
    with expect_log("its last value stays in use"):
        await held.pass_on(CACHE_SECONDS)
    assert 1 == len(held.vault.take())
    assert names == [read() for read in handles]
    assert 20 == len(held.values.stale())
    held.vault.fault = None
    await held.pass_on(1)
    assert () == held.values.stale()


@pytest.mark.parametrize("gone", [{}, {"key": None}, {"key": ""}])
async def test_what_is_gone_when_it_is_read_again_stays_in_use(
    held: Held, gone: dict[str, object], expect_log: ExpectLog
) -> None:
    (read,) = held.load(f"{KEY}:-default")
    held.vault.secrets[OPENAI] = gone
    with expect_log("its last value stays in use: the field"):
        await held.pass_on(CACHE_SECONDS)
    assert "one" == read()
    assert [SecretStale(reference=LABEL, reason="missing")] == held.take()
    held.vault.secrets[OPENAI] = {"key": "two"}
    await held.pass_on(CACHE_SECONDS)
    assert "two" == read()
    assert [SecretRotated(reference=LABEL), SecretFresh(reference=LABEL)] == held.take()


async def test_a_denial_leaves_what_was_read_before(held: Held, expect_log: ExpectLog) -> None:
    (read,) = held.load(KEY)
    held.vault.faults[OPENAI] = VaultDenied("secret/data/llm/openai", "read")
    with expect_log('its last value stays in use: .*path "secret/data/llm/openai"'):
        await held.pass_on(CACHE_SECONDS)
    assert "one" == read()
    assert [SecretStale(reference=LABEL, reason="denied")] == held.take()


async def test_a_load_during_an_outage_goes_on_with_what_is_stale(held: Held, expect_log: ExpectLog) -> None:
    held.load(KEY)
    held.vault.fault = unavailable()
    with expect_log("its last value stays in use"):
        await held.pass_on(CACHE_SECONDS)
    held.vault.take()
    assert ["one"] == [read() for read in held.load(KEY)]
    assert [] == held.vault.take()


def test_what_no_document_got_is_not_read_again(held: Held) -> None:
    held.vault.fault = unavailable()
    with pytest.raises(ReferenceFault):
        held.load(KEY)
    held.clock.advance(CACHE_SECONDS)
    assert [] == held.values._known.due(held.vault.sign_in)
    assert [] == held.take()


# Leases


@pytest.fixture
def lent(held: Held) -> Held:
    held.vault.secrets[DATABASE] = {"username": "u1", "password": "p1"}
    held.vault.lease_seconds = 90.0
    held.load(f"{DATABASE}#username", f"{DATABASE}#password")
    held.vault.take()
    return held


async def test_a_lease_is_prolonged_when_two_thirds_are_spent(lent: Held) -> None:
    await lent.pass_on(59)
    assert [] == lent.vault.take()
    await lent.pass_on(1)
    assert [f"renew {DATABASE}/1"] == lent.vault.take()
    await lent.pass_on(59)
    assert [] == lent.vault.take()
    await lent.pass_on(1)
    assert [f"renew {DATABASE}/1"] == lent.vault.take()
    assert [] == lent.take()


async def test_where_it_cannot_be_prolonged_as_long_it_is_replaced_and_revoked_after_a_grace(lent: Held) -> None:
    lent.vault.granted_seconds = [80.0]
    lent.vault.secrets[DATABASE] = {"username": "u2", "password": "p2"}
    await lent.pass_on(60)
    assert [f"renew {DATABASE}/1", DATABASE] == lent.vault.take()
    rotated = [SecretRotated(reference=f"${{vault:{DATABASE}#{field}}}") for field in ("username", "password")]
    assert rotated == lent.take()
    # Requests in flight use the former for a while.
    await lent.pass_on(GRACE_SECONDS - 1)
    assert [] == lent.vault.revoked
    await lent.pass_on(1)
    assert [f"{DATABASE}/1"] == lent.vault.revoked


async def test_a_lease_that_has_ended_by_itself_is_not_revoked(lent: Held) -> None:
    lent.vault.granted_seconds = [40.0]
    await lent.pass_on(60)
    await lent.pass_on(GRACE_SECONDS)
    assert [] == lent.vault.revoked


async def test_a_lease_that_is_not_renewable_is_replaced_in_time(held: Held) -> None:
    held.vault.renewable = False
    held.vault.lease_seconds = 90.0
    held.vault.secrets[DATABASE] = {"username": "u1"}
    held.load(f"{DATABASE}#username")
    held.vault.take()
    await held.pass_on(60)
    assert [DATABASE] == held.vault.take()


@pytest.mark.parametrize("fault", [VaultUnusable("lease not found"), VaultDenied("sys/leases/renew", "update")])
async def test_a_lease_that_vault_does_not_prolong_is_replaced(lent: Held, fault: VaultFault) -> None:
    lent.vault.faults["renew"] = fault
    await lent.pass_on(60)
    assert [f"renew {DATABASE}/1", DATABASE] == lent.vault.take()
    assert () == lent.values.stale()


async def test_a_lease_ends_with_its_token_and_is_replaced_when_that_is(lent: Held) -> None:
    lent.vault.sign_ins += 1
    await lent.pass_on(1)
    assert [DATABASE] == lent.vault.take()
    await lent.pass_on(1)
    assert [] == lent.vault.take()


async def test_a_lease_that_ended_in_an_outage_is_not_prolonged_after_it(lent: Held, expect_log: ExpectLog) -> None:
    lent.vault.fault = unavailable()
    with expect_log("its last value stays in use"):
        await lent.pass_on(60)
    lent.vault.take()
    lent.clock.advance(31)
    lent.vault.fault = None
    await lent.pass_on(0)
    assert [DATABASE] == lent.vault.take()
    assert () == lent.values.stale()


async def test_an_outage_between_prolongations_is_over_with_the_next(lent: Held, expect_log: ExpectLog) -> None:
    lent.vault.fault = unavailable()
    with expect_log("its last value stays in use"):
        await lent.pass_on(60)
    lent.vault.fault = None
    await lent.pass_on(1)
    assert f"renew {DATABASE}/1" == lent.vault.take()[-1]
    assert () == lent.values.stale()


async def test_a_lease_that_may_not_be_revoked_is_warned_of_once(lent: Held, expect_log: ExpectLog) -> None:
    lent.vault.lease_seconds = 3600.0
    lent.vault.faults["revoke"] = VaultDenied("sys/leases/revoke", "update")
    for expected in (expect_log('end by themselves: .*path "sys/leases/revoke"'), contextlib.nullcontext()):
        lent.vault.sign_ins += 1
        await lent.pass_on(1)
        with expected:
            await lent.pass_on(GRACE_SECONDS)


# What nobody needs, and the end


async def test_what_no_document_needs_is_given_up_after_a_while(lent: Held) -> None:
    lent.vault.lease_seconds = 0.0
    lent.load(KEY)
    await lent.pass_on(GRACE_SECONDS - 1)
    await lent.pass_on(1)
    lent.vault.take()
    await lent.pass_on(1000)
    assert [OPENAI] == lent.vault.take()


async def test_a_handle_of_a_former_document_goes_on_giving_its_last_value(held: Held) -> None:
    (former,) = held.load(KEY)
    held.load()
    await held.pass_on(GRACE_SECONDS)
    await held.pass_on(1000)
    assert "one" == former()
    assert [] == held.values._known.lacking([])
    held.vault.secrets[OPENAI] = {"key": "two"}
    assert ["two"] == [read() for read in held.load(KEY)]


async def test_what_another_load_has_just_asked_for_is_not_given_up(held: Held) -> None:
    held.load(KEY)
    held.clock.advance(1000)
    held.vault.secrets["secret/new"] = {"key": "n"}
    held.values.fetch([named("secret/new#key")])
    held.values.follow([named(KEY)])
    await held.pass_on(1)
    (new,) = held.load("secret/new#key")
    held.vault.secrets["secret/new"] = {"key": "m"}
    await held.pass_on(CACHE_SECONDS)
    assert "m" == new()


def test_the_end_gives_back_what_was_borrowed(lent: Held) -> None:
    lent.values.close()
    assert ([f"{DATABASE}/1"], 1) == (lent.vault.revoked, lent.vault.closed)


def test_leases_of_a_token_of_ours_end_with_it(lent: Held) -> None:
    lent.vault.token_is_ours = True
    lent.values.close()
    assert ([], 1) == (lent.vault.revoked, lent.vault.closed)


def test_at_the_end_vault_need_not_be_there(lent: Held) -> None:
    lent.vault.faults["revoke"] = unavailable()
    lent.values.close()
    assert 1 == lent.vault.closed


# Kept values


def _kept(directory: Path) -> KeptValues:
    return KeptValues(directory / "kept", KeyRing([SealingKey("k1", b"k" * 32)]))


async def test_a_start_without_vault_goes_on_with_what_an_earlier_process_kept(
    pool: ThreadPoolExecutor, tmp_path: Path, expect_log: ExpectLog
) -> None:
    first = Held(pool, _kept(tmp_path))
    first.vault.secrets[OPENAI] = {"key": "one"}
    first.load(KEY)
    first.vault.secrets[OPENAI] = {"key": "two"}
    await first.pass_on(CACHE_SECONDS)

    second = Held(pool, _kept(tmp_path))
    second.vault.fault = unavailable()
    with expect_log("its last value stays in use: Vault is unreachable"):
        (read,) = second.load(f"{KEY}:-default")
    assert "two" == read()
    assert (StaleValue(LABEL, "unreachable", second.clock.time(), None),) == second.values.stale()
    second.vault.fault = None
    second.vault.secrets[OPENAI] = {"key": "two"}
    await second.pass_on(1)
    assert [SecretStale(reference=LABEL, reason="unreachable"), SecretFresh(reference=LABEL)] == second.take()


def test_another_server_s_values_are_not_taken(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    first = Held(pool, _kept(tmp_path))
    first.vault.secrets[OPENAI] = {"key": "one"}
    first.load(KEY)
    other = Held(pool, _kept(tmp_path), address="http://other")
    other.vault.fault = unavailable()
    with pytest.raises(ReferenceFault):
        other.load(KEY)


def test_what_is_lent_is_not_kept(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    held = Held(pool, _kept(tmp_path))
    held.vault.secrets = {DATABASE: {"username": "u1"}}
    held.vault.lease_seconds = 90.0
    held.load(f"{DATABASE}#username")
    assert {} == _kept(tmp_path).read()


def test_only_the_fields_that_are_named_are_kept(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    held = Held(pool, _kept(tmp_path))
    held.vault.secrets[OPENAI] = {"key": "one", "user": "u1"}
    held.load(KEY)
    assert [{"key": "one"}] == list(_kept(tmp_path).read().values())


async def test_values_are_kept_from_the_reload_on_that_asks_for_it(held: Held, tmp_path: Path) -> None:
    held.load(KEY)
    held.values.retune(held.values.settings, _kept(tmp_path))
    await held.pass_on(1)
    assert [{"key": "one"}] == list(_kept(tmp_path).read().values())


# Beside the requests


async def test_keep_fresh_goes_on_until_it_is_cancelled(held: Held) -> None:
    (read,) = held.load(KEY)
    keeping = asyncio.get_running_loop().create_task(held.values.keep_fresh())
    held.vault.secrets[OPENAI] = {"key": "two"}
    held.clock.advance(CACHE_SECONDS)
    async with asyncio.timeout(10):
        while read() != "two":
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_a_fault_of_ours_is_told_and_does_not_end_it(
    held: Held, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    monkeypatch.setattr("config.vault.values.MAX_RETRY_SECONDS", 0.01)
    held.load(KEY)
    held.vault.token_times = [0.0]

    def fail() -> None:
        held.vault.token_times.clear()
        raise AssertionError("a fault of ours")

    monkeypatch.setattr(held.vault, "renew_token_if_due", fail)
    with expect_log("could not be kept fresh"):
        keeping = asyncio.get_running_loop().create_task(held.values.keep_fresh())
        await asyncio.sleep(0.3)
    assert not keeping.done()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_the_token_is_prolonged_when_it_is_due(held: Held) -> None:
    held.vault.token_times = [held.clock.monotonic() + 10]
    await held.pass_on(9)
    assert 1 == len(held.vault.token_times)
    await held.pass_on(1)
    assert [] == held.vault.token_times


async def test_a_token_that_cannot_be_replaced_is_warned_of_once(held: Held, expect_log: ExpectLog) -> None:
    now = held.clock.monotonic()
    held.vault.token_times = [now, now, now]
    held.vault.token_fault = unavailable()
    await held.pass_on(1)
    held.vault.token_fault = VaultSignInFailed("refused")
    with expect_log("the token of Vault cannot be replaced before it ends: refused"):
        await held.pass_on(1)
    await held.pass_on(1)


def test_it_looks_when_something_is_due_and_not_too_rarely(held: Held) -> None:
    assert 0.25 == held.values._pause()
    held.load(KEY)
    assert 0.25 == held.values._pause()
    held.vault.token_times = [held.clock.monotonic() + 0.1]
    assert 0.1 == pytest.approx(held.values._pause())
    held.clock.advance(1000)
    assert 0.01 == held.values._pause()


def test_new_times_count_from_the_next_reading_on(held: Held) -> None:
    held.load(KEY)
    settings = VaultSettings(Vault(address="http://vault", cache_seconds=1.0, timeout_seconds=0.5), Path())
    held.values.retune(settings, None)
    assert settings == held.values.settings
    held.clock.advance(CACHE_SECONDS)
    (entry,) = held.values._known.due(1)
    held.values._ask(entry)
    assert held.values._known.next_due_at() <= held.clock.monotonic() + 1


# The request path


def test_reading_a_handle_costs_next_to_nothing(held: Held) -> None:
    (read,) = held.load(KEY)
    best = min(timeit.repeat(read, number=20_000, repeat=10)) / 20_000
    assert best < 1e-6, f"{best * 1e6:.3f} µs"  # 0.05 µs on a machine of its own


def test_no_rendering_shows_a_value(held: Held, planted_secret: str) -> None:
    held.vault.secrets[OPENAI] = {"key": planted_secret}
    handle = held.values.resolve(named(KEY))
    (entry,) = held.values._known._entries.values()
    reading = held.vault.read("secret", "llm/openai", None, 2)
    for each in (handle, entry, *entry.cells.values(), reading, held.values, held.vault, reading.__rich_repr__()):
        assert planted_secret not in repr(each) + str(each)
