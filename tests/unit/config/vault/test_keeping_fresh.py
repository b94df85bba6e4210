"""Values of Vault beside the requests: read again in time, served through any outage, kept for the next start."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.references import ReferenceFault
from config.schema import Vault
from config.sealing import KeyRing, SealingKey
from config.vault.errors import VaultDenied, VaultSignInFailed
from config.vault.kept import KeptValues
from config.vault.known import StaleValue
from config.vault.settings import VaultSettings
from core.events import SecretFresh, SecretRotated, SecretStale
from tests.unit.config.vault.held import (
    CACHE_SECONDS,
    DATABASE,
    KEY,
    LABEL,
    OPENAI,
    ExpectLog,
    Held,
    named,
    unavailable,
)

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


async def test_what_failed_before_is_not_asked_first(held: Held, expect_log: ExpectLog) -> None:
    names = ["secret/bad", "secret/good"]
    held.vault.secrets |= {name: {"key": "fine"} for name in names}
    held.load(*(f"{name}#key" for name in names))
    held.vault.faults["secret/bad"] = unavailable("slow")
    with expect_log("its last value stays in use"):
        await held.pass_on(CACHE_SECONDS)
    held.vault.take()
    await held.pass_on(CACHE_SECONDS)
    assert ["secret/good", "secret/bad"] == held.vault.take()
    assert ["${vault:secret/bad#key}"] == [each.reference for each in held.values.stale()]


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


# Beside the requests


async def test_keep_fresh_goes_on_until_it_is_cancelled(held: Held) -> None:
    (read,) = held.load(KEY)
    keeping = asyncio.get_running_loop().create_task(held.values.keep_fresh())
    held.vault.secrets[OPENAI] = {"key": "two"}
    held.clock.advance(CACHE_SECONDS)
    async with asyncio.timeout(60):
        while read() != "two":
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_a_fault_of_ours_is_told_and_does_not_end_it(
    held: Held, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
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
        async with asyncio.timeout(60):
            while "could not be kept fresh" not in caplog.text:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
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


def test_new_times_count_at_once(held: Held) -> None:
    held.load(KEY)
    settings = VaultSettings(Vault(address="http://vault", cache_seconds=1.0, timeout_seconds=0.5), Path())
    held.values.retune(settings, None)
    assert settings == held.values.settings
    assert held.values._known.next_due_at() <= held.clock.monotonic() + 1


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


async def test_what_could_not_be_kept_is_kept_later(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    class Full(KeptValues):
        tries = 0

        def keep(self, values: Mapping[str, Mapping[str, str]]) -> bool:
            self.tries += 1
            return self.tries > 1 and super().keep(values)

    kept = Full(tmp_path / "kept", KeyRing([SealingKey("k1", b"." * 32)]))
    held = Held(pool, kept)
    held.vault.secrets[OPENAI] = {"key": "one"}
    held.load(KEY)
    assert (1, {}) == (kept.tries, kept.read())
    await held.pass_on(31)
    assert 2 == kept.tries
    assert [{"key": "one"}] == list(kept.read().values())


async def test_what_is_stale_and_no_longer_named_is_told_again_when_it_is_named_again(
    held: Held, expect_log: ExpectLog
) -> None:
    held.load(KEY)
    held.vault.fault = unavailable()
    with expect_log("its last value stays in use"):
        await held.pass_on(CACHE_SECONDS)
    assert [SecretStale(reference=LABEL, reason="unreachable")] == held.take()
    held.values.follow([])
    assert () == held.values.stale()
    with expect_log("its last value stays in use"):
        held.values.follow([named(KEY)])
    assert [SecretStale(reference=LABEL, reason="unreachable")] == held.take()
    assert [LABEL] == [each.reference for each in held.values.stale()]
