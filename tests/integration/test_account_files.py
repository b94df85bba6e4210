"""The store of accounts in files: whole or not at all, for its owner alone, whatever else is there."""

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from core.clock import ManualClock, SystemClock
from credentials.errors import RecordDamaged, StoreUnavailable
from credentials.records import AccountSettings
from credentials.stores import file as files
from credentials.stores.cells import LOGIN_KEPT
from credentials.stores.file import FileStore
from tests.account_places import account, sign_in
from tests.servers import ROOT

KEY = "ab" * 32

WRITER = """
import asyncio, sys
from pathlib import Path
import msgspec
from core.clock import SystemClock
from credentials.errors import StoreConflict
from credentials.records import AccountSettings
from credentials.stores import file as files
from credentials.stores.file import FileStore

files._LOCK_TRIES = 100_000  # the disk may be as slow as it likes

async def write(rounds):
    store = FileStore(Path(sys.argv[1]), SystemClock())
    print("ready", flush=True)
    while rounds:
        found = await store.get("openai", "main")
        settings = AccountSettings(weight=found.settings.weight + 1, note="x" * 100_000)
        try:
            await store.put(msgspec.structs.replace(found, settings=settings), found.version)
        except StoreConflict:
            continue
        rounds -= 1

asyncio.run(write(int(sys.argv[2])))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "a/b"


@pytest.fixture
def store(directory: Path) -> FileStore:
    return FileStore(directory, SystemClock())


def writer(directory: Path, rounds: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(rounds)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert b"ready\n" == process.stdout.readline()
    return process


def modes(directory: Path) -> dict[str, int]:
    found = [directory, *directory.rglob("*")] if directory.exists() else []
    return {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in found}


def make_for_nobody(directory: Path) -> None:
    directory.mkdir(parents=True)
    os.chown(directory, 65534, 65534)


def owners(directory: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_uid, path.stat().st_gid) for path in [directory, *directory.rglob("*")]}


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_files_are_for_their_owner_alone_and_are_there_with_the_first_write(
    store: FileStore, directory: Path
) -> None:
    assert (0, ()) == ((await store.all()).version, (await store.all()).records)
    assert await store.get("openai", "main") is None
    assert {} == modes(directory)
    before = os.umask(0)
    try:
        await store.put(account("Main"), None)
        await store.add_login(sign_in(KEY, round(SystemClock().time() * 1_000_000)))
    finally:
        os.umask(before)
    assert {
        ".": 0o700,
        "accounts": 0o700,
        "accounts/openai": 0o700,
        "accounts/openai/%4dain.account": 0o600,
        "lock": 0o600,
        "logins": 0o700,
        f"logins/{KEY}.login": 0o600,
        "version": 0o600,
    } == modes(directory)


async def test_what_is_not_ours_is_left_alone_and_what_looks_so_is_told(store: FileStore, directory: Path) -> None:
    whole = await store.put(account(), None)
    place = directory / "accounts/openai"
    foreign = ["notes.txt", "main.account.new", "main.account~", ".hidden.account", "UPPER.account", "%4d.account"]
    for name in foreign:
        (place / name).write_text("foreign")
    (directory / "accounts/README").write_text("foreign")
    os.mkfifo(place / "pipe.account")
    (place / "folder.account").mkdir()
    (place / "link.account").symlink_to("nowhere")
    (place / "empty.account").touch()
    (place / "large.account").write_bytes(b"x" * (files.MAX_CELL_BYTES + 1))
    (place / "copy.account").write_bytes((place / "main.account").read_bytes())
    (place / "half.account").write_bytes((place / "main.account").read_bytes()[:300])
    listing = await store.all()
    assert (whole,) == listing.records
    assert ["M", "copy", "empty", "folder", "half", "large", "pipe"] == [one.name for one in listing.damaged]
    for name in ("half", "pipe"):
        with pytest.raises(RecordDamaged, match=f"`openai/{name}` was changed or cut: delete it"):
            await store.get("openai", name)
        assert await store.delete("openai", name, None)
        assert 1 == (await store.put(account(name), None)).version
    await store.put(whole, 1)  # beside it lies what a write that was cut off has left
    assert {"foreign"} == {(place / name).read_text() for name in foreign if name != "main.account.new"}


async def test_a_lost_or_damaged_number_of_changes_is_begun_anew_and_is_another_one(
    store: FileStore, directory: Path
) -> None:
    kept = await store.put(account(), None)
    seen = {await store.version()}
    for damage in (b"", b"x1", b"-1", b"1" * 40):
        (directory / "version").write_bytes(damage)
        assert 0 == await store.version()
        kept = await store.put(kept, kept.version)
        seen.add(await store.version())
    (directory / "version").unlink()
    await store.put(kept, kept.version)
    seen.add(await store.version())
    assert 6 == len(seen)


async def test_a_full_disk_changes_nothing(store: FileStore, directory: Path) -> None:
    kept = await store.put(account(), None)
    before = contents(directory)
    # Files cannot grow any further than this: the disk is full. Signals are the process's, so it is another one.
    script = f"""
import asyncio, resource, sys
from pathlib import Path
import msgspec
from core.clock import SystemClock
from credentials.errors import StoreUnavailable
from credentials.records import AccountSettings
from credentials.stores.file import FileStore

async def write():
    store = FileStore(Path({str(directory)!r}), SystemClock())
    found = await store.get("openai", "main")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    large = msgspec.structs.replace(found, settings=AccountSettings(note="x" * 5000))
    for record, seen in ((large, 1), (msgspec.structs.replace(large, name="new"), None)):
        try:
            await store.put(record, seen)
        except StoreUnavailable as error:
            print(error)

asyncio.run(write())
"""
    run = await asyncio.get_running_loop().run_in_executor(
        None,
        lambda: subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        ),
    )
    told = f"the accounts in {directory} cannot be used: File too large; see to its owner, its mode and the space"
    assert 2 == run.stdout.count(told), run
    after = contents(directory)
    # It counted a change that did not come: no harm.
    assert before | {directory / "version": after[directory / "version"]} == after
    assert kept == await store.get("openai", "main")


async def test_a_writer_that_is_killed_leaves_a_whole_record_and_nobody_waits_for_it(
    store: FileStore, directory: Path
) -> None:
    await store.put(account(), None)
    versions = []
    for _ in range(3):
        with writer(directory, 1_000_000) as process:
            first = await store.get("openai", "main")
            assert first is not None
            found = first
            while found.version < first.version + 3:
                again = await store.get("openai", "main")
                assert again is not None
                found = again
            process.send_signal(signal.SIGKILL)
        found = (await store.all()).records[0]
        assert found.version == found.settings.weight
        versions.append(found.version)
        settings = AccountSettings(weight=found.settings.weight + 1)
        await store.put(msgspec.structs.replace(found, settings=settings), found.version)
    assert sorted(set(versions)) == versions


async def test_processes_that_write_at_once_lose_nothing(store: FileStore, directory: Path) -> None:
    await store.put(account(), None)
    writers = [writer(directory, 10) for _ in range(3)]
    loop = asyncio.get_running_loop()
    assert [0, 0, 0] == [await loop.run_in_executor(None, process.wait) for process in writers]
    for process in writers:
        assert process.stdout is not None
        process.stdout.close()
    found = await store.get("openai", "main")
    assert found is not None
    assert (31, 31) == (found.version, found.settings.weight)


async def test_who_holds_the_lock_for_ever_is_not_waited_for_as_long(
    store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_TRIES", 2)
    kept = await store.put(account(), None)
    with (directory / "lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        asked: list[Callable[[], Awaitable[object]]] = [store.all, lambda: store.put(kept, 1)]
        for ask in asked:
            with pytest.raises(StoreUnavailable, match="cannot be used: another process holds its lock"):
                await ask()
        assert kept == await store.get("openai", "main")  # for that there is no lock
    await store.put(kept, 1)


async def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FileStore(tmp_path / "file", SystemClock())
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("openai", "main"),
        lambda: store.put(account(), None),
        lambda: store.lock("openai", "main", 1),
        lambda: store.login(KEY),
    ]
    for ask in asked:
        with pytest.raises(StoreUnavailable, match=rf"the accounts in {tmp_path}/file cannot be used: .*directory"):
            await ask()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_what_root_writes_belongs_to_the_owner_of_the_directory(store: FileStore, directory: Path) -> None:
    make_for_nobody(directory)
    kept = await store.put(account(), None)
    await store.put(kept, 1)
    await store.add_login(sign_in(KEY, round(SystemClock().time() * 1_000_000)))
    assert {(65534, 65534)} == owners(directory)


async def test_sign_ins_of_long_ago_go_with_the_next(directory: Path, clock: ManualClock) -> None:
    store = FileStore(directory, clock)
    start = round(clock.time() * 1_000_000)
    await store.add_login(sign_in("aa", start))
    await store.add_login(sign_in("bb", start, seconds=5000))
    clock.advance(600 + LOGIN_KEPT / 1_000_000)
    await store.add_login(sign_in("cc", round(clock.time() * 1_000_000)))
    assert ["bb.login", "cc.login"] == sorted(path.name for path in (directory / "logins").iterdir())


async def test_a_link_in_the_place_of_a_new_file_is_not_followed(
    store: FileStore, directory: Path, tmp_path: Path
) -> None:
    kept = await store.put(account(), None)
    link = directory / "accounts/openai/main.account.new"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await store.put(kept, 1)
    assert kept == await store.get("openai", "main")
    await store.put(kept, 1)
    assert "elsewhere" not in modes(tmp_path)
