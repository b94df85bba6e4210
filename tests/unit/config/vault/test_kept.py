"""The last values on disk: sealed, private, shared by processes, and never the reason that something else fails."""

import fcntl
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from config.sealing import VAULT_VALUES, KeyRing, SealingKey
from config.vault.kept import KeptValues

ExpectLog = Callable[..., AbstractContextManager[None]]


def _ring(*names: str) -> KeyRing:
    return KeyRing([SealingKey(name, name.encode().ljust(32, b".")) for name in names or ("k1",)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "vault-values.sealed"


def test_what_is_kept_is_read_by_a_later_process(path: Path) -> None:
    KeptValues(path, _ring()).keep({"a": {"key": "1", "user": "u"}, "b": {"key": "ü\n"}})
    assert {"a": {"key": "1", "user": "u"}, "b": {"key": "ü\n"}} == KeptValues(path, _ring()).read()


def test_nothing_is_kept_at_first(path: Path) -> None:
    assert {} == KeptValues(path, _ring()).read()
    assert not path.parent.exists()


def test_processes_add_to_what_others_have_kept(path: Path) -> None:
    one, other = KeptValues(path, _ring()), KeptValues(path, _ring())
    one.keep({"a": {"user": "u1", "key": "1"}})
    other.keep({"a": {"key": "2"}, "b": {"key": "3"}})
    assert {"a": {"user": "u1", "key": "2"}, "b": {"key": "3"}} == one.read()


def test_the_file_is_sealed_and_private_and_nothing_else_is_left(path: Path, planted_secret: str) -> None:
    KeptValues(path, _ring()).keep({"a": {"key": planted_secret}})
    assert planted_secret.encode() not in path.read_bytes()
    assert "0600" == f"{path.stat().st_mode & 0o777:04o}"
    assert "0700" == f"{path.parent.stat().st_mode & 0o777:04o}"
    assert {path.name, f"{path.name}.lock"} == {each.name for each in path.parent.iterdir()}
    assert "0600" == f"{path.with_name(path.name + '.lock').stat().st_mode & 0o777:04o}"


def test_what_is_kept_already_is_not_written_again(path: Path) -> None:
    kept = KeptValues(path, _ring())
    kept.keep({"a": {"key": "1"}})
    before = path.stat().st_ino
    kept.keep({"a": {"key": "1"}})
    assert before == path.stat().st_ino


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "changed or cut"),
        (b"k1:AAAA", "changed or cut"),
        (b"\xff\xfe", "changed or cut"),
        (_ring("k2").seal(b"{}", VAULT_VALUES).encode(), "not among the master keys"),
        (KeyRing([SealingKey("k1", b"x" * 32)]).seal(b"{}", VAULT_VALUES).encode(), "does not open"),
        (_ring().seal(b"{}", "config").encode(), "does not open"),
        (_ring().seal(b"[1]", VAULT_VALUES).encode(), "another version"),
        (_ring().seal(b"{", VAULT_VALUES).encode(), "another version"),
    ],
)
def test_a_file_that_does_not_open_is_warned_of_and_replaced(
    path: Path, content: bytes, words: str, expect_log: ExpectLog
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    kept = KeptValues(path, _ring())
    with expect_log(f"vault-values.sealed cannot be used: .*{words}"):
        assert {} == kept.read()
    with expect_log("cannot be used"):
        kept.keep({"a": {"key": "1"}})
    assert {"a": {"key": "1"}} == kept.read()


def test_a_second_key_opens_what_the_first_will_seal(path: Path) -> None:
    KeptValues(path, _ring("old")).keep({"a": {"key": "1"}})
    kept = KeptValues(path, _ring("new", "old"))
    assert {"a": {"key": "1"}} == kept.read()
    kept.keep({"a": {"key": "2"}})
    assert path.read_text().startswith("new:")


def test_a_directory_that_cannot_be_written_is_warned_of_once(tmp_path: Path, expect_log: ExpectLog) -> None:
    (tmp_path / "data").write_text("a file in the way")
    kept = KeptValues(tmp_path / "data" / "vault-values.sealed", _ring())
    with expect_log("cannot be kept in .*vault-values.sealed"):
        kept.keep({"a": {"key": "1"}})
    kept.keep({"a": {"key": "2"}})


def test_a_copy_that_cannot_be_finished_leaves_the_former_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    kept = KeptValues(path, _ring())
    kept.keep({"a": {"key": "1"}})

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with expect_log("cannot be kept in .*: No space left"):
        kept.keep({"a": {"key": "2"}})
    assert {"a": {"key": "1"}} == kept.read()
    assert {path.name, f"{path.name}.lock"} == {each.name for each in path.parent.iterdir()}


def test_a_lock_that_is_not_given_back_is_not_waited_for(
    path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.vault.kept._LOCK_SECONDS", 0.1)
    kept = KeptValues(path, _ring())
    assert kept.keep({"a": {"key": "1"}})
    with path.with_name(f"{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with expect_log("cannot be kept in .*: another process holds its lock"):
            assert not kept.keep({"a": {"key": "2"}})
    assert kept.keep({"a": {"key": "3"}})
    assert {"a": {"key": "3"}} == kept.read()


def test_a_link_in_the_place_of_the_new_file_leads_nowhere(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    path.parent.mkdir()
    path.with_name(f"{path.name}.{os.getpid()}").symlink_to(precious)
    assert KeptValues(path, _ring()).keep({"a": {"key": "1"}})
    assert "untouched" == precious.read_text()
    assert not path.is_symlink()


def test_who_only_looks_writes_nothing(path: Path) -> None:
    assert KeptValues(path, _ring(), writes=False).keep({"a": {"key": "1"}})
    assert not path.parent.exists()
