"""What Vault lends: prolonged, replaced in time and given back; and what nobody needs any more."""

import contextlib

import pytest

from config.vault.errors import VaultDenied, VaultFault, VaultUnusable
from config.vault.known import GRACE_SECONDS
from core.events import SecretRotated
from tests.unit.config.vault.held import CACHE_SECONDS, DATABASE, KEY, OPENAI, ExpectLog, Held, named, unavailable


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


def test_a_vault_that_is_not_there_at_the_end_is_asked_once(lent: Held) -> None:
    lent.vault.secrets["database/creds/other"] = {"username": "u"}
    lent.load("database/creds/other#username")
    lent.vault.faults["revoke"] = unavailable()
    lent.values.close()
    assert (1, 1) == (lent.vault.revocations, lent.vault.closed)
