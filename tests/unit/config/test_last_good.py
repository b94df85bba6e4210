"""The copy of the files in force."""

from pathlib import Path

import pytest

from config.last_good import LastGood
from config.sources import SourceFile

FILES = (SourceFile("/etc/c.yaml", "c.yaml", b"a: \xff"), SourceFile("/etc/d/\udcff", "d/\udcff", b""))


def test_what_is_kept_is_read_by_another(tmp_path: Path) -> None:
    file = tmp_path / "last-good"
    LastGood(file).keep(FILES)
    assert FILES == LastGood(file).read()
    LastGood(file).keep(FILES[:1])
    assert FILES[:1] == LastGood(file).read()
    assert [file] == list(tmp_path.iterdir())


def test_the_copy_is_for_its_user_alone(tmp_path: Path) -> None:
    LastGood(tmp_path / "last-good").keep(FILES)
    assert 0o600 == (tmp_path / "last-good").stat().st_mode & 0o777


@pytest.mark.parametrize("data", [None, b"", b"\x93\x01"])
def test_without_a_whole_copy_there_is_none(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "last-good"
    if data is not None:
        file.write_bytes(data)
    assert None is LastGood(file).read()


def test_a_copy_that_cannot_be_written_leaves_the_former(tmp_path: Path) -> None:
    file = tmp_path / "last-good"
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        LastGood(file).keep(FILES)
    assert [file] == list(tmp_path.iterdir())
