"""Every store of accounts goes by the same rules, whatever it keeps them in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from config.sealing import KeyRing, SealingKey
from core.clock import ManualClock
from core.secret import Secret
from credentials import records
from credentials.errors import RecordDamaged, RecordUnknown, StoreConflict, StoreUnavailable
from credentials.records import AccountRecord, AccountSettings, AccountStore, Lock
from credentials.rekeying import rekey_accounts
from credentials.sealer import RecordSealer
from credentials.stores import cells, file
from credentials.stores.cells import LOGIN_KEPT
from credentials.tokens import TokenSet
from tests import redis_server
from tests.account_places import (
    DatabasePlace,
    FilePlace,
    MemoryPlace,
    Place,
    RedisPlace,
    account,
    flipped,
    sign_in,
)
from tests.conftest import ExpectLog
from tests.integration.conftest import NewDatabase, NewUrl
from tests.planted import planted, planted_key

KEY = "ab" * 32


@pytest.fixture(scope="module")
def redis() -> Iterator[redis_server.Redis]:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis(keeps=True) as server:
        yield server


@pytest.fixture(params=["memory", "file", "sqlite", "postgresql", "redis"])
async def place(
    request: pytest.FixtureRequest,
    clock: ManualClock,
    tmp_path: Path,
    new_url: NewUrl,
    new_database: NewDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Place]:
    # The disk may be as slow as it likes.
    monkeypatch.setattr(file, "_LOCK_TRIES", 100_000)
    made: Place
    match request.param:
        case "memory":
            made = MemoryPlace(clock)
        case "file":
            made = FilePlace(clock, tmp_path / "accounts")
        case "redis":
            server: redis_server.Redis = request.getfixturevalue("redis")
            server.empty()
            made = RedisPlace(clock, server)
        case kind:
            url = new_url(kind)
            made = DatabasePlace(clock, lambda: new_database(kind, url=url))
    yield made
    await made.close()


async def lock(store: AccountStore, name: str = "main", seconds: float = 60) -> Lock:
    given = await store.lock("openai", name, seconds)
    assert given is not None
    return given


async def now(place: Place) -> int:
    return await place.open()._shelf.now()


def with_weight(record: AccountRecord, weight: int) -> AccountRecord:
    return msgspec.structs.replace(record, settings=AccountSettings(weight=weight))


async def test_what_is_kept_is_given_back_to_every_process_with_its_version(place: Place) -> None:
    ours, others = place.open(), place.open()
    assert (0, ()) == (await others.version(), (await others.all()).records)
    assert await others.get("openai", "main") is None
    given = account(
        settings=AccountSettings(weight=3, prefix="team", models=("gpt-*",), note="“ü”"),
        sealed_tokens="k1:abc",
        scopes=("a", "b"),
        expires_at=5,
        needs_login="why",
    )
    kept = await ours.put(given, None)
    assert msgspec.structs.replace(given, version=1) == kept
    assert kept == await others.get("openai", "main")
    second = await others.put(with_weight(kept, 5), 1)
    assert 2 == second.version
    await ours.put(account("b", "anthropic"), None)
    await ours.put(account("A"), None)
    listing = await ours.all()
    assert [("anthropic", "b"), ("openai", "A"), ("openai", "main")] == [
        (one.provider, one.name) for one in listing.records
    ]
    assert second == listing.records[2]
    assert () == listing.damaged


async def test_names_that_a_file_system_might_confuse_are_of_different_accounts(place: Place) -> None:
    names = ["a", "A", "a.b", "a.account", "a.account.new", "X" * 64, "z_-."]
    store = place.open()
    for weight, name in enumerate(names, 1):
        await store.put(with_weight(account(name, "P.Q"), weight), None)
    assert names == [one.name for one in sorted((await store.all()).records, key=lambda one: one.settings.weight)]
    for weight, name in enumerate(names, 1):
        found = await store.get("P.Q", name)
        assert found is not None
        assert weight == found.settings.weight


async def test_who_has_seen_another_version_changes_nothing(place: Place) -> None:
    store = place.open()
    with pytest.raises(StoreConflict, match="`openai/main` is not there any more"):
        await store.put(account(), 1)
    first = await store.put(account(), None)
    with pytest.raises(StoreConflict, match="`openai/main` is there already"):
        await store.put(account(), None)
    second = await store.put(first, 1)
    version = await store.version()
    for seen in (1, 3):
        with pytest.raises(StoreConflict, match=f"has version 2 by now, and not {seen}: read it again"):
            await store.put(with_weight(first, 9), seen)
        with pytest.raises(StoreConflict, match=f"has version 2 by now, and not {seen}"):
            await store.delete("openai", "main", seen)
    assert second == await store.get("openai", "main")
    assert version == await store.version()


async def test_an_account_that_comes_after_a_deleted_one_is_never_taken_for_it(place: Place) -> None:
    store = place.open()
    assert not await store.delete("openai", "main", None)
    first = await store.put(account(), None)
    held = await lock(store)
    assert await store.delete("openai", "main", 1)
    assert not await store.delete("openai", "main", None)
    assert (None, ()) == (await store.get("openai", "main"), (await store.all()).records)
    with pytest.raises(StoreConflict, match="is not there any more"):
        await store.put(first, 1)
    again = await store.put(account(), None)
    assert 2 == again.version
    # Nor by who was refreshing the former one.
    with pytest.raises(StoreConflict, match="has run out"):
        await store.put(msgspec.structs.replace(again, fence=held.fence), 2)
    assert await store.delete("openai", "main", None)


async def test_each_change_of_a_record_gives_another_version_to_all(place: Place) -> None:
    ours, others = place.open(), place.open()
    seen = [await others.version()]

    async def another() -> bool:
        seen.append(await others.version())
        assert seen[-1] == (await ours.all()).version
        return seen[-1] > seen[-2]

    kept = await ours.put(account(), None)
    assert await another()
    held = await lock(ours)
    await held.release()
    await ours.add_login(sign_in(KEY, await now(place)))
    assert not await another()  # nothing of a record has changed
    await ours.put(kept, 1)
    assert await another()
    await ours.delete("openai", "main", None)
    assert await another()


async def test_of_many_that_write_at_once_one_succeeds_and_the_others_are_told(place: Place) -> None:
    stores = [place.open() for _ in range(4)] * 3
    first = await stores[0].put(account(), None)
    outcomes = await asyncio.gather(
        *(store.put(with_weight(first, weight), 1) for weight, store in enumerate(stores, 2)), return_exceptions=True
    )
    kept = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert 1 == len(kept)
    assert [] == [one for one in outcomes if one is not kept[0] and not isinstance(one, StoreConflict)]
    assert kept[0] == await stores[0].get("openai", "main")
    assert 2 == kept[0].version


async def test_nothing_is_lost_among_writers_that_read_again(place: Place) -> None:
    first = await place.open().put(account(), None)
    writers, rounds = 4, 4

    async def write(store: AccountStore) -> None:
        for _ in range(rounds):
            while True:
                found = await store.get("openai", "main")
                assert found is not None
                try:
                    await store.put(with_weight(found, found.settings.weight + 1), found.version)
                    break
                except StoreConflict:
                    continue

    await asyncio.gather(*(write(place.open()) for _ in range(writers)))
    found = await place.open().get("openai", "main")
    assert found is not None
    assert (first.version + writers * rounds, 1 + writers * rounds) == (found.version, found.settings.weight)


async def test_one_of_many_gets_the_lock_and_each_after_it_a_greater_fence(place: Place) -> None:
    stores = [place.open() for _ in range(4)] * 3
    await stores[0].put(account(), None)
    fences = [0]
    for _ in range(3):
        given = [one for one in await asyncio.gather(*(store.lock("openai", "main", 60) for store in stores)) if one]
        assert 1 == len(given)
        fences.append(given[0].fence)
        await given[0].release()
    given_last = await lock(stores[1])
    fences.append(given_last.fence)
    assert sorted(set(fences)) == fences
    # Another account is another matter.
    assert await stores[0].lock("openai", "other", 60) is not None


async def test_a_lock_runs_out_and_its_holder_writes_nothing_any_more(place: Place) -> None:
    ours, others = place.open(), place.open()
    first = await ours.put(account(), None)
    stale = await lock(ours)
    place.clock.advance(61)
    # Nobody else has it: no harm is done.
    second = await ours.put(msgspec.structs.replace(first, fence=stale.fence, sealed_tokens="k:1"), 1)
    later = await lock(others)
    # As another has it, whether that one has written yet or not.
    with pytest.raises(StoreConflict, match="has run out"):
        await ours.put(msgspec.structs.replace(second, fence=stale.fence - 1), 2)
    stale, latest = later, later
    place.clock.advance(61)
    latest = await lock(ours)
    with pytest.raises(StoreConflict, match="has run out"):
        await others.put(msgspec.structs.replace(second, fence=stale.fence, sealed_tokens="k:2"), 2)
    third = await ours.put(msgspec.structs.replace(second, fence=latest.fence, sealed_tokens="k:3"), 2)
    with pytest.raises(StoreConflict, match="has run out"):
        await others.put(msgspec.structs.replace(third, fence=stale.fence), 3)
    # What it gives up is not its own any more.
    await stale.release()
    assert await others.lock("openai", "main", 60) is None
    assert third == await others.get("openai", "main")


async def test_an_operator_edits_an_account_while_it_is_refreshed_and_neither_is_lost(place: Place) -> None:
    refresher, operator = place.open(), place.open()
    first = await refresher.put(account(sealed_tokens="k:1"), None)
    held = await lock(refresher)
    edited = await operator.put(with_weight(first, 7), 1)
    with pytest.raises(StoreConflict, match="has version 2 by now"):
        await refresher.put(msgspec.structs.replace(first, fence=held.fence, sealed_tokens="k:2"), 1)
    await refresher.put(msgspec.structs.replace(edited, fence=held.fence, sealed_tokens="k:2"), 2)
    await held.release()
    found = await operator.get("openai", "main")
    assert found is not None
    assert (7, "k:2", held.fence) == (found.settings.weight, found.sealed_tokens, found.fence)


async def test_a_sign_in_is_taken_by_one_of_many_and_its_secrets_are_forgotten(place: Place) -> None:
    stores = [place.open() for _ in range(4)] * 3
    begun = sign_in(KEY, await now(place))
    await stores[0].add_login(begun)
    with pytest.raises(StoreConflict, match="begin another"):
        await stores[1].add_login(begun)
    shown = msgspec.structs.replace(begun, sealed=None)
    assert shown == await stores[1].login(KEY)
    taken = [one for one in await asyncio.gather(*(store.take_login(KEY) for store in stores)) if one]
    assert [begun] == taken
    assert shown == await stores[1].login(KEY)
    assert [] == [kept for kept in await place.cells() if b"k:text" in kept]
    assert (None, None) == (await stores[0].take_login("cd" * 32), await stores[0].login("cd" * 32))
    await stores[2].end_login(KEY, "failed", "it says no")
    await stores[2].end_login("cd" * 32, "failed", None)
    await stores[1].end_login(KEY, "cancelled", None)
    assert msgspec.structs.replace(shown, status="failed", message="it says no") == await stores[1].login(KEY)
    await stores[1].end_login(KEY, "complete", None)
    assert msgspec.structs.replace(shown, status="complete") == await stores[1].login(KEY)


async def test_a_sign_in_that_was_given_up_cannot_be_taken_any_more(place: Place) -> None:
    store = place.open()
    await store.add_login(sign_in(KEY, await now(place)))
    await store.end_login(KEY, "cancelled", None)
    assert await store.take_login(KEY) is None
    assert [] == [kept for kept in await place.cells() if b"k:text" in kept]


async def test_a_sign_in_ends_with_its_time_and_is_forgotten_a_while_after(place: Place) -> None:
    store = place.open()
    begun = sign_in(KEY, await now(place))
    await store.add_login(begun)
    place.clock.advance(601)
    assert await store.take_login(KEY) is None
    assert msgspec.structs.replace(begun, sealed=None, status="expired") == await store.login(KEY)
    place.clock.advance(LOGIN_KEPT / 1_000_000)
    assert await store.login(KEY) is None


async def test_a_changed_byte_is_seen_wherever_it_is_and_others_are_not_affected(place: Place) -> None:
    store = place.open()
    whole = await store.put(account("whole"), None)
    kept = await store.put(account(sealed_tokens="k:secret", settings=AccountSettings(note="n")), None)
    damaged = r"what is kept of the account `openai/main` was changed or cut: delete it and sign in again"
    cell = next(one for one in await place.cells() if b'"main"' in one)
    # Every byte of it: tests/unit/credentials/stores/test_cells.py.
    changed = [flipped(cell, at) for at in range(0, len(cell), 61)] + [cell[:-1], cell + b"\n", b"", b"\xff" * 9]
    for new in changed:
        await place.damage(cell, new)
        with pytest.raises(RecordDamaged, match=damaged):
            await store.get("openai", "main")
        await place.damage(new, cell)
    assert kept == await store.get("openai", "main")
    await place.damage(cell, changed[3])
    listing = await store.all()
    assert ((whole,), ["openai/main"]) == (listing.records, [f"{one.provider}/{one.name}" for one in listing.damaged])
    assert "was changed or cut: delete it" in listing.damaged[0].message
    for refused in (store.put(kept, 1), store.put(account(), None), store.lock("openai", "main", 60)):
        with pytest.raises(RecordDamaged, match=damaged):
            await refused
    assert changed[3] in await place.cells()  # it is as it was
    with pytest.raises(StoreConflict, match="its version cannot be told"):
        await store.delete("openai", "main", 1)
    version = await store.version()
    assert await store.delete("openai", "main", None)
    assert version != await store.version()
    assert 1 == (await store.put(account(), None)).version
    assert whole == await store.get("openai", "whole")


async def test_a_damaged_sign_in_is_as_one_that_is_not_there(place: Place, expect_log: ExpectLog) -> None:
    store = place.open()
    begun = sign_in(KEY, await now(place))
    await store.add_login(begun)
    cell, *_ = await place.cells()
    await place.damage(cell, flipped(cell, 200))
    with expect_log("a sign-in that was begun was changed or cut: begin another"):
        assert (None, None) == (await store.take_login(KEY), await store.login(KEY))


async def test_what_a_newer_version_has_written_is_left_as_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    with monkeypatch.context() as newer:
        newer.setattr(records, "FORMAT", records.FORMAT + 1)
        await store.put(account(sealed_tokens="k:new"), None)
    whole = await store.put(account("whole"), None)
    unknown = "has format 2, and this version of the program knows none later than 1: run the newer version"
    for refused in (store.get("openai", "main"), store.put(account(), None), store.lock("openai", "main", 1)):
        with pytest.raises(RecordUnknown, match=unknown):
            await refused
    listing = await store.all()
    assert ((whole,), ("main",)) == (listing.records, tuple(one.name for one in listing.damaged))
    assert unknown in listing.damaged[0].message
    with monkeypatch.context() as newer:
        newer.setattr(records, "FORMAT", records.FORMAT + 1)
        # Nothing is lost, and what the older one has written can be read.
        newer.setitem(cells.UPGRADES, 1, lambda content: content)
        found = await store.get("openai", "main")
        assert found is not None
        assert "k:new" == found.sealed_tokens
        assert whole == await store.get("openai", "whole")


def ring(*labels: str) -> KeyRing:
    return KeyRing([SealingKey(label, planted_key(label)) for label in labels])


def sealer(*labels: str) -> RecordSealer:
    async def keys() -> KeyRing:
        return ring(*labels)

    return RecordSealer(keys)


async def sealed_account(by: RecordSealer, name: str) -> AccountRecord:
    tokens = TokenSet(
        access_token=Secret.literal(planted(f"access-{name}")),
        issued_at=1.5,
        expires_at=3601.5,
        refresh_token=Secret.literal(planted(f"refresh-{name}")),
    )
    return account(
        name,
        sealed_tokens=await by.seal_tokens("openai", name, tokens),
        sealed_proxy_url=await by.seal_proxy_url("openai", name, "http://proxy"),
    )


async def revealed(by: RecordSealer, store: AccountStore, name: str) -> str:
    found = await store.get("openai", name)
    assert found is not None
    tokens = await by.open_tokens(found)
    assert tokens is not None
    return tokens.access_token.reveal()


async def test_all_accounts_are_sealed_anew_while_they_are_in_use(place: Place) -> None:
    old, both, new = sealer("old"), sealer("new", "old"), sealer("new")
    store = place.open()
    for name in ("a", "b", "c"):
        await store.put(await sealed_account(old, name), None)
    await store.put(await sealed_account(new, "done"), None)
    await store.put(account("empty"), None)
    lost = await store.put(await sealed_account(sealer("lost"), "lost"), None)
    await store.put(account("broken"), None)
    cell = next(one for one in await place.cells() if b'"broken"' in one)
    await place.damage(cell, cell[:-1])
    with pytest.raises(RecordDamaged, match=r"the tokens of the account `openai/a`: .* needs the master key `old`"):
        await revealed(new, store, "a")
    # One is being refreshed: its new tokens are written first.
    held = await lock(store, "b")
    rekeying = asyncio.ensure_future(rekey_accounts(place.open(), both))
    await asyncio.sleep(0)
    found = await store.get("openai", "b")
    assert found is not None
    fresh = await old.seal_tokens(
        "openai", "b", TokenSet(access_token=Secret.literal(planted("fresh")), issued_at=2, expires_at=None)
    )
    await store.put(msgspec.structs.replace(found, fence=held.fence, sealed_tokens=fresh), found.version)
    await held.release()
    done = await rekeying
    assert (3, 2) == (done.count, done.unchanged)
    assert ["broken", "lost"] == [one.name for one in done.left]
    assert "needs the master key `lost`" in done.left[1].message
    assert [planted("access-a"), planted("fresh"), planted("access-c")] == [
        await revealed(new, store, name) for name in ("a", "b", "c")
    ]
    for name in ("a", "b", "c"):
        found = await store.get("openai", name)
        assert found is not None
        proxy_url = await new.open_proxy_url(found)
        assert proxy_url is not None
        assert "http://proxy" == proxy_url.reveal()
        assert await store.lock("openai", name, 1) is not None  # no lock is left behind
    assert lost == await store.get("openai", "lost")
    again = await rekey_accounts(store, both)
    assert (0, 5, 2) == (again.count, again.unchanged, len(again.left))


async def test_an_account_that_is_in_use_all_the_time_is_left_and_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("credentials.rekeying._TRIES", 2)
    monkeypatch.setattr("credentials.rekeying._PAUSE_SECONDS", 0)
    store = place.open()
    await store.put(await sealed_account(sealer("old"), "a"), None)
    await lock(store, "a")
    done = await rekey_accounts(store, sealer("new", "old"))
    assert (0, 0) == (done.count, done.unchanged)
    assert ["the account `openai/a` is being refreshed or changed all the time: run the command again"] == [
        one.message for one in done.left
    ]


async def test_a_row_whose_key_is_damaged_does_not_take_the_others_with_it(
    new_database: NewDatabase, kind: str, clock: ManualClock
) -> None:
    database = new_database(kind)
    place = DatabasePlace(clock, lambda: database)
    store = place.open()
    whole = await store.put(account("whole"), None)
    await store.put(account(), None)
    broken = "CAST(x'6dff696e' AS TEXT)" if kind == "sqlite" else "'mäin'"
    async with place.database.transaction() as connection:
        await connection.execute(text(f"UPDATE credential_accounts SET name = {broken} WHERE name = 'main'"))
    listing = await store.all()
    assert (whole,) == listing.records
    assert [True] == ["` is of another one: delete it" in one.message for one in listing.damaged]


async def test_a_database_that_is_away_is_told(new_database: NewDatabase, tmp_path: Path, clock: ManualClock) -> None:
    database = new_database("sqlite", url=f"sqlite:///{tmp_path}/sluice.db")
    place = DatabasePlace(clock, lambda: database)
    store = place.open()
    kept = await store.put(account(), None)
    (tmp_path / "sluice.db").rename(tmp_path / "away.db")
    asked: list[Callable[[], Awaitable[object]]] = [
        store.version,
        store.all,
        lambda: store.get("openai", "main"),
        lambda: store.put(kept, 1),
        lambda: store.delete("openai", "main", None),
        lambda: store.lock("openai", "main", 1),
        lambda: store.login(KEY),
    ]
    for ask in asked:
        with pytest.raises(StoreUnavailable, match=r"the accounts cannot be used: .* was taken away or replaced"):
            await ask()
    (tmp_path / "away.db").rename(tmp_path / "sluice.db")
    assert kept == await store.get("openai", "main")
    server = new_database("postgresql", url=f"postgresql://user:{planted('database')}@127.0.0.1:1/sluice")
    with pytest.raises(StoreUnavailable, match=r"the accounts cannot be used: .*127.0.0.1:1/sluice"):
        await DatabasePlace(clock, lambda: server).open().version()
