"""The revisions of the configuration in a database."""

import pytest

from core.clock import ManualClock
from storage.database import Database
from storage.errors import BadCursor
from storage.revisions import RevisionMeta, RevisionStore

FILES = (("config.yaml", b"providers: []\r\n# \xc3\xbc \xff\x00"), ("conf.d/a.yaml", b""))


def meta(revision: str, comment: str | None = None) -> RevisionMeta:
    return RevisionMeta(revision=revision, author="admin-key", trigger="api", comment=comment)


async def test_a_revision_comes_back_byte_for_byte(database: Database) -> None:
    store = RevisionStore(database)
    kept = await store.keep(FILES, meta("aa", "why “ü”"))
    assert (kept, FILES) == await store.get("aa-1")
    assert ("aa-1", 1, "aa", "admin-key", "api", "why “ü”", database.now()) == (
        kept.id,
        kept.seq,
        kept.revision,
        kept.author,
        kept.trigger,
        kept.comment,
        kept.at,
    )
    assert None is await store.get("bb-1")


async def test_the_newest_again_adds_nothing_and_a_restored_one_does(database: Database, clock: ManualClock) -> None:
    store = RevisionStore(database)
    first = await store.keep(FILES, meta("aa"))
    clock.advance(1)
    assert first == await store.keep(FILES, meta("aa", "again"))
    await store.keep((), meta("bb"))
    restored = await store.keep(FILES, meta("aa"))
    assert ["aa-3", "bb-2", "aa-1"] == [one.id for one in (await store.list()).entries]
    assert (restored, FILES) == await store.get("aa-3")


async def test_the_oldest_are_forgotten(database: Database) -> None:
    store = RevisionStore(database, kept=3)
    for number in range(1, 8):
        await store.keep((("config.yaml", b"%d" % number),), meta(f"r{number}"))
    assert ["r7-7", "r6-6", "r5-5"] == [one.id for one in (await store.list()).entries]
    assert None is await store.get("r4-4")


async def test_a_large_document_takes_little_room(database: Database) -> None:
    store = RevisionStore(database)
    large = (("config.yaml", b"- {name: a, type: openai}\n" * 100_000),)
    kept = await store.keep(large, meta("aa"))
    assert (kept, large) == await store.get(kept.id)


async def test_the_pages_of_the_list_give_each_once(database: Database) -> None:
    store = RevisionStore(database)
    for number in range(5):
        await store.keep((), meta(f"r{number}"))
    first = await store.list(limit=2)
    second = await store.list(limit=2, cursor=first.next_cursor)
    third = await store.list(limit=2, cursor=second.next_cursor)
    assert [5, 4, 3, 2, 1] == [one.seq for page in (first, second, third) for one in page.entries]
    assert None is third.next_cursor
    with pytest.raises(BadCursor):
        await store.list(cursor="nonsense")
