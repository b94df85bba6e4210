"""The revisions of the configuration in a database."""

import asyncio
from itertools import permutations

import pytest

from storage.database import Database
from storage.errors import BadCursor
from storage.records import RevisionMeta, StoredRevision
from storage.revisions import RevisionStore

FILES = (("config.yaml", b"providers: []\r\n# \xc3\xbc \xff\x00"), ("conf.d/a.yaml", b""))


def meta(revision: str, at: int, before: str | None = None, comment: str | None = None) -> RevisionMeta:
    return RevisionMeta(revision=revision, before=before, at=at, author="admin-key", trigger="api", comment=comment)


async def listed(store: RevisionStore) -> list[str]:
    """Newest first."""
    return [one.revision for one in (await store.list()).entries]


async def test_a_revision_comes_back_byte_for_byte(database: Database) -> None:
    store = RevisionStore(database)
    kept = (await store.keep(FILES, meta("aa", 7, "bb", "why “ü”"))).added
    expected = StoredRevision(
        id="aa-1", seq=1, revision="aa", before="bb", at=7, author="admin-key", trigger="api", comment="why “ü”"
    )
    assert expected == kept
    assert (expected, FILES) == await store.get("aa-1")
    assert None is await store.get("bb-1")


async def test_what_is_found_as_it_was_adds_nothing_and_what_an_edit_has_made_does(database: Database) -> None:
    store = RevisionStore(database)
    first = (await store.keep(FILES, meta("aa", 1))).added
    again = await store.keep(FILES, meta("aa", 2))
    assert (None, first) == (again.added, again.previous)
    await store.keep((), meta("bb", 4, "aa"))
    # It was found so before the edit, and told later.
    assert None is (await store.keep(FILES, meta("aa", 3))).added
    restored = (await store.keep(FILES, meta("aa", 5, "bb"))).added
    assert ["aa-3", "bb-2", "aa-1"] == [one.id for one in (await store.list()).entries]
    assert (restored, FILES) == await store.get("aa-3")
    # By the hash alone, as an ETag has it: the newest of them.
    assert (restored, FILES) == await store.get("aa")


async def test_an_edit_that_is_kept_twice_is_there_once(database: Database) -> None:
    """Its transaction may have counted though the answer was lost."""
    store = RevisionStore(database)
    assert [True, False] == [(await store.keep((), meta("bb", 4, "aa"))).added is not None for _ in range(2)]
    assert ["bb"] == await listed(store)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_list_is_in_the_order_in_which_they_were_put_in_force(
    database: Database, order: tuple[int, ...]
) -> None:
    store = RevisionStore(database)
    first = (("config.yaml", b"first"),), meta("r0", 0)
    for number in order:
        files = (("config.yaml", b"%d" % number),)
        # The middle one has put the first back.
        await store.keep(files, meta(f"r{(1, 0, 2)[number]}", number + 1, f"r{(0, 1, 0)[number]}"), first=first)
    assert ["r2", "r0", "r1", "r0"] == await listed(store)
    found = [await store.before(one) for one in (await store.list()).entries]
    assert ["r0", "r1", "r0", None] == [None if one is None else one[0].revision for one in found]


async def test_what_was_replaced_but_never_kept_is_told_by_the_list(database: Database) -> None:
    store = RevisionStore(database)
    await store.keep(FILES, meta("aa", 1))
    edited = (await store.keep((), meta("bb", 2, "refused"))).added
    found = (await store.keep((), meta("cc", 3))).added
    assert edited is not None
    assert found is not None
    before = [await store.before(one) for one in (edited, found)]
    assert [("aa", FILES), ("bb", ())] == [(one[0].revision, one[1]) for one in before if one is not None]


async def test_of_those_that_begin_at_the_same_time_one_keeps_what_was_there_first(database: Database) -> None:
    store = RevisionStore(database)
    first = FILES, meta("aa", 1)
    edits = [store.keep((), meta(f"r{number}", 2 + number, "aa"), first=first) for number in range(8)]
    await asyncio.gather(store.keep(*first, first=first), *edits)
    assert [f"r{number}" for number in reversed(range(8))] + ["aa"] == await listed(store)


async def test_the_oldest_are_forgotten(database: Database) -> None:
    store = RevisionStore(database, kept=3)
    for number in range(1, 8):
        await store.keep((("config.yaml", b"%d" % number),), meta(f"r{number}", number))
    assert ["r7-7", "r6-6", "r5-5"] == [one.id for one in (await store.list()).entries]
    assert None is await store.get("r4-4")


async def test_a_large_document_takes_little_room(database: Database) -> None:
    store = RevisionStore(database)
    large = (("config.yaml", b"- {name: a, type: openai}\n" * 100_000),)
    kept = (await store.keep(large, meta("aa", 1))).added
    assert kept is not None
    assert (kept, large) == await store.get(kept.id)


async def test_the_pages_of_the_list_give_each_once(database: Database) -> None:
    store = RevisionStore(database)
    # Times go backwards, and some are the same.
    for number, at in enumerate((5, 3, 3, 3, 1)):
        await store.keep((), meta(f"r{number}", at))
    first = await store.list(limit=2)
    second = await store.list(limit=2, cursor=first.next_cursor)
    third = await store.list(limit=2, cursor=second.next_cursor)
    assert [1, 4, 3, 2, 5] == [one.seq for page in (first, second, third) for one in page.entries]
    assert None is third.next_cursor
    for cursor in ("nonsense", "WzFd", "WzEsIngiXQ"):
        with pytest.raises(BadCursor):
            await store.list(cursor=cursor)
