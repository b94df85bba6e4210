"""What is kept of an account: every damage of it is seen."""

from functools import partial
from typing import Any

import msgspec
import pytest

from credentials import records
from credentials.errors import RecordDamaged, RecordUnknown, StoreConflict
from credentials.records import AccountSettings
from credentials.stores import cells
from credentials.stores.cells import AccountCell, LoginCell
from tests.account_places import account, flipped, sign_in

KEPT = cells.with_record(
    None,
    account(sealed_tokens="k1:" + "x" * 60, settings=AccountSettings(note="ü"), expires_at=5, scopes=("a",)),
    None,
)


def test_what_is_kept_of_an_account_can_be_told_by_its_first_line() -> None:
    data = cells.render(KEPT)
    assert data.startswith(b"sluice-account 1 ")
    assert data != cells.render(KEPT)
    found = cells.parse_account(data, "openai", "main")
    assert msgspec.structs.replace(KEPT, written=found.written) == found


def test_a_change_of_any_byte_is_seen() -> None:
    data = cells.render(KEPT)
    for place in range(len(data)):
        for changed in (flipped(data, place), data[:place], data[:place] + data[place + 1 :]):
            with pytest.raises(RecordDamaged, match="`openai/main` was changed or cut: delete it and sign in again"):
                cells.parse_account(changed, "openai", "main")


def test_a_change_of_any_byte_of_a_sign_in_is_seen() -> None:
    data = cells.render(LoginCell(login=sign_in("ab", 0)))
    assert "ab" == cells.parse_login(data, "ab").login.key
    for place in range(len(data)):
        with pytest.raises(RecordDamaged, match="was changed or cut: begin another"):
            cells.parse_login(flipped(data, place), "ab")
    with pytest.raises(RecordDamaged, match="is of another one: begin another"):
        cells.parse_login(data, "cd")


@pytest.mark.parametrize(
    ("cell", "provider"),
    [
        (KEPT, "anthropic"),
        (msgspec.structs.replace(KEPT, provider="anthropic"), "anthropic"),
        (msgspec.structs.replace(KEPT, version=2), "openai"),
    ],
)
def test_what_was_moved_to_another_account_is_not_its_own(cell: AccountCell, provider: str) -> None:
    with pytest.raises(RecordDamaged, match=f"of the account `{provider}/main` is of another one: delete it"):
        cells.parse_account(cells.render(cell), provider, "main")


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"provider": 1}', b"\xff"])
def test_a_whole_cell_that_no_version_writes_is_damaged(body: bytes) -> None:
    with pytest.raises(RecordDamaged, match="is not what this program writes"):
        cells.parse_account(cells.sealed_with_sum("account", records.FORMAT, body), "openai", "main")


def test_a_sign_in_is_no_account() -> None:
    with pytest.raises(RecordDamaged, match="was changed or cut"):
        cells.parse_account(cells.render(LoginCell(login=sign_in("ab", 0))), "openai", "main")


def test_a_newer_format_is_told_whatever_stands_in_it() -> None:
    newer = cells.sealed_with_sum("account", records.FORMAT + 1, b"\x00 of another kind")
    with pytest.raises(RecordUnknown, match=r"`openai/main` has format 2, .* none later than 1: run the newer version"):
        cells.parse_account(newer, "openai", "main")


def test_older_formats_are_read_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    older = cells.render(KEPT)
    monkeypatch.setattr(records, "FORMAT", 3)
    with pytest.raises(RecordUnknown, match=r"has format 1, which .* not read any more: run an older version"):
        cells.parse_account(older, "openai", "main")
    steps: list[str] = []

    def upgraded(content: dict[str, Any], step: str) -> dict[str, Any]:
        steps.append(step)
        return content

    monkeypatch.setitem(cells.UPGRADES, 1, partial(upgraded, step="to 2"))
    monkeypatch.setitem(cells.UPGRADES, 2, partial(upgraded, step="to 3"))
    assert KEPT.record == cells.parse_account(older, "openai", "main").record
    assert ["to 2", "to 3"] == steps
    assert cells.render(KEPT).startswith(b"sluice-account 3 ")
    monkeypatch.setitem(cells.UPGRADES, 2, lambda content: {"name": content["name"]})
    with pytest.raises(RecordDamaged, match="is not what this program writes"):
        cells.parse_account(older, "openai", "main")


def test_a_lock_that_lasts_longer_than_any_is_of_a_clock_that_was_set_back() -> None:
    held = cells.locked(KEPT, 60, 10**15)
    assert held is not None
    assert 10**15 == held.fence
    assert cells.locked(held, 60, 10**15 + 59_999_999) is None
    set_back = cells.locked(held, 60, 10**14)
    assert set_back is not None
    assert 10**15 + 1 == set_back.fence


@pytest.mark.parametrize(
    ("own", "of_the_lock", "given", "written"),
    [
        (5, 5, 5, True),
        (5, 9, 5, True),  # an edit, while it is refreshed
        (5, 9, 9, True),  # by who refreshes it
        (5, 9, 8, False),  # by who did so before
        (5, 9, 4, False),
        (5, 9, 10, False),  # a lock of elsewhere
    ],
)
def test_tokens_are_written_under_the_last_lock_alone(own: int, of_the_lock: int, given: int, written: bool) -> None:
    assert KEPT.record is not None
    held = msgspec.structs.replace(KEPT.record, fence=own)
    cell = msgspec.structs.replace(KEPT, record=held, fence=of_the_lock)
    new = msgspec.structs.replace(held, fence=given)
    if written:
        kept = cells.with_record(cell, new, 1).record
        assert kept is not None
        assert (2, given) == (kept.version, kept.fence)
    else:
        with pytest.raises(StoreConflict, match="has run out"):
            cells.with_record(cell, new, 1)


def test_a_record_of_another_store_begins_with_the_fence_of_its_name_here() -> None:
    emptied = cells.without_record(KEPT, 1, 50)
    kept = cells.with_record(emptied, account(fence=10**15), None).record
    assert kept is not None
    assert (2, 50) == (kept.version, kept.fence)
