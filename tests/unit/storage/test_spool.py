"""What waits on the disk: nothing that was appended is lost, whatever a process that was killed has left."""

import logging
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.spool import Spool, SpoolFull
from tests.conftest import ExpectLog


class Note(msgspec.Struct, frozen=True):
    text: str


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def notes(*texts: str) -> list[Note]:
    return [Note(text) for text in texts]


def spool(place: Path, max_bytes: int = 1 << 20) -> Spool[Note]:
    return Spool(place / "spool", "notes", Note, max_bytes)


def drained(spool: Spool[Note], most: int = 2) -> list[str]:
    found: list[str] = []
    while entries := spool.peek(most):
        found += [entry.text for entry in entries]
        spool.drop()
    return found


def left(place: Path) -> list[str]:
    return sorted(path.name.rpartition(".")[2] for path in (place / "spool").glob("*"))


@given(batches=st.lists(st.lists(TEXTS, min_size=1, max_size=5), max_size=5), most=st.integers(1, 7))
def test_what_was_appended_comes_back_in_its_order(
    batches: list[list[str]], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("spool")
    waiting = spool(place)
    for batch in batches:
        waiting.append(notes(*batch))
    assert sum(map(len, batches)) == waiting.pending_entries == spool(place).count_all()
    assert [text for batch in batches for text in batch] == drained(waiting, most)
    assert 0 == waiting.pending_entries == waiting.count_all()
    assert [] == left(place)
    waiting.close()


def test_nothing_is_made_before_something_waits_and_then_for_its_owner_alone(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    assert not waiting.take_over()
    assert [] == waiting.peek(1)
    assert not (tmp_path / "spool").exists()
    waiting.append(notes("a"))
    (file,) = (tmp_path / "spool").iterdir()
    assert (0o700, 0o600) == (stat.S_IMODE((tmp_path / "spool").stat().st_mode), stat.S_IMODE(file.stat().st_mode))
    waiting.close()


def test_what_is_not_dropped_comes_again(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    waiting.append(notes("a", "b"))
    assert notes("a") == waiting.peek(1)
    assert notes("a") == waiting.peek(1)
    waiting.drop()
    waiting.append(notes("c"))
    assert ["b", "c"] == drained(waiting)
    waiting.close()


def test_what_an_ended_process_left_comes_before_what_is_our_own(tmp_path: Path) -> None:
    first, second = spool(tmp_path), spool(tmp_path)
    first.append(notes("a"))
    second.append(notes("c"))
    third = spool(tmp_path)
    assert not third.take_over()  # both live
    third.append(notes("e"))
    assert (1, 3) == (third.pending_entries, third.count_all())
    first.append(notes("b"))
    first.close()
    second.append(notes("d"))
    second.close()
    assert third.take_over()
    assert not third.take_over()
    assert 5 == third.pending_entries == third.count_all()
    found = drained(third)
    # Which file was written first the disk tells to some milliseconds alone.
    assert found in (["a", "b", "c", "d", "e"], ["c", "d", "a", "b", "e"])
    assert [] == left(tmp_path)
    third.close()


def test_a_spool_takes_over_none_of_another_name(tmp_path: Path) -> None:
    other = Spool(tmp_path / "spool", "others", Note)
    other.append(notes("a"))
    other.close()
    assert not spool(tmp_path).take_over()
    assert ["spool"] == left(tmp_path)


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_half_last_line_is_left_out_and_told(tmp_path: Path, expect_log: ExpectLog, cut: int) -> None:
    first = spool(tmp_path)
    first.append(notes("kept", "cut off"))
    first.close()
    (file,) = (tmp_path / "spool").iterdir()
    os.truncate(file, file.stat().st_size - cut)
    second = spool(tmp_path)
    assert second.take_over()
    with expect_log("the last entry in .* is cut and is left out"):
        assert ["kept"] == drained(second, 1)
    assert [] == left(tmp_path)


def test_a_damaged_line_is_left_out_and_told_and_its_file_stays(tmp_path: Path, expect_log: ExpectLog) -> None:
    first = spool(tmp_path)
    first.append(notes("one", "two", "three"))
    first.close()
    (file,) = (tmp_path / "spool").iterdir()
    file.write_bytes(file.read_bytes().replace(b"two", b"tw0"))
    second = spool(tmp_path)
    assert second.take_over()
    assert 3 == second.pending_entries
    with expect_log("an entry in .* is damaged", logging.ERROR):
        assert ["one", "three"] == drained(second)
    assert 0 == second.pending_entries
    assert ["damaged"] == left(tmp_path)
    assert not spool(tmp_path).take_over()


@given(garbage=st.binary(max_size=200))
def test_any_bytes_after_good_lines_do_no_harm(garbage: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("spool")
    first = spool(place)
    first.append(notes("good"))
    first.close()
    (file,) = (place / "spool").iterdir()
    with file.open("ab") as writing:
        writing.write(garbage)
    second = spool(place)
    assert second.take_over()
    logging.disable()
    try:
        assert ["good"] == drained(second)[:1]
    finally:
        logging.disable(logging.NOTSET)
    second.close()


def test_more_than_the_bound_is_refused_and_what_is_there_stays(tmp_path: Path) -> None:
    waiting = spool(tmp_path, max_bytes=100)
    waiting.append(notes("a" * 50))
    assert waiting.has_room
    with pytest.raises(SpoolFull):
        waiting.append(notes("b" * 50))
    waiting.append(notes("c"))
    assert not spool(tmp_path, max_bytes=10).take_over()
    assert ["a" * 50, "c"] == drained(waiting)
    waiting.append(notes("b" * 50))
    waiting.close()


def test_a_full_bound_is_seen_before_anything_is_refused(tmp_path: Path) -> None:
    first = spool(tmp_path)
    first.append(notes("a" * 100))
    first.close()
    second = spool(tmp_path, max_bytes=100)
    room = [second.has_room]
    second.take_over()
    room.append(second.has_room)
    assert ["a" * 100] == drained(second)
    assert [True, False, True] == [*room, second.has_room]
