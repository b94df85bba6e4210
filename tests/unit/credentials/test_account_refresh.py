"""Accounts of several processes are refreshed, in virtual time (tests/unit/credentials/refresh_world.py)."""

import asyncio

import pytest

from core.events import CredentialRefreshed, CredentialRefreshFailed
from credentials.errors import (
    CredentialUnavailable,
    NeedsLogin,
    StoreUnavailable,
)
from tests.unit.credentials.refresh_world import (
    AHEAD_SECONDS,
    LIFE_SECONDS,
    NAME,
    Process,
    World,
    logged,
    parsed,
    world,
)

DOWN = "accounts can be neither read nor written"


def told(process: Process) -> list[str]:
    return [
        f"failed: {event.reason}" if isinstance(event, CredentialRefreshFailed) else "refreshed"
        for event in process.events
        if isinstance(event, CredentialRefreshed | CredentialRefreshFailed)
    ]


@world(8)
async def test_of_many_processes_one_refreshes_ahead_of_the_end_and_all_serve_by_it(there: World) -> None:
    await asyncio.sleep(LIFE_SECONDS - AHEAD_SECONDS / 2)

    assert [(1, 1)] * 8 == [parsed(process.token) for process in there.processes]
    assert {"refresh-1-0": 1} == there.server.used
    assert ["refreshed"] == [word for process in there.processes for word in told(process)]
    record = await there.kept()
    assert (1, 1) == await there.opened(record)
    assert record.refreshed_at is not None
    assert record.expires_at is not None
    assert LIFE_SECONDS * 1_000_000 == record.expires_at - record.refreshed_at


@world(8)
async def test_a_rejected_token_is_exchanged_once_whichever_processes_are_told(there: World) -> None:
    async with asyncio.TaskGroup() as group:
        for process in there.processes * 3:
            group.create_task(process.freshen(reject=True))

    assert {"refresh-1-0": 1} == there.server.used
    assert [(1, 1)] * 8 == [parsed(process.token) for process in there.processes]


@world(2)
async def test_an_edit_during_an_exchange_stays_and_so_do_the_tokens(there: World) -> None:
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(there.processes[0].freshen(reject=True))
    await there.server.exchanged.wait()
    await there.edit(1, "gpt-*")
    await exchange

    record = await there.kept()
    assert ("gpt-*",) == record.settings.models
    assert (1, 1) == await there.opened(record)
    assert ("gpt-*",) == there.processes[0].accounts.members("claude")[0].models


@world(2)
async def test_a_sign_in_during_an_exchange_counts(there: World) -> None:
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(there.processes[0].freshen(reject=True))
    await there.server.exchanged.wait()
    await there.sign_in(1)
    await exchange

    assert (2, 0) == await there.opened(await there.kept())
    assert [(2, 0), (2, 0)] == [parsed(process.token) for process in there.processes]


@world(2)
async def test_an_account_that_is_removed_during_an_exchange_is_gone(there: World) -> None:
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(there.processes[0].freshen(reject=True))
    await there.server.exchanged.wait()
    removed = await there.processes[1].accounts.remove("claude", NAME, None)
    await exchange

    assert removed is not None
    assert (1, 0) == await there.opened(removed)
    await asyncio.sleep(2.0)
    assert await there.shared.store.get("claude", NAME) is None
    assert ["", ""] == [process.token for process in there.processes]
    # What the exchange has given nobody keeps: the server was told.
    assert {1} == there.server.revoked


@logged("tokens of an account that was removed could not be revoked: the server answers 503")
@world(2)
async def test_tokens_that_nobody_keeps_and_the_server_does_not_take_are_told_of(there: World) -> None:
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(there.processes[0].freshen(reject=True))
    await there.server.exchanged.wait()
    await there.processes[1].accounts.remove("claude", NAME, None)
    there.server.failing = True
    await exchange
    await asyncio.sleep(2.0)
    assert set() == there.server.revoked


@logged("claude/main` needs a person to sign in again: the server says `invalid_grant`")
@world(3)
async def test_an_account_that_needs_a_sign_in_is_told_once_and_tried_no_more_until_then(there: World) -> None:
    there.server.revoked.add(1)
    await asyncio.sleep(LIFE_SECONDS + 1.0)

    assert ["failed: needs_login"] == [word for process in there.processes for word in told(process)]
    assert {"refresh-1-0": 1} == there.server.used
    assert "the server says `invalid_grant`" == (await there.kept()).needs_login
    for process in there.processes:
        (state,) = process.accounts.states()
        assert ("needs_login", "the server says `invalid_grant`") == (state.state, state.message)
        live = process.accounts.members("claude")[0].live
        assert live is not None
        assert not live.usable
        with pytest.raises(NeedsLogin):
            await process.freshen()
    await asyncio.sleep(1000.0)
    assert {"refresh-1-0": 1} == there.server.used

    await there.sign_in(1)
    await asyncio.sleep(2.0)
    assert (await there.kept()).needs_login is None
    assert ["ready"] * 3 == [process.accounts.states()[0].state for process in there.processes]
    for process in there.processes:
        await process.freshen()


@logged("claude/main` could not be refreshed: the server answers 503")
@world()
async def test_a_server_that_fails_is_told_once_as_is_that_it_answers_again(there: World) -> None:
    process = there.processes[0]
    there.server.failing = True
    await asyncio.sleep(LIFE_SECONDS - 1.0)
    await process.freshen()
    assert "failing" == process.accounts.states()[0].state

    await asyncio.sleep(1.0)
    with pytest.raises(CredentialUnavailable, match="503"):
        await process.freshen()
    assert ["failed: unavailable"] == told(process)

    there.server.failing = False
    await asyncio.sleep(300.0)
    assert ["failed: unavailable", "refreshed"] == told(process)[:2]
    assert "ready" == process.accounts.states()[0].state


@logged(DOWN, "is not refreshed while that could not be kept")
@world()
async def test_while_the_store_is_down_tokens_serve_and_none_is_exchanged(there: World) -> None:
    process = there.processes[0]
    there.shared.down = True
    await asyncio.sleep(LIFE_SECONDS - 1.0)
    await process.freshen()
    with pytest.raises(CredentialUnavailable, match="not refreshed while that could not be kept: the store"):
        await process.accounts.refresh("claude", NAME)
    assert {} == there.server.used

    there.shared.down = False
    await asyncio.sleep(2.0)
    await process.freshen()
    assert {"refresh-1-0": 1} == there.server.used


@logged(DOWN, "was refreshed, and is used, but is not written yet", "is not refreshed while that could not be kept")
@world(3)
async def test_what_could_not_be_written_serves_and_is_written_before_anybody_else_begins(there: World) -> None:
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(there.processes[0].freshen(reject=True))
    await there.server.exchanged.wait()
    there.shared.down = True
    await exchange
    assert (1, 1) == parsed(there.processes[0].token)
    with pytest.raises(CredentialUnavailable, match="could not be kept"):
        await there.processes[0].accounts.refresh("claude", NAME)

    # So long that the lock has run out, and the tokens of the others have ended.
    await asyncio.sleep(1.5 * LIFE_SECONDS)
    there.shared.down = False

    async def asks(process: Process) -> None:
        while parsed(process.token) == (1, 0):
            try:
                await process.freshen()
            except CredentialUnavailable:
                await asyncio.sleep(0.01)

    await asyncio.gather(*map(asks, there.processes))
    assert {1} == set(there.server.used.values())
    assert (1, 1) <= await there.opened(await there.kept())


@logged(DOWN, "was refreshed, and is used, but is not written yet")
@world()
async def test_what_is_not_written_as_the_process_ends_is_written_then(there: World) -> None:
    process = there.processes[0]
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(process.freshen(reject=True))
    await there.server.exchanged.wait()
    there.shared.down = True
    await exchange
    there.shared.down = False
    await process.stop()

    assert (1, 1) == await there.opened(await there.kept())


@world()
async def test_an_exchange_that_is_under_way_as_the_process_ends_is_not_lost(there: World) -> None:
    process = there.processes[0]
    there.server.latency = lambda: 1.0
    exchange = asyncio.ensure_future(process.freshen(reject=True))
    await there.server.exchanged.wait()
    await process.stop()
    await exchange

    assert (1, 1) == await there.opened(await there.kept())


@logged(DOWN, "was refreshed, and is used, but is not written yet")
@world()
async def test_a_refresh_token_that_stays_good_is_exchanged_while_the_store_is_down(there: World) -> None:
    process = there.processes[0]
    there.server.rotates = False
    await process.freshen(reject=True)
    there.shared.down = True
    await asyncio.sleep(3 * LIFE_SECONDS)
    await process.freshen()

    assert {"refresh-1-0"} == set(there.server.used)
    there.shared.down = False
    await asyncio.sleep(30.0)
    assert parsed(process.token) == await there.opened(await there.kept())


@world(2)
async def test_a_process_that_dies_with_the_lock_is_waited_for_until_that_has_run_out(there: World) -> None:
    dead = await there.shared.store.lock("claude", NAME, 60.0)
    assert dead is not None
    began = there.clock.time()

    await there.processes[0].freshen(reject=True)

    assert 60.0 <= there.clock.time() - began <= 61.0
    assert {"refresh-1-0": 1} == there.server.used


@logged("claude/main` needs a person to sign in again")
@world(2)
async def test_a_process_that_dies_between_exchange_and_write_costs_a_sign_in(there: World) -> None:
    dead = await there.shared.store.lock("claude", NAME, 60.0)
    assert dead is not None
    (tokens,) = [member.live for member in there.processes[0].accounts.members("claude")]
    assert tokens is not None
    await there.server.refresh(tokens.tokens)  # type: ignore[attr-defined]  # and what it gives is lost

    with pytest.raises(NeedsLogin, match="invalid_grant"):
        await there.processes[0].freshen(reject=True)

    assert {"refresh-1-0": 2} == there.server.used
    assert "the server says `invalid_grant`" == (await there.kept()).needs_login


@logged("does not answer within 10 seconds")
@world()
async def test_a_store_that_never_answers_is_down(there: World) -> None:
    process = there.processes[0]
    process.line.latency = lambda: 1000.0
    began = there.clock.time()
    with pytest.raises(StoreUnavailable, match="the store of accounts does not answer within 10 seconds"):
        await process.accounts.sync()

    assert 10.0 <= there.clock.time() - began <= 21.0
    await process.freshen()
    process.line.latency = lambda: 0.0


@logged("its server does not answer within 30 seconds")
@world(2)
async def test_a_server_that_never_answers_is_given_up_before_the_lock_runs_out(there: World) -> None:
    there.server.latency = lambda: 1000.0
    with pytest.raises(CredentialUnavailable, match="its server does not answer within 30 seconds"):
        await there.processes[0].freshen(reject=True)
    there.server.latency = lambda: 0.0
    await there.processes[1].freshen(reject=True)

    assert {"refresh-1-0": 1} == there.server.used
