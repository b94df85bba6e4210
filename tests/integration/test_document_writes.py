"""Commits of edits to real files: crashes, rivals, read-only places and full disks."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from config.document import Value, parse
from config.edit import lock
from config.edit.edits import MergePatch, PutDocument, PutEntry, PutFiles, RemoveEntry
from config.edit.errors import DocumentBusy, EditRefused, ReadOnlyDocument, Stale, Unreadable, WriteFailed
from config.edit.exchange import exchange
from config.edit.replace import Prepared, prepare
from config.edit.writer import Commit, Files, Writer
from config.faults import ConfigFaults, Fault
from config.load import load
from config.sources import read_includes, read_root, revision_of
from config.starter import starter_config
from tests.planted import planted

ROOT = """\
include: [conf.d/*.yaml]
# what is ours
providers:
  - {name: one, type: echo}  # the first
"""
INCLUDED = """\
providers:
  # from elsewhere
  - name: two
    type: echo
"""
BEGINNING = """
import sys, os, time
from pathlib import Path
from config.edit.edits import *
from config.edit.errors import *
from config.edit.writer import Writer
from config.load import load
from config.sources import *
root = Path(sys.argv[1])
def revision():
    first = read_root(root)
    return revision_of([first, *read_includes(root, ["conf.d/*.yaml"])[0]])
"""
BOTH = MergePatch({"providers": [{"name": "one", "type": "changed"}, {"name": "two", "type": "changed"}]})

NEW = PutEntry("providers", "new", {"type": "echo"})
PATIENCE_SECONDS = 120
"""With this machine."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(ROOT)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/more.yaml").write_text(INCLUDED)
    return path


def accept(files: Files) -> None:
    """Validates nothing."""


def revision(root: Path) -> str:
    return revision_of([read_root(root), *read_includes(root, ["conf.d/*.yaml"])[0]])


def commit(root: Path, edit: MergePatch | PutDocument | PutEntry | RemoveEntry) -> Commit:
    return Writer(root).commit(revision(root), edit, accept)


def contents(root: Path) -> tuple[str, str]:
    return root.read_text(), (root.parent / "conf.d/more.yaml").read_text()


def names_left(root: Path) -> set[str]:
    """Everything in the two directories but the document and its lock."""
    found = {str(path.relative_to(root.parent)) for path in root.parent.rglob("*") if path.is_file()}
    return found - {"config.yaml", "conf.d/more.yaml", ".config.yaml.lock"}


def start(root: Path, script: str) -> "subprocess.Popen[str]":
    code = BEGINNING + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )


def run(root: Path, script: str) -> str:
    process = start(root, script)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert 0 == process.returncode
    return output


def test_an_edit_goes_to_the_file_that_owns_the_entry(root: Path) -> None:
    done = commit(root, PutEntry("providers", "two", {"type": "other"}))
    assert (ROOT, INCLUDED.replace("echo", "other")) == contents(root)
    assert ("conf.d/more.yaml",) == done.changed
    assert revision(root) == done.revision
    assert revision_of(done.files) == done.revision
    assert set() == names_left(root)


def test_an_edit_of_two_files_is_written_to_both(root: Path) -> None:
    done = commit(root, BOTH)
    assert (ROOT.replace("echo", "changed"), INCLUDED.replace("echo", "changed")) == contents(root)
    assert ("config.yaml", "conf.d/more.yaml") == done.changed
    assert set() == names_left(root)


def test_an_edit_that_changes_nothing_writes_nothing(root: Path) -> None:
    before = root.stat().st_mtime_ns
    done = commit(root, PutEntry("providers", "one", {"type": "echo"}))
    assert () == done.changed
    assert revision(root) == done.revision
    assert before == root.stat().st_mtime_ns


def test_an_edit_of_another_revision_is_stale(root: Path) -> None:
    with pytest.raises(Stale) as stale:
        Writer(root).commit("0" * 64, BOTH, accept)
    assert revision(root) == stale.value.present
    assert (ROOT, INCLUDED) == contents(root)


def test_what_is_written_by_hand_while_an_edit_is_validated_is_kept(root: Path) -> None:
    def edit_by_hand(files: Files) -> None:
        root.write_text(ROOT + "# by hand\n")

    with pytest.raises(Stale):
        Writer(root).commit(revision(root), BOTH, edit_by_hand)
    assert (ROOT + "# by hand\n", INCLUDED) == contents(root)
    assert set() == names_left(root)


def rename(root: Path, text: str) -> None:
    beside = root.with_name("by-hand")
    beside.write_text(text)
    beside.replace(root)


@pytest.mark.parametrize("write", [rename, Path.write_text])
@pytest.mark.parametrize(("edit", "file"), [(NEW, "config.yaml"), (BOTH, "config.yaml"), (BOTH, "conf.d/more.yaml")])
def test_what_is_written_by_hand_at_the_last_moment_is_kept(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: PutEntry | MergePatch,
    write: Callable[[Path, str], None],
    file: str,
) -> None:
    """Between the last look at the files and their replacement."""
    others = {ROOT, INCLUDED} - {(root.parent / file).read_text()}
    by_hand = (root.parent / file).read_text() + "# by hand\n"

    def exchange_late(one: Path, other: Path) -> bool:
        if other == root.parent / file and "# by hand" not in other.read_text() + one.read_text():
            write(other, by_hand)
        return exchange(one, other)

    monkeypatch.setattr("config.edit.replace.exchange", exchange_late)
    with pytest.raises(Stale) as stale:
        commit(root, edit)
    assert revision(root) == stale.value.present
    assert {by_hand, *others} == set(contents(root))
    assert set() == names_left(root)


@pytest.mark.parametrize("edit", [NEW, BOTH])
def test_who_has_opened_a_file_to_write_to_it_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, edit: PutEntry | MergePatch
) -> None:
    before = revision(root)
    with root.open("a"), pytest.raises(DocumentBusy, match="open for writing"):
        commit(root, edit)
    with monkeypatch.context() as patch:
        # Opened at the last moment, and written to when the edit was to be there already.
        late: list[IO[str]] = []

        def exchange_late(one: Path, other: Path) -> bool:
            late.extend([other.open("a")] if not late else [])
            return exchange(one, other)

        patch.setattr("config.edit.replace.exchange", exchange_late)
        with pytest.raises(Stale) as stale:
            commit(root, edit)
    assert before == stale.value.present
    with late[0]:
        late[0].write("# by hand\n")
    assert (ROOT + "# by hand\n", INCLUDED) == contents(root)
    assert set() == names_left(root)


def test_a_file_system_that_cannot_exchange_names_does_without(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.edit.replace.exchange", lambda _one, _other: False)
    commit(root, BOTH)
    assert (ROOT.replace("echo", "changed"), INCLUDED.replace("echo", "changed")) == contents(root)
    assert set() == names_left(root)


def test_an_edit_that_is_not_valid_is_not_written(root: Path) -> None:
    def refuse(files: Files) -> None:
        assert [{"name": "one", "type": "changed"}] == parse(files[0].data, "").value["providers"]
        raise ConfigFaults([Fault((), "no")])

    with pytest.raises(ConfigFaults, match="no"):
        Writer(root).commit(revision(root), BOTH, refuse)
    assert (ROOT, INCLUDED) == contents(root)
    assert set() == names_left(root)


def test_a_file_that_cannot_be_parsed_is_never_overwritten(root: Path) -> None:
    root.write_text("a: [\n")
    for edit in (BOTH, PutDocument(b"{}"), RemoveEntry("providers", "two")):
        with pytest.raises(Unreadable, match=r"config\.yaml:1:5: not YAML"):
            Writer(root).commit(revision_of([read_root(root)]), edit, accept)
    assert "a: [\n" == root.read_text()


def test_a_new_include_is_validated_with_the_files_that_it_names(root: Path) -> None:
    (root.parent / "other.yaml").write_text("tokens: []\n")
    seen: list[str] = []

    def look(files: Files) -> None:
        seen.extend(file.relative for file in files)

    done = Writer(root).commit(revision(root), MergePatch({"include": ["other.yaml"]}), look)
    assert ["config.yaml", "other.yaml"] == seen
    assert revision_of([read_root(root), *read_includes(root, ["other.yaml"])[0]]) == done.revision
    with pytest.raises(ConfigFaults, match="there is no such file"):
        Writer(root).commit(done.revision, MergePatch({"include": ["missing.yaml"]}), look)


def test_mode_and_owner_and_symlinks_stay(root: Path) -> None:
    real = root.parent / "real.yaml"
    root.rename(real)
    root.symlink_to("real.yaml")
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 1234, 1235)
    before = real.stat()
    commit(root, BOTH)
    after = real.stat()
    assert root.is_symlink()
    assert "changed" in real.read_text()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert before.st_ino != after.st_ino


def test_a_file_that_is_marked_as_read_only_is_left_alone(root: Path) -> None:
    included = root.parent / "conf.d/more.yaml"
    included.chmod(0o444)
    with pytest.raises(ReadOnlyDocument, match=r"more\.yaml is read-only"):
        commit(root, BOTH)
    assert (ROOT, INCLUDED) == contents(root)
    assert set() == names_left(root)
    assert 0o444 == stat.S_IMODE(included.stat().st_mode)


def test_a_directory_that_is_not_ours_to_write_makes_the_document_read_only(root: Path) -> None:
    (root.parent / ".config.yaml.lock").touch(0o666)
    (root.parent / ".config.yaml.lock").chmod(0o666)
    root.parent.chmod(0o555)
    script = """
        before = revision()
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            Writer(root).commit(before, RemoveEntry("providers", "one"), lambda files: None)
        except ReadOnlyDocument as error:
            print(error)
    """
    try:
        # Those above it must let the other user through.
        for above in root.parent.parents:
            if above.stat().st_uid == os.geteuid() and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
        assert "cannot be replaced (Permission denied)" in run(root, script)
    finally:
        root.parent.chmod(0o755)
    assert (ROOT, INCLUDED) == contents(root)


@pytest.mark.parametrize("edit", ['PutDocument(b"# " + b"x" * 8000 + b"\\n{}\\n")', "BOTH"])
def test_a_full_disk_changes_nothing(root: Path, edit: str) -> None:
    filler = "# " + "y" * 8000 + "\n"
    (root.parent / "conf.d/more.yaml").write_text(INCLUDED + filler)
    script = f"""
        import resource
        BOTH = MergePatch({BOTH.patch!r})
        before = revision()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            Writer(root).commit(before, {edit}, lambda files: None)
        except WriteFailed as error:
            print(error)
    """
    assert "make room on the disk; nothing was changed" in run(root, script)
    assert (ROOT, INCLUDED + filler) == contents(root)
    assert set() == names_left(root)


def test_of_twenty_edits_at_once_each_is_made_once_or_stale(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TRIES", 10_000)  # the disk may be as slow as it likes
    barrier = threading.Barrier(20)
    first = revision(root)

    def edit(number: int) -> bool:
        barrier.wait()
        try:
            Writer(root).commit(first, PutEntry("providers", f"new-{number}", {"type": "echo"}), accept)
        except Stale:
            return False
        return True

    with ThreadPoolExecutor(20) as threads:
        made = list(threads.map(edit, range(20)))
    assert 1 == made.count(True)
    entries = parse(root.read_bytes(), "").value["providers"]
    assert isinstance(entries, list)
    assert 2 == len(entries)


def test_rival_processes_that_try_again_lose_nothing(root: Path) -> None:
    script = """
        from config.edit import lock
        lock._TRIES = 10_000  # the disk may be as slow as it likes
        for number in range(5):
            while True:
                try:
                    name = f"new-{os.getpid()}-{number}"
                    Writer(root).commit(revision(), PutEntry("providers", name, {"type": "echo"}), lambda files: None)
                except Stale:
                    continue
                break
    """
    processes = [start(root, script) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=PATIENCE_SECONDS)
        assert 0 == process.returncode
    entries = parse(root.read_bytes(), "").value["providers"]
    assert isinstance(entries, list)
    assert 21 == len(entries)
    assert ROOT == root.read_text()[: len(ROOT)]


def test_what_is_read_beside_edits_of_two_files_is_one_that_was_there(root: Path) -> None:
    script = """
        print(revision(), flush=True)
        number = 0
        while True:
            number += 1
            value = [{"name": "one", "type": f"t{number}"}, {"name": "two", "type": f"t{number}"}]
            done = Writer(root).commit(revision(), MergePatch({"providers": value}), lambda files: None)
            print(done.revision, flush=True)
            if os.path.exists(root.parent / "enough"):
                break
            time.sleep(0.01)
    """
    process = start(root, script)
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    reader, found = Writer(root), set[str | None]()
    beginning = time.monotonic()
    while len(found) < 20 and time.monotonic() - beginning < PATIENCE_SECONDS:
        found |= {reader.read_leniently()[0], revision_of(reader.look().before)}
    (root.parent / "enough").touch()
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert 20 <= len(found)
    assert set() == found - {*output.split(), first}


def test_a_killed_writer_leaves_the_old_document_or_the_new_one(root: Path) -> None:
    script = """
        number = 0
        print("ready", flush=True)
        while True:
            number += 1
            value = [{"name": "one", "type": f"t{number}"}, {"name": "two", "type": f"t{number}"}]
            Writer(root).commit(revision(), MergePatch({"providers": value}), lambda files: None)
    """
    for number in range(12):
        process = start(root, script)
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        time.sleep(0.01 + number * 0.007)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_SECONDS)
        for text in contents(root):
            assert not parse(text.encode(), "").faults
        Writer(root).finish_interrupted()
        kinds = {
            entry["type"]  # type: ignore[index,call-overload]  # a value of JSON
            for text in contents(root)
            for entry in parse(text.encode(), "").value["providers"]  # type: ignore[union-attr]  # either has them
        }
        assert 1 == len(kinds), "one file is of one edit, and the other of another"
    commit(root, BOTH)
    assert set() == names_left(root)


# What stands for the crash: the process ends at once, as by SIGKILL, between two steps.
CRASH = """
        import config.edit.replace
        calls = 0
        real = config.edit.replace.Prepared.put
        def put(self):
            global calls
            calls += 1
            if calls == {at}:
                os.kill(os.getpid(), 9)
            real(self)
        config.edit.replace.Prepared.put = put
        Writer(root).commit(revision(), MergePatch({patch!r}), lambda files: None)
"""


@pytest.mark.parametrize("at", [1, 2])
def test_an_edit_of_two_files_that_was_cut_off_is_finished(root: Path, at: int) -> None:
    process = start(root, CRASH.format(at=at, patch=BOTH.patch))
    process.communicate(timeout=PATIENCE_SECONDS)
    assert -signal.SIGKILL == process.returncode
    assert [True, False] == [Writer(root).finish_interrupted() for _ in range(2)]
    assert (ROOT.replace("echo", "changed"), INCLUDED.replace("echo", "changed")) == contents(root)
    assert set() == names_left(root)


def test_the_next_edit_finishes_the_one_that_was_cut_off_and_is_stale(root: Path) -> None:
    process = start(root, CRASH.format(at=2, patch=BOTH.patch))
    process.communicate(timeout=PATIENCE_SECONDS)
    with pytest.raises(Stale) as stale:
        commit(root, RemoveEntry("providers", "one"))
    assert revision(root) == stale.value.present
    assert (ROOT.replace("echo", "changed"), INCLUDED.replace("echo", "changed")) == contents(root)


def test_what_was_written_by_hand_after_a_crash_is_kept(root: Path, expect_log: object) -> None:
    process = start(root, CRASH.format(at=2, patch=BOTH.patch))
    process.communicate(timeout=PATIENCE_SECONDS)
    (root.parent / "conf.d/more.yaml").write_text("{}\n")
    with expect_log("more.yaml was changed since"):  # type: ignore[operator]
        assert Writer(root).finish_interrupted()
    assert (ROOT.replace("echo", "changed"), "{}\n") == contents(root)
    assert set() == names_left(root)


def test_when_the_second_file_cannot_be_replaced_the_first_is_put_back(root: Path) -> None:
    script = f"""
        import errno, config.edit.replace
        real = config.edit.replace.Prepared.put
        def put(self):
            if self.target.name == "more.yaml":
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            real(self)
        config.edit.replace.Prepared.put = put
        try:
            Writer(root).commit(revision(), MergePatch({BOTH.patch!r}), lambda files: None)
        except ReadOnlyDocument as error:
            print(error)
    """
    assert "mount its directory" in run(root, script)
    assert (ROOT, INCLUDED) == contents(root)
    assert set() == names_left(root)


def test_a_crash_while_the_first_is_put_back_leaves_the_old_document(root: Path) -> None:
    script = f"""
        import errno, config.edit.replace
        calls = 0
        real = config.edit.replace.Prepared.put
        def put(self):
            global calls
            calls += 1
            if calls == 2:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if calls == 3:
                os.kill(os.getpid(), 9)
            real(self)
        config.edit.replace.Prepared.put = put
        Writer(root).commit(revision(), MergePatch({BOTH.patch!r}), lambda files: None)
    """
    process = start(root, script)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert -signal.SIGKILL == process.returncode
    assert Writer(root).finish_interrupted()
    assert (ROOT, INCLUDED) == contents(root)
    commit(root, BOTH)
    assert set() == names_left(root)


def test_what_cannot_be_put_back_is_finished_by_the_next_edit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Prepared.put

    def put_one(self: Prepared) -> None:
        if self.target.name == "more.yaml":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        put(self)

    def prepare_no_more(target: Path, data: bytes, mark: str, before: bytes) -> Prepared:
        if data == ROOT.encode():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return prepare(target, data, mark, before)

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "put", put_one)
        patch.setattr("config.edit.writer.prepare", prepare_no_more)
        with pytest.raises(WriteFailed, match="the next edit does the rest"):
            commit(root, BOTH)
    assert (ROOT.replace("echo", "changed"), INCLUDED) == contents(root)
    with pytest.raises(Stale):
        commit(root, RemoveEntry("providers", "one"))
    assert (ROOT.replace("echo", "changed"), INCLUDED.replace("echo", "changed")) == contents(root)


def test_an_edit_waits_for_another_and_gives_up_at_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TRIES", 3)
    with lock.locked(root.parent / ".config.yaml.lock", root), pytest.raises(DocumentBusy, match="try again later"):
        commit(root, BOTH)
    commit(root, BOTH)


def test_a_journal_that_is_none_is_told(root: Path) -> None:
    (root.parent / ".config.yaml.journal").write_text("[1]")
    with pytest.raises(WriteFailed, match=r"\.config\.yaml\.journal was changed"):
        commit(root, BOTH)


def test_what_is_written_is_what_the_loader_reads(tmp_path: Path) -> None:
    root = tmp_path / "config.yaml"
    root.write_text(starter_config("0" * 64))
    value: dict[str, Value] = {
        "type": "openai-compatible",
        "base_url": "http://127.0.0.1:1/v1",
        "credentials": [{"name": "main", "api_key": "${env:KEY}"}],
        "models": ["no", "1:30", "0123"],
    }

    def validate(files: Files) -> None:
        load(root, {"KEY": planted("key")}, copy=files)

    done = Writer(root).commit(revision(root), PutEntry("providers", "yes", value), validate)
    loaded = load(root, {"KEY": planted("key")})
    assert done.revision == loaded.revision
    assert done.files == loaded.files
    assert ("yes", ("no", "1:30", "0123")) == (loaded.config.providers[1].name, loaded.config.providers[1].models)
    with pytest.raises(ConfigFaults, match="unknown key"):
        Writer(root).commit(done.revision, PutEntry("providers", "two", {"type": "echo", "modles": []}), validate)
    assert done.files[0].data == root.read_bytes()


def test_an_edit_is_refused_where_it_would_change_more(root: Path) -> None:
    root.write_text(ROOT + "a: &a {x: 1}\nb: *a\n")
    before = contents(root)
    with pytest.raises(EditRefused, match="&a"):
        commit(root, MergePatch({"a": {"x": 2}}))
    assert before == contents(root)


def plain(files: Files) -> tuple[tuple[str, bytes], ...]:
    return tuple((file.relative, file.data) for file in files)


def test_all_files_of_a_revision_are_put_back_together(root: Path) -> None:
    (root.parent / "other.yaml").write_text("{}\n")
    before = Writer(root).look().before
    commit(root, BOTH)
    first = Writer(root).look().before
    with Writer(root).draft() as draft:
        draft.edit(MergePatch({"include": ["other.yaml"]}))
        assert ("config.yaml",) == draft.write()
    # The includes are those of the revision, and so is what they hold.
    with Writer(root).draft() as draft:
        draft.edit(PutFiles(plain(before)))
        assert ("config.yaml", "conf.d/more.yaml") == draft.write()
    assert (ROOT, INCLUDED) == contents(root)
    assert first != Writer(root).look().before == before
    assert set() == names_left(root) - {"other.yaml"}


def test_a_revision_is_put_back_whole_or_not_at_all(root: Path) -> None:
    before = Writer(root).look().before
    commit(root, BOTH)
    now = contents(root)
    (root.parent / "conf.d/new.yaml").write_text("{}\n")
    with Writer(root).draft() as draft, pytest.raises(EditRefused, match=r"no file `conf.d/new.yaml`.*take it away"):
        draft.edit(PutFiles(plain(before)))
    (root.parent / "conf.d/new.yaml").unlink()
    (root.parent / "conf.d/more.yaml").rename(root.parent / "more.yaml")
    with Writer(root).draft() as draft, pytest.raises(EditRefused, match=r"a file `conf.d/more.yaml`.*make it"):
        draft.edit(PutFiles(plain(before)))
    (root.parent / "more.yaml").rename(root.parent / "conf.d/more.yaml")
    assert now == contents(root)
