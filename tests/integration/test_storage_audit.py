"""The audit in a database: its chain, what a list gives, and that nothing that was done to it stays unseen."""

import asyncio
import hashlib
import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from storage.audit import BEGINNING, AuditStore
from storage.database import Database
from storage.errors import BadCursor
from storage.records import AuditEntry, AuditFilter, AuditHead, NewAuditEntry
from tests.integration.conftest import NewDatabase, NewUrl


def entry(number: int = 0, **more: Any) -> NewAuditEntry:
    said: dict[str, Any] = {
        "id": f"aud_{number:024x}",
        "at": 1_700_000_000_000_000 + number,
        "actor": "admin-key",
        "actor_kind": "admin_key",
        "action": "provider.update",
        "resource": "provider",
        "resource_id": "openai",
        "outcome": "done",
    }
    return NewAuditEntry(**said | more)


FULL = entry(
    1,
    address="2001:db8::1",
    before='{"name":"ü \\u0000 “x”","n":1.0}',
    after="[]",
    request_id="req_000000000000000000000001",
)


async def every(store: AuditStore, wanted: AuditFilter | None = None) -> list[AuditEntry]:
    return list((await store.list(wanted, limit=1000)).entries)


async def test_an_entry_comes_back_as_it_was_with_its_place_in_the_chain(database: Database) -> None:
    store = AuditStore(database)
    head = await store.append([FULL, entry(2)])
    second, first = await every(store)
    assert (1, BEGINNING) == (first.seq, first.previous_hash)
    assert (2, first.hash) == (second.seq, second.previous_hash)
    assert AuditHead(2, second.hash) == head
    assert FULL == msgspec.convert(first, NewAuditEntry, from_attributes=True)


async def test_the_hash_is_what_the_docs_say(database: Database) -> None:
    """By other means than ours: with any SHA-256 and any JSON the chain can be followed."""
    store = AuditStore(database)
    await store.append([FULL, entry(2)])
    previous = bytes(32)
    for found in reversed(await every(store)):
        row = msgspec.structs.asdict(found)
        del row["hash"], row["previous_hash"]
        told = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(previous + told).digest() == found.hash
        previous = found.hash


async def test_an_entry_that_is_written_again_counts_once(database: Database) -> None:
    store = AuditStore(database)
    await store.append([entry(1), entry(2)])
    head = await store.append([entry(2), entry(3), entry(3), entry(1)])
    assert head == await store.append([entry(3)])
    assert ["aud_" + f"{number:024x}" for number in (3, 2, 1)] == [found.id for found in await every(store)]
    assert (None, head) == ((await store.verify()).broken, (await store.verify()).head)
    assert await store.append([]) == head


async def test_nothing_gives_no_head(database: Database) -> None:
    store = AuditStore(database)
    assert None is await store.append([])
    verified = await store.verify()
    assert (None, None) == (verified.head, verified.broken)


async def test_several_that_append_at_once_make_one_chain(
    kind: str, new_url: NewUrl, new_database: NewDatabase
) -> None:
    url = new_url(kind)
    stores = [AuditStore(new_database(kind, url=url)) for _ in range(4)]
    entries = [entry(number) for number in range(120)]
    await asyncio.gather(*(stores[start % 4].append(entries[start : start + 3]) for start in range(0, len(entries), 3)))
    found = await every(stores[0])
    assert list(range(120, 0, -1)) == [one.seq for one in found]
    assert {one.id for one in entries} == {one.id for one in found}
    assert None is (await stores[1].verify()).broken


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (AuditFilter(), [5, 4, 3, 2, 1]),
        (AuditFilter(actor="ann"), [3, 1]),
        (AuditFilter(action="token.create"), [2]),
        (AuditFilter(action="Token.create"), []),
        (AuditFilter(action="token.*"), [3, 2]),
        (AuditFilter(action="TOKEN.*"), []),
        (AuditFilter(action="*.?pdate"), [4, 1]),
        (AuditFilter(action="a_b%[c]\\*"), [5]),
        (AuditFilter(action="a?b*"), [5]),
        (AuditFilter(action="a_b%[c]?d"), [5]),
        (AuditFilter(action="*_*"), [5]),
        (AuditFilter(resource="token"), [3, 2]),
        (AuditFilter(resource="token", resource_id="t2"), [3]),
        (AuditFilter(outcome="done"), [5, 4, 3, 1]),
        (AuditFilter(since=30), [5, 4, 3]),
        (AuditFilter(until=30), [2, 1]),
        (AuditFilter(since=20, until=40, actor="ann"), [3]),
    ],
    ids=str,
)
async def test_a_list_has_what_is_wanted(database: Database, wanted: AuditFilter, numbers: list[int]) -> None:
    store = AuditStore(database)
    await store.append(
        [
            entry(1, at=10, actor="ann"),
            entry(2, at=20, action="token.create", resource="token", resource_id="t1", outcome="token_error-taken"),
            entry(3, at=30, actor="ann", action="token.revoke", resource="token", resource_id="t2"),
            entry(4, at=40, action="route.update", resource="route", resource_id=None),
            entry(5, at=50, action="a_b%[c]\\d", resource="route"),
        ]
    )
    assert numbers == [found.seq for found in await every(store, wanted)]


async def test_the_pages_of_a_list_give_each_once_while_more_comes(database: Database) -> None:
    store = AuditStore(database)
    await store.append([entry(number, actor="ann" if number % 2 else "bob") for number in range(10)])
    wanted = AuditFilter(actor="ann")
    first = await store.list(wanted, limit=2)
    await store.append([entry(11, actor="ann")])
    second = await store.list(wanted, limit=2, cursor=first.next_cursor)
    third = await store.list(wanted, limit=2, cursor=second.next_cursor)
    assert [[10, 8], [6, 4], [2]] == [[one.seq for one in page.entries] for page in (first, second, third)]
    assert None is third.next_cursor
    with pytest.raises(BadCursor):
        await store.list(cursor="nonsense")


_COPIED = "at, actor, actor_kind, action, resource, outcome, previous_hash, hash"


def _copy(seq: int, as_seq: int) -> str:
    return f"INSERT INTO audit (seq, id, {_COPIED}) SELECT {as_seq}, 'aud_y', {_COPIED} FROM audit WHERE seq = {seq}"


# What somebody does to the table, and what is found of it: the entry, and words of what is wrong.
TAMPERED = {
    "a text is changed": (["UPDATE audit SET actor = 'bob' WHERE seq = 4"], 4, "was changed"),
    "a time is changed": (["UPDATE audit SET at = at + 1 WHERE seq = 1"], 1, "was changed"),
    "an outcome is emptied": (["UPDATE audit SET outcome = '' WHERE seq = 10"], 10, "was changed"),
    "what was before is taken out": (["UPDATE audit SET before = NULL WHERE seq = 5"], 5, "was changed"),
    "an id is changed": (["UPDATE audit SET id = 'aud_x' WHERE seq = 7"], 7, "was changed"),
    "a request's id is added": (["UPDATE audit SET request_id = 'req_x' WHERE seq = 7"], 7, "was changed"),
    "the first is taken out": (["DELETE FROM audit WHERE seq = 1"], 1, "is missing"),
    "one is taken out": (["DELETE FROM audit WHERE seq = 4"], 4, "is missing"),
    "several are taken out": (["DELETE FROM audit WHERE seq BETWEEN 4 AND 6"], 4, "is missing"),
    "one is taken out and those after it renumbered": (
        ["DELETE FROM audit WHERE seq = 4", *(f"UPDATE audit SET seq = {n - 1} WHERE seq = {n}" for n in range(5, 11))],
        4,
        "does not follow",
    ),
    "two are swapped": (
        [
            "UPDATE audit SET seq = 100 WHERE seq = 4",
            "UPDATE audit SET seq = 4 WHERE seq = 5",
            "UPDATE audit SET seq = 5 WHERE seq = 100",
        ],
        4,
        "does not follow",
    ),
    "two are swapped with their hashes left in place": (
        [
            "UPDATE audit SET actor = 'x' WHERE seq = 4",
            "UPDATE audit SET actor = (SELECT actor FROM audit WHERE seq = 5) WHERE seq = 4",
            "UPDATE audit SET at = (SELECT at FROM audit WHERE seq = 5) WHERE seq = 4",
        ],
        4,
        "was changed",
    ),
    "a hash is changed": (["UPDATE audit SET hash = previous_hash WHERE seq = 6"], 6, "was changed"),
    "the hash before is changed": (
        ["UPDATE audit SET previous_hash = (SELECT hash FROM audit WHERE seq = 6) WHERE seq = 3"],
        3,
        "does not follow",
    ),
    "one is put in": (
        [
            "UPDATE audit SET seq = 11 WHERE seq = 10",
            _copy(9, as_seq=10),
        ],
        10,
        "does not follow",
    ),
    "one is put before the first": (["UPDATE audit SET seq = 0 WHERE seq = 1"], 0, "has a number"),
    "one is put behind the last": (
        [_copy(10, as_seq=11)],
        11,
        "does not follow",
    ),
    "the count is changed": (["UPDATE changes SET version = 9 WHERE topic = 'audit'"], 10, "the count changed"),
    "the tail is cut": (["DELETE FROM audit WHERE seq > 8"], 9, "is missing"),
    "all is taken out": (["DELETE FROM audit"], 1, "is missing"),
}


async def written(database: Database) -> AuditStore:
    store = AuditStore(database)
    for number in range(1, 11):
        await store.append([entry(number, before='{"a":1}')])
    return store


async def tamper(database: Database, statements: list[str]) -> None:
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@pytest.mark.parametrize("case", TAMPERED)
async def test_tampering_is_found(database: Database, case: str) -> None:
    store = await written(database)
    whole = await store.verify()
    assert (None, 10) == (whole.broken, whole.head and whole.head.seq)
    statements, seq, words = TAMPERED[case]
    await tamper(database, statements)
    found = await store.verify()
    assert found.broken is not None
    assert seq == found.broken.seq
    assert words in found.broken.what
    if case != "the count is changed":
        assert max(seq - 1, 0) == (found.head.seq if found.head is not None else 0)
    # What is appended later hides nothing of the entries.
    await store.append([entry(20)])
    still = await store.verify()
    assert (seq if case != "the count is changed" else None) == (still.broken and still.broken.seq)


async def test_a_tail_that_is_cut_with_its_count_shows_against_a_head_that_is_known(database: Database) -> None:
    store = await written(database)
    known = [found.hash for found in reversed(await every(store))]
    await tamper(database, ["DELETE FROM audit WHERE seq > 8", "UPDATE changes SET version = 8 WHERE topic = 'audit'"])
    assert None is (await store.verify()).broken
    for number, hash_ in enumerate(known, 1):
        broken = (await store.verify(hash_)).broken
        assert (number > 8) == (broken is not None)
    # Other entries in the place of those that were cut do not help.
    await store.append([entry(number, actor="bob") for number in (21, 22)])
    broken = (await store.verify(known[-1])).broken
    assert broken is not None
    assert "no entry has the hash" in broken.what


async def test_a_chain_that_was_made_anew_shows_against_a_head_that_is_known(database: Database) -> None:
    store = await written(database)
    known = (await every(store))[0].hash
    await tamper(database, ["DELETE FROM audit", "DELETE FROM changes"])
    await store.append([entry(number, before='{"a":2}') for number in range(1, 11)])
    assert None is (await store.verify()).broken
    assert None is not (await store.verify(known)).broken


async def test_a_long_chain_is_followed_in_parts(database: Database) -> None:
    store = AuditStore(database)
    await store.append([entry(number) for number in range(1100)])
    verified = await store.verify()
    assert (None, 1100) == (verified.broken, verified.head and verified.head.seq)
    await tamper(database, ["UPDATE audit SET actor = 'bob' WHERE seq = 1050"])
    broken = (await store.verify()).broken
    assert 1050 == (broken and broken.seq)
