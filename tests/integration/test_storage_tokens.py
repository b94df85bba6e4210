"""The tokens in a database."""

import asyncio
import hashlib
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from core.clock import ManualClock
from storage.address import parse_address
from storage.connection import call, transaction
from storage.database import Database, migrate
from storage.engines import WRITES, make_engine
from storage.errors import BadCursor, NameTaken, NotFound, Stale
from storage.migrations import REVISIONS
from storage.records import NewToken, StoredToken
from storage.schema import Migration
from storage.tokens import TokenStore
from tests.integration.conftest import NewDatabase, NewUrl


@pytest.fixture
def store(database: Database) -> TokenStore:
    return TokenStore(database)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def token(number: int, **values: Any) -> NewToken:
    given = {"id": f"tok_{number}", "name": f"team-{number}", "sha256": digest(str(number)), "prefix": "sk-sluice-ab"}
    return NewToken(**{"scope": "scope_token_user", "created_by": "admin-key", **given, **values})


async def test_a_token_comes_back_as_it_was_put_in(store: TokenStore, clock: ManualClock) -> None:
    full = token(
        1,
        name="Straße 1, ünïcode 🦥",
        models=("gpt-*", "fast"),
        endpoints=("inference", "files"),
        owner="ann",
        metadata={"team": {"deep": [1, 2.5, None, True, "ü"]}, "nul": "\x00"},
        ip_ranges=("10.0.0.0/8", "::1"),
        expires_at=2**53 + 1,
        limits=({"requests": 60, "per": "minute"}, {"usd": 0.1, "per": "month", "shadow": True}),
    )
    put = await store.insert(full)
    assert put == await store.get("tok_1") == await store.by_name("Straße 1, ünïcode 🦥")
    assert full == NewToken(**{name: getattr(put, name) for name in NewToken.__struct_fields__})
    assert (round(clock.time() * 1_000_000), None, None, None, 1) == (
        put.created_at,
        put.rotated_from,
        put.grace_until,
        put.revoked_at,
        put.changed,
    )


async def test_what_is_not_there_is_none(store: TokenStore) -> None:
    assert None is await store.get("tok_1")
    assert None is await store.by_name("team-1")
    assert (0, ()) == ((found := await store.all_living()).version, found.tokens)


async def test_a_hash_is_not_in_the_representation(store: TokenStore) -> None:
    put = await store.insert(token(1))
    assert "StoredToken(tok_1 'team-1')" == repr(put)


async def test_a_name_is_free_again_when_its_token_is_revoked(store: TokenStore) -> None:
    await store.insert(token(1, name="ops"))
    with pytest.raises(NameTaken, match="`tok_1` has the name `ops`"):
        await store.insert(token(2, name="ops"))
    await store.revoke("tok_1")
    await store.insert(token(2, name="ops"))
    assert "tok_2" == _id(await store.by_name("ops"))


async def test_an_id_or_hash_is_taken_once(store: TokenStore) -> None:
    await store.insert(token(1))
    with pytest.raises(IntegrityError) as refused:
        await store.insert(token(1, name="other"))
    assert digest("1").hex() not in str(refused.value)
    with pytest.raises(IntegrityError):
        await store.insert(token(2, sha256=digest("1")))
    # Nothing of what was refused counts.
    assert 1 == (await store.changed_since(0)).version


async def test_only_who_has_read_the_newest_version_may_change_it(store: TokenStore) -> None:
    put = await store.insert(token(1))
    changed = await store.update("tok_1", put.changed, models=("a", "b"), owner="bob", expires_at=5)
    assert (("a", "b"), "bob", 5, 2) == (changed.models, changed.owner, changed.expires_at, changed.changed)
    assert changed == await store.get("tok_1")
    with pytest.raises(Stale) as stale:
        await store.update("tok_1", put.changed, owner="eve")
    assert changed.changed == stale.value.present
    assert changed == await store.get("tok_1")


async def test_a_dead_or_unknown_token_cannot_be_changed(store: TokenStore) -> None:
    with pytest.raises(NotFound, match="`tok_9`"):
        await store.update("tok_9", 1, owner="bob")
    await store.insert(token(1))
    dead = await store.revoke("tok_1")
    with pytest.raises(NotFound):
        await store.update("tok_1", dead.changed, owner="bob")


async def test_a_token_is_renamed_to_a_free_name_alone(store: TokenStore) -> None:
    put = await store.insert(token(1))
    await store.insert(token(2))
    with pytest.raises(NameTaken):
        await store.update("tok_1", put.changed, name="team-2")
    kept = await store.update("tok_1", put.changed, name="team-1")
    assert "new" == (await store.update("tok_1", kept.changed, name="new")).name


async def test_what_no_one_may_set_is_refused(store: TokenStore) -> None:
    for column in ("id", "sha256", "revoked_at", "changed", "nonsense"):
        with pytest.raises(ValueError, match=f"not to be changed: {column}"):
            await store.update("tok_1", 1, **{column: 1})


async def test_a_token_is_revoked_once(store: TokenStore, clock: ManualClock) -> None:
    await store.insert(token(1))
    clock.advance(5)
    dead = await store.revoke("tok_1")
    assert round(clock.time() * 1_000_000) == dead.revoked_at
    clock.advance(5)
    assert dead == await store.revoke("tok_1")
    assert not dead.living(0)
    with pytest.raises(NotFound):
        await store.revoke("tok_2")


async def _rotate(store: TokenStore, old: str, number: int, grace_until: int) -> StoredToken:
    return await store.rotate(
        old,
        new_id=f"tok_{number}",
        sha256=digest(str(number)),
        prefix="sk-sluice-cd",
        created_by="ann",
        grace_until=grace_until,
    )


async def test_a_rotated_token_lives_through_its_grace_beside_its_successor(
    store: TokenStore, database: Database, clock: ManualClock
) -> None:
    old = await store.insert(token(1, models=("a",), metadata={"x": 1}, owner="bob"))
    clock.advance(1)
    new = await _rotate(store, "tok_1", 2, database.now() + 60_000_000)
    assert ("team-1", ("a",), {"x": 1}, "bob", "tok_1") == (
        new.name,
        new.models,
        new.metadata,
        new.owner,
        new.rotated_from,
    )
    assert ("sk-sluice-cd", digest("2"), "ann", database.now()) == (
        new.prefix,
        new.sha256,
        new.created_by,
        new.created_at,
    )
    assert new == await store.get("tok_2") == await store.by_name("team-1")
    assert {"tok_1", "tok_2"} == {one.id for one in (await store.all_living()).tokens}
    assert old.sha256 == _hash(await store.get("tok_1"))
    with pytest.raises(Stale, match="rotate its successor"):
        await _rotate(store, "tok_1", 3, 0)
    clock.advance(60)
    assert {"tok_2"} == {one.id for one in (await store.all_living()).tokens}
    with pytest.raises(NotFound):
        await _rotate(store, "tok_1", 3, 0)


async def test_a_token_rotated_without_grace_is_dead_at_once(store: TokenStore, database: Database) -> None:
    await store.insert(token(1))
    await _rotate(store, "tok_1", 2, 0)
    assert {"tok_2"} == {one.id for one in (await store.all_living()).tokens}
    found = await store.get("tok_1")
    assert found is not None
    assert database.now() == found.revoked_at


async def test_successors_have_successors(store: TokenStore, database: Database) -> None:
    await store.insert(token(1))
    for number in (2, 3, 4):
        await _rotate(store, f"tok_{number - 1}", number, database.now() + 60_000_000)
    assert "tok_4" == _id(await store.by_name("team-1"))
    # One that is in its grace can be revoked by itself.
    await store.revoke("tok_2")
    assert {"tok_1", "tok_3", "tok_4"} == {one.id for one in (await store.all_living()).tokens}


async def test_limits_are_set_by_a_patch_and_counted_for_all_successors_together(
    store: TokenStore, database: Database
) -> None:
    put = await store.insert(token(1))
    assert ((), None) == (put.limits, put.counted_as)
    limits = ({"requests": 3, "per": "hour"}, {"concurrency": 8})
    assert limits == (await store.update("tok_1", put.changed, limits=limits)).limits
    for number in (2, 3):
        new = await _rotate(store, f"tok_{number - 1}", number, database.now() + 60_000_000)
        assert (limits, "tok_1") == (new.limits, new.counted_as)
    assert new == await store.get("tok_3")


async def test_tokens_of_the_revision_before_have_no_limits_and_may_be_given_some(
    kind: str, new_url: NewUrl, new_database: NewDatabase, clock: ManualClock
) -> None:
    from alembic import command  # noqa: PLC0415  as large as it is

    from storage.migrations.upgrade import configuration  # noqa: PLC0415  large

    # As a version of the program writes it that knows of no limits; another still does so after the migration.
    insert = (
        "INSERT INTO tokens (id, name, sha256, prefix, scope, models, endpoints, metadata, ip_ranges, created_at,"
        " created_by, changed) VALUES ('{0}', '{0}', :sha256, 'sk-', 'scope_token_user', '[]', '[]', '{{}}', '[]', 1, 'ann', 1)"
    )

    def before(connection: sqlalchemy.Connection) -> None:
        settings = configuration()
        settings.attributes["connection"] = connection
        command.upgrade(settings, "0003")
        connection.execute(text(insert.format("tok_old")), {"sha256": digest("old")})

    url = new_url(kind, empty=True)
    engine = make_engine(parse_address(url))
    async with transaction(engine, "", {WRITES: True}) as connection:
        await connection.run(before)
    await call("", engine.dispose)
    assert Migration("0003", REVISIONS[-1]) == await migrate(url, clock)
    database = new_database(kind, url=url)
    async with database.transaction() as connection:
        await connection.execute(text(insert.format("tok_beside")), {"sha256": digest("beside")})
    store = TokenStore(database)
    found = (await store.list()).entries
    assert {("tok_old", (), None), ("tok_beside", (), None)} == {(one.id, one.limits, one.counted_as) for one in found}
    assert ({"concurrency": 1},) == (await store.update("tok_old", 1, limits=({"concurrency": 1},))).limits
    assert "tok_old" == (await _rotate(store, "tok_old", 2, 0)).counted_as


async def test_the_pages_of_a_list_give_every_token_once_newest_first(store: TokenStore, clock: ManualClock) -> None:
    for number in range(7):
        await store.insert(token(number))
        # Several of one time: their ids decide.
        clock.advance(number % 2)
    seen: list[str] = []
    cursor = None
    while True:
        page = await store.list(cursor=cursor, limit=3)
        seen += [one.id for one in page.entries]
        if (cursor := page.next_cursor) is None:
            break
        # What is made meanwhile is before the first page.
        await store.insert(token(100 + len(seen)))
    assert [f"tok_{number}" for number in (6, 5, 4, 3, 2, 1, 0)] == seen


async def test_a_page_that_is_just_full_is_the_last(store: TokenStore) -> None:
    for number in range(3):
        await store.insert(token(number))
    assert None is (await store.list(limit=3)).next_cursor
    assert None is not (await store.list(limit=2)).next_cursor


async def test_a_list_shows_the_living_of_an_owner(store: TokenStore) -> None:
    await store.insert(token(1, owner="ann"))
    await store.insert(token(2, owner="bob"))
    await store.insert(token(3, owner="ann"))
    await store.revoke("tok_3")
    assert ["tok_1"] == [one.id for one in (await store.list(owner="ann")).entries]
    everything = await store.list(owner="ann", include_revoked=True)
    assert {"tok_1", "tok_3"} == {one.id for one in everything.entries}


async def test_a_cursor_of_elsewhere_is_refused(store: TokenStore) -> None:
    for cursor in ("", "x", "äö", "WzFd", "bnVsbA"):
        with pytest.raises(BadCursor):
            await store.list(cursor=cursor)


async def test_another_node_sees_each_change_by_its_number(store: TokenStore) -> None:
    first = await store.insert(token(1))
    second = await store.insert(token(2))
    assert [first, second] == list((await store.changed_since(0)).tokens)
    seen = await store.changed_since(0)
    changed = await store.update("tok_1", first.changed, owner="bob")
    dead = await store.revoke("tok_2")
    news = await store.changed_since(seen.version)
    assert [changed, dead] == list(news.tokens)
    assert (news.version, ()) == ((none := await store.changed_since(news.version)).version, none.tokens)


async def test_changes_at_once_are_each_counted_and_seen(store: TokenStore) -> None:
    await asyncio.gather(*(store.insert(token(number)) for number in range(30)))
    found = await store.changed_since(0)
    assert list(range(1, 31)) == [one.changed for one in found.tokens]


async def test_of_edits_at_once_one_wins_and_the_others_are_stale(store: TokenStore) -> None:
    put = await store.insert(token(1))
    edits = (store.update("tok_1", put.changed, owner=f"owner-{number}") for number in range(20))
    done = await asyncio.gather(*edits, return_exceptions=True)
    assert 19 == sum(isinstance(one, Stale) for one in done)
    assert 1 == sum(isinstance(one, StoredToken) for one in done)


async def test_of_one_name_at_once_one_is_made(store: TokenStore) -> None:
    made = await asyncio.gather(*(store.insert(token(n, name="ops")) for n in range(10)), return_exceptions=True)
    assert 9 == sum(isinstance(one, NameTaken) for one in made)


def _id(found: StoredToken | None) -> str:
    assert found is not None
    return found.id


def _hash(found: StoredToken | None) -> bytes:
    assert found is not None
    return found.sha256
