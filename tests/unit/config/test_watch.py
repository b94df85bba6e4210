"""Watching over real files: what editors, orchestrators and slow writers do to them."""

# ruff: noqa: ASYNC240 - the tests play those writers, on small files; nothing else runs on their loop

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest

from config import watch
from config.faults import ConfigFaults
from config.load import RejectedConfig, load
from config.secret_stores import SecretStores
from config.sources import Sources
from config.watch import Change, DocumentChanged, SecretsChanged, Watcher

ExpectLog = Callable[..., AbstractContextManager[None]]

QUIET_SECONDS = 0.6
"""Longer than a change takes to be told."""
PATIENCE_SECONDS = 60.0


class Watched:
    """A document that is loaded again whenever the watcher says so, as the gateway does it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stores = SecretStores()
        self.loaded = load(root, {}, self.stores)
        self.watcher = Watcher(self.loaded.sources, self.stores.files, lambda: self.loaded.revision)
        self.refused: list[str] = []
        self._told: asyncio.Queue[Change] = asyncio.Queue()

    async def run(self) -> None:
        async for change in self.watcher.changes():
            if isinstance(change, DocumentChanged):
                try:
                    self.loaded = load(self.root, {}, self.stores)
                    self.watcher.follow(self.loaded.sources)
                except RejectedConfig as refused:
                    self.refused.append(str(refused))
                    self.watcher.follow(refused.sources)
            self._told.put_nowait(change)

    async def told(self) -> Change:
        return await asyncio.wait_for(self._told.get(), PATIENCE_SECONDS)

    async def is_quiet(self) -> bool:
        await asyncio.sleep(QUIET_SECONDS)
        return self._told.empty()

    @property
    def workers(self) -> int:
        return self.loaded.config.server.workers


@asynccontextmanager
async def watching(root: Path) -> AsyncIterator[Watched]:
    watched = Watched(root)
    running = asyncio.get_running_loop().create_task(watched.run())
    try:
        await asyncio.sleep(0.3)  # until the first look is done and the directories are watched
        yield watched
    finally:
        watched.watcher.stop()
        await asyncio.wait_for(running, PATIENCE_SECONDS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("server: {workers: 1}\n")
    return path


def replace(path: Path, text: str) -> None:
    """As careful editors write: a new file, then a rename."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


async def test_a_file_written_in_place_is_told(root: Path) -> None:
    async with watching(root) as watched:
        root.write_text("server: {workers: 2}\n")
        assert DocumentChanged() == await watched.told()
        assert 2 == watched.workers
        assert await watched.is_quiet()


async def test_an_atomic_rename_is_told_again_and_again(root: Path) -> None:
    async with watching(root) as watched:
        for workers in (2, 3, 4):
            replace(root, f"server: {{workers: {workers}}}\n")
            assert DocumentChanged() == await watched.told()
            assert workers == watched.workers


async def test_a_document_that_is_in_force_already_is_not_told(root: Path) -> None:
    async with watching(root) as watched:
        root.touch()
        replace(root, root.read_text())
        (root.parent / "other.txt").write_text("x")
        assert await watched.is_quiet()
        root.write_text("server: {workers: 2}\n")
        root.write_text("server: {workers: 1}\n")
        assert await watched.is_quiet()


async def test_a_refused_document_is_told_once_until_it_is_edited(root: Path) -> None:
    async with watching(root) as watched:
        root.write_text("server: {workers: none}\n")
        await watched.told()
        root.touch()
        assert await watched.is_quiet()
        root.write_text("server: {workers: 3}\n")
        await watched.told()
        assert (3, 1) == (watched.workers, len(watched.refused))


async def test_the_undoing_of_a_refused_edit_is_told(root: Path) -> None:
    good = root.read_text()
    async with watching(root) as watched:
        root.write_text("server: {workers: none}\n")
        await watched.told()
        root.write_text(good)
        assert DocumentChanged() == await watched.told()
        assert (1, 1) == (watched.workers, len(watched.refused))
        assert await watched.is_quiet()


async def test_an_edit_that_was_loaded_otherwise_and_undone_before_a_look_is_told(root: Path) -> None:
    """A reload through the API sees the bad edit; the watcher sees only that everything is as it was."""
    async with watching(root) as watched:
        watched.watcher.follow(Sources(root, "the bad one's"))
        assert DocumentChanged() == await watched.told()
        assert await watched.is_quiet()


async def test_a_removed_document_is_told_and_so_is_its_return(root: Path) -> None:
    async with watching(root) as watched:
        root.unlink()
        await watched.told()
        assert "there is no such file" in watched.refused[0]
        root.write_text("server: {workers: 2}\n")
        await watched.told()
        assert 2 == watched.workers


async def test_the_swap_of_a_link_is_told(tmp_path: Path) -> None:
    """A ConfigMap: config.yaml → ..data/config.yaml, ..data → ..1; an update swaps ..data."""
    for version in (1, 2, 3):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "config.yaml").write_text(f"server: {{workers: {version}}}\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    async with watching(tmp_path / "config.yaml") as watched:
        for version in (2, 3):
            (tmp_path / "..data_tmp").symlink_to(f"..{version}")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await watched.told()
            assert version == watched.workers
        # The file at the end of the links is watched where it lies.
        (tmp_path / "..3" / "config.yaml").write_text("server: {workers: 4}\n")
        await watched.told()
        assert 4 == watched.workers


async def test_a_document_is_read_when_its_writer_pauses(root: Path) -> None:
    async with watching(root) as watched:
        with root.open("w") as file:
            for line in ("server:\n", "  listen: 127.0.0.1:1\n", "  workers: 7\n", "  drain_seconds: 1\n"):
                file.write(line)
                file.flush()
                await asyncio.sleep(0.05)
        await watched.told()
        assert (7, []) == (watched.workers, watched.refused)


async def test_a_writer_that_never_pauses_is_not_waited_for_longer_than_a_second(root: Path) -> None:
    async def write() -> None:
        with root.open("a") as file:
            while True:
                file.write("# more\n")
                file.flush()
                await asyncio.sleep(0.03)

    async with watching(root) as watched:
        writing = asyncio.get_running_loop().create_task(write())
        assert DocumentChanged() == await watched.told()
        writing.cancel()
        await asyncio.wait([writing])


async def test_included_files_are_watched_also_new_ones_and_new_directories(root: Path) -> None:
    root.write_text("include: [conf.d/*.yaml]\n")
    async with watching(root) as watched:
        (root.parent / "conf.d").mkdir()
        (root.parent / "conf.d" / "1.yaml").write_text("server: {workers: 2}\n")
        await watched.told()
        assert 2 == watched.workers
        (root.parent / "conf.d" / "2.yaml").write_text("server: {drain_seconds: 2}\n")
        await watched.told()
        assert 2.0 == watched.loaded.config.server.drain_seconds
        (root.parent / "conf.d" / "1.yaml").unlink()
        await watched.told()
        assert 1 == watched.workers


async def test_the_mend_of_a_refused_document_may_come_through_its_own_include(root: Path) -> None:
    (root.parent / "conf.d").mkdir()
    (root.parent / "conf.d" / "1.yaml").write_text("server: {workers: none}\n")
    async with watching(root) as watched:
        root.write_text("include: [conf.d/1.yaml]\n")
        await watched.told()
        assert await watched.is_quiet(), "it is not told a second time"
        (root.parent / "conf.d" / "1.yaml").write_text("server: {workers: 5}\n")
        await watched.told()
        assert (5, 1) == (watched.workers, len(watched.refused))


async def test_a_rotated_secret_is_told_apart_from_the_document(root: Path) -> None:
    secrets = root.parent / "secrets"
    secrets.mkdir()
    (secrets / "hash").write_text("one\n")
    root.write_text("management: {admin_key_hash: '${file:secrets/hash}'}\n")
    async with watching(root) as watched:
        handle = watched.loaded.config.management.admin_key_hash
        assert handle is not None
        replace(secrets / "hash", "two\n")
        assert SecretsChanged((secrets / "hash",)) == await watched.told()
        assert "two" == handle.reveal()
        assert await watched.is_quiet()


async def test_a_file_in_an_ordinary_field_makes_a_new_document(root: Path) -> None:
    (root.parent / "count").write_text("1")
    root.write_text("server: {workers: '${file:count}'}\n")
    async with watching(root) as watched:
        (root.parent / "count").write_text("2")
        assert SecretsChanged((root.parent / "count",)) == await watched.told()
        assert DocumentChanged(interpolated=True) == await watched.told()
        assert 2 == watched.workers


async def test_a_document_that_lacked_a_secret_file_is_told_when_the_file_comes(root: Path) -> None:
    async with watching(root) as watched:
        root.write_text("management: {admin_key_hash: '${file:secrets/hash}'}\n")
        await watched.told()
        assert 1 == len(watched.refused)
        (root.parent / "secrets").mkdir()
        (root.parent / "secrets" / "hash").write_text("here\n")
        await watched.told()
        handle = watched.loaded.config.management.admin_key_hash
        assert handle is not None
        assert "here" == handle.reveal()


async def test_a_directory_that_is_made_anew_is_watched_again(tmp_path: Path) -> None:
    root = tmp_path / "etc" / "config.yaml"
    root.parent.mkdir()
    root.write_text("server: {workers: 1}\n")
    async with watching(root) as watched:
        root.unlink()
        root.parent.rmdir()
        await watched.told()
        root.parent.mkdir()
        root.write_text("server: {workers: 2}\n")
        await watched.told()
        assert 2 == watched.workers


async def test_without_notifications_it_looks_by_itself(
    root: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    def fail(*_paths: Path, **_options: object) -> AsyncIterator[None]:
        raise OSError(28, "No space left on device")  # what inotify says when its watches are used up

    monkeypatch.setattr(watch, "awatch", fail)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    with expect_log("cannot watch .*config.yaml .*No space left"):
        async with watching(root) as watched:
            root.write_text("server: {workers: 2}\n")
            await watched.told()
            assert 2 == watched.workers


async def test_writes_that_nothing_notifies_of_are_seen_at_the_next_look(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, when another machine writes."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(watch._Watched, "matters", lambda *_: False)
    async with watching(root) as watched:
        root.write_text("server: {workers: 2}\n")
        await watched.told()
        assert 2 == watched.workers


async def test_what_was_not_notified_of_is_seen_where_a_directory_is_never_quiet(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of an edit between the first look and the beginning of the watch.
    monkeypatch.setattr(watch._Watched, "matters", lambda *_: False)
    log = root.with_name("access.log")

    async def write() -> None:
        while True:
            log.write_text("x")
            await asyncio.sleep(0.005)

    async with watching(root) as watched:
        writing = asyncio.get_running_loop().create_task(write())
        try:
            await asyncio.sleep(watch.LOOK_SECONDS)
            replace(root, "server: {workers: 2}\n")
            assert DocumentChanged() == await watched.told()
        finally:
            writing.cancel()


async def test_cancelling_ends_the_watch(root: Path) -> None:
    watched = Watched(root)
    running = asyncio.get_running_loop().create_task(watched.run())
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, PATIENCE_SECONDS)


async def test_a_watcher_that_was_stopped_before_it_began_ends_at_once(root: Path) -> None:
    watched = Watched(root)
    watched.watcher.stop()
    await asyncio.wait_for(watched.run(), PATIENCE_SECONDS)


async def test_stopping_ends_a_wait_for_content_to_rest(root: Path) -> None:
    watched = Watched(root)
    root.write_text("server: {workers: 2}\n")
    running = asyncio.get_running_loop().create_task(watched.run())
    await asyncio.sleep(0.05)
    watched.watcher.stop()
    await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert 1 == watched.workers


def test_links_in_a_circle_are_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    points = set(watch._points(tmp_path / "a" / ".." / "c"))
    assert {tmp_path / "a", tmp_path / "b"} <= points
    with pytest.raises(ConfigFaults):
        load(tmp_path / "a", {})


def test_links_to_other_places_are_watched_on_both_ends(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "c.yaml").write_text("")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "c.yaml").symlink_to(tmp_path / "real" / "c.yaml")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    points = list(watch._points(tmp_path / "link" / ".." / "link" / "c.yaml"))
    assert [tmp_path / "link", tmp_path / "here" / "c.yaml", tmp_path / "real" / "c.yaml"] == points[-3:]
