"""Secret files: read at load, refreshed on change, never on the request path."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from config.secret_files import MAX_SECRET_FILE_BYTES, SecretFileError, SecretFileMissing, SecretFiles
from tests.planted import place_of_secrets

ExpectLog = Callable[..., AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"key", "key"),
        (b"key\n", "key"),
        (b"key\r\n", "key"),
        (b"key\n\n", "key\n"),
        (b" key \n", " key "),
        (b"", ""),
        (b"\n", ""),
        ("schlüssel".encode(), "schlüssel"),
    ],
)
def test_one_line_break_at_the_end_is_left_out(tmp_path: Path, data: bytes, value: str) -> None:
    (tmp_path / "key").write_bytes(data)
    assert value == SecretFiles().load(tmp_path / "key")


def test_what_is_no_readable_text_is_told_without_its_content(tmp_path: Path, planted_secret: str) -> None:
    place_of_secrets(tmp_path / "binary").write_bytes(planted_secret.encode() + b"\xff")
    place_of_secrets(tmp_path / "large").write_bytes(
        planted_secret.encode() * (MAX_SECRET_FILE_BYTES // len(planted_secret) + 1)
    )
    os.mkfifo(tmp_path / "pipe")
    files = SecretFiles()
    for name, words in (
        ("binary", "not UTF-8"),
        ("large", "larger than"),
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("binary/below", "Not a directory"),
        ("nul\0", "null"),
    ):
        with pytest.raises(SecretFileError, match=words) as error:
            files.load(tmp_path / name)
        assert planted_secret not in str(error.value)
    with pytest.raises(SecretFileMissing, match="no such file"):
        files.load(tmp_path / "absent")
    assert 0 == len(files)


def test_refresh_tells_what_changed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    files = SecretFiles()
    files.load(one)
    files.load(two)
    assert () == files.refresh()
    two.write_text("3")
    assert (two,) == files.refresh()
    assert ("1", "3") == (files.value(one), files.value(two))


def test_a_file_that_goes_keeps_its_last_value(tmp_path: Path, expect_log: ExpectLog) -> None:
    path = tmp_path / "key"
    path.write_text("kept")
    files = SecretFiles()
    files.load(path)
    path.unlink()
    with expect_log(r"secret file .*key cannot be read: there is no such file: its last value stays in use"):
        assert () == files.refresh()
    assert "kept" == files.value(path)
