"""What was put in force is kept, with who has brought it there."""

import asyncio
from types import SimpleNamespace

import pytest

from config.edit.edits import MergePatch, PutFiles, RemoveEntry
from gateway import revisions as revisions_module
from gateway.control import Apply
from management.editing.editor import Reloaded
from tests.conftest import ExpectLog
from tests.unit.gateway.conftest import GOOD, MORE, TWO, Gateway, Start, until_told


async def test_there_is_no_database_before_the_first_edit_and_then_what_was_before_it_is_kept_too(
    gateway: Gateway,
) -> None:
    first = gateway.revision
    assert not gateway.stores
    done = await gateway.commit(TWO, comment="a second one")
    assert [(first, "file", "start", None), (done.revision, "admin_key admin-key", "api", "a second one")] == [
        (each.revision, each.author, each.trigger, each.comment) for each in await gateway.kept()
    ]
    found = await gateway.resources.stores.revisions.get((await gateway.kept())[0].id)
    assert found is not None
    assert (("config.yaml", GOOD.encode()), ("conf.d/more.yaml", MORE.encode())) == found[1]


async def test_an_earlier_revision_is_put_back_with_all_its_files(gateway: Gateway) -> None:
    first = gateway.revision
    await gateway.commit(MergePatch({"providers": [{"name": "a", "type": "echo"}, {"name": "b", "type": "echo"}]}))
    assert MORE != gateway.included
    stored = await gateway.resources.stores.revisions.get((await gateway.kept())[0].id)
    assert stored is not None
    done = await gateway.commit(PutFiles(stored[1]), trigger="restore")
    assert (GOOD, MORE) == (gateway.text, gateway.included)
    assert first == done.revision == gateway.revision
    assert ["start", "api", "restore"] == [each.trigger for each in await gateway.kept()]


async def test_an_edit_is_kept_in_the_place_of_the_files_that_it_was_made_of_whichever_worker_has_made_them(
    gateway: Gateway, start: Start
) -> None:
    other, first = start(), gateway.revision
    made = await gateway.commit(TWO)
    # Here nothing of it has come yet.
    assert first == other.revision
    again = await other.commit(RemoveEntry("providers", "echo"))
    # What is in force here takes the place of what is in force there.
    stored = await gateway.resources.stores.revisions.get((await gateway.kept())[1].id)
    assert stored is not None
    await gateway.commit(PutFiles(stored[1]), trigger="restore")
    assert [Apply(made.revision, "api"), Apply(made.revision, "restore")] == gateway.others.asked
    assert [
        (first, None, "start"),
        (made.revision, first, "api"),
        (again.revision, made.revision, "api"),
        (made.revision, again.revision, "restore"),
    ] == [(each.revision, each.before, each.trigger) for each in await gateway.kept()]
    times = [each.at for each in await gateway.kept()]
    assert sorted(set(times)) == times


async def test_of_two_workers_the_first_of_which_is_slow_both_edits_are_in_their_order(
    gateway: Gateway, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, first = start(), gateway.revision
    stores, waits = gateway.resources.stores, asyncio.Event()
    prepare = stores.prepare

    async def prepare_late() -> None:
        await waits.wait()
        await prepare()

    monkeypatch.setattr(stores, "prepare", prepare_late)
    with monkeypatch.context() as patch:
        patch.setattr(revisions_module, "SECONDS_FOR_STORING", 0.1)
        made = await gateway.commit(TWO)
    again = await other.commit(RemoveEntry("providers", "echo"))
    assert [first, again.revision] == [each.revision for each in await other.kept()]
    waits.set()
    await gateway.revisions.close()
    assert [first, made.revision, again.revision] == [each.revision for each in await other.kept()]


async def test_a_change_of_the_file_is_kept_and_audited_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions_module, "_SETTLED_SECONDS", 0.05)
    first = gateway.revision
    gateway.write(GOOD.replace("echo,", "changed,"))
    assert isinstance(await gateway.reloader.reload("watch"), Reloaded)
    await until_told(["start", "watch"], gateway.triggers)
    assert [(first, "file", "start"), (gateway.revision, "file", "watch")] == [
        (each.revision, each.author, each.trigger) for each in await gateway.kept()
    ]
    gateway.write(GOOD)
    await gateway.reloader.reload("signal")
    await until_told([("signal", "config.apply"), ("file", "config.apply")], gateway.audited)
    await until_told(["start", "watch", "signal"], gateway.triggers)
    assert "signal SIGHUP" == (await gateway.kept())[-1].author


async def test_what_another_worker_has_written_is_not_kept_as_a_change_of_the_file(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_have_told = asyncio.Event()

    async def settle(_seconds: float) -> None:
        await others_have_told.wait()

    monkeypatch.setattr(revisions_module, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": settle}))
    gateway.write(GOOD.replace("echo,", "changed,"))
    # The watch is quicker than the other worker's word.
    outcome = await gateway.reloader.reload("watch")
    assert isinstance(outcome, Reloaded)
    await gateway.others.handlers[Apply](Apply(outcome.revision, "api"))  # type: ignore[misc]  # each task has its own handler
    others_have_told.set()
    await asyncio.sleep(0.2)
    assert not gateway.stores
    # Put back by hand later, the same document is a change of the file.
    gateway.write(GOOD)
    await gateway.reloader.reload("watch")
    gateway.write(GOOD.replace("echo,", "changed,"))
    await gateway.reloader.reload("watch")
    await until_told(outcome.revision, gateway.newest)


async def test_what_was_changed_while_no_gateway_ran_is_kept_at_the_next_start(
    gateway: Gateway, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions_module, "_SETTLED_SECONDS", 0.01)
    await gateway.commit(TWO)
    await gateway.close()
    gateway.write(GOOD + "# by hand\n")
    later = start()
    await until_told(["start", "api", "start"], later.triggers)
    await until_told([("file", "config.apply")], later.audited)


async def test_an_edit_does_not_wait_for_a_database_that_is_away(
    gateway: Gateway, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions_module, "_FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(revisions_module, "SECONDS_FOR_STORING", 0.1)
    # Where the database should be made is a file.
    gateway.beside("data").write_text("")
    with expect_log("are kept when the database can be used again|sluice.db"):
        first = await gateway.commit(TWO)
        second = await gateway.commit(RemoveEntry("providers", "two"))
        gateway.beside("data").unlink()
        await until_told(second.revision, gateway.newest)
    assert [first.revision, second.revision] == [each.revision for each in await gateway.kept()][1:]
