"""Names of processes, by which others can tell that they have ended."""

from pathlib import Path

import pytest

from gateway.owner import Owner


def gone(owner: Owner) -> set[str]:
    with owner.gone() as names:
        return set(names)


def test_one_that_has_ended_is_told_once_and_those_that_live_never(tmp_path: Path) -> None:
    place = tmp_path / "data/owners"
    looking, ended, living = (Owner(place) for _ in range(3))
    assert set() == gone(looking)
    assert not place.exists()
    names = [owner.name() for owner in (looking, ended, living)]
    assert names == [owner.name() for owner in (looking, ended, living)]
    assert 3 == len(set(names))
    assert set() == gone(looking)
    ended.close()
    assert {names[1]} == gone(looking)
    assert set() == gone(looking)
    assert {f"{names[0]}.owner", f"{names[2]}.owner"} == {path.name for path in place.iterdir()}
    for owner in (looking, living):
        owner.close()


def test_what_could_not_be_done_about_one_is_told_again(tmp_path: Path) -> None:
    looking, ended = Owner(tmp_path), Owner(tmp_path)
    name = ended.name()
    ended.close()

    def fail() -> None:
        with looking.gone() as names:
            assert (name,) == names
            # Meanwhile it is nobody else's.
            assert set() == gone(Owner(tmp_path))
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail()
    assert {name} == gone(looking)


def test_a_disk_that_takes_no_file_leaves_a_process_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    owner = Owner(tmp_path / "file/owners")
    assert None is owner.name()
    assert set() == gone(owner)
    owner.close()
