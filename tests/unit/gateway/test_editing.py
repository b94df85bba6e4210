"""The editor in one process: what it writes and puts in force, here and on other workers."""

import asyncio
import logging

import pytest

from config.edit.edits import Edit, MergePatch, PutDocument, PutEntry, PutFiles, RemoveEntry
from config.edit.errors import EditRefused, EntryExists, EntryMissing, Stale, Unreadable
from config.faults import ConfigFaults
from core.events import ConfigApplied, ConfigRejected
from gateway.control import Answered, Apply, Reload
from gateway.others import TaskFailed
from management.editing.editor import Change, Committed, Files, Refused, Reloaded
from management.secrets.compared import GuardRefused
from tests.conftest import ExpectLog
from tests.planted import place_of_secrets, planted
from tests.unit.gateway.conftest import AUTHOR, GOOD, MORE, TWO, Gateway, Start


async def test_an_edit_is_on_the_disk_and_in_force_and_the_others_are_asked(gateway: Gateway) -> None:
    before = await gateway.editor.read()
    assert (gateway.revision, gateway.revision) == (before.revision, before.in_force)
    assert [GOOD.encode(), MORE.encode()] == [file.data for file in before.files]
    done = await gateway.commit(TWO)
    assert (True, ("config.yaml",), True, None) == (done.changed, done.files, done.everywhere, done.confirm_by)
    assert "{name: echo, type: echo}, {name: two, type: echo}]  # ours" in gateway.text
    assert ["echo", "two", "more"] == gateway.providers
    assert done.revision == gateway.revision == (await gateway.editor.read()).revision
    assert [Apply(done.revision, "api")] == gateway.others.asked
    assert ["start", "api"] == [event.trigger for event in gateway.told(ConfigApplied)]


async def test_an_edit_of_what_it_is_already_changes_nothing(gateway: Gateway) -> None:
    written = gateway.path.stat().st_mtime_ns
    done = await gateway.commit(PutEntry("providers", "echo", {"type": "echo"}))
    assert (False, (), gateway.revision, written) == (
        done.changed,
        done.files,
        done.revision,
        gateway.path.stat().st_mtime_ns,
    )
    assert [] == gateway.others.asked


async def test_a_worker_that_does_not_answer_is_told_of(gateway: Gateway) -> None:
    gateway.others.answer = Answered(1, silent=1)
    assert not (await gateway.commit(TWO)).everywhere
    reloaded = await gateway.editor.reload("api", AUTHOR)
    assert isinstance(reloaded, Reloaded)
    assert not reloaded.everywhere


async def test_an_edit_may_be_made_of_the_files_once_they_are_locked(gateway: Gateway) -> None:
    def edit(files: Files) -> Change:
        return Change(PutDocument(files[0].data + b"# a remark\n"))

    done = await gateway.editor.commit(gateway.revision, edit, AUTHOR)
    assert GOOD.encode() + b"# a remark\n" == done.document[0].data


@pytest.mark.parametrize(
    ("edit", "raised"),
    [
        (PutEntry("providers", "bad", {"type": "ecko"}), ConfigFaults),
        (PutDocument(b"providers: [\n"), ConfigFaults),
        (PutDocument(b"{}\n", "elsewhere.yaml"), EntryMissing),
        (PutEntry("providers", "echo", {"type": "echo"}, must_exist=False), EntryExists),
        (RemoveEntry("providers", "nobody"), EntryMissing),
        (MergePatch({"management": {"allowed_references": ["env:*"]}}), GuardRefused),
        (PutFiles((("config.yaml", b"{}\n"), ("conf.d/gone.yaml", b"{}\n"))), EditRefused),
        (PutFiles((("other.yaml", b"{}\n"),)), EditRefused),
    ],
)
async def test_what_cannot_be_or_may_not_be_leaves_all_as_it_was(
    gateway: Gateway, edit: Edit, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await gateway.commit(edit, confirm_within_seconds=60.0)
    assert (GOOD, ["echo", "more"]) == (gateway.text, gateway.providers)
    assert gateway.editor.pending() is None
    assert not gateway.waits
    rejected = gateway.told(ConfigRejected)
    assert [("api", False)] * (raised is ConfigFaults) == [(each.trigger, each.on_disk) for each in rejected]
    # Nothing that is on the disk was refused.
    assert isinstance(gateway.reloader.last[2], Reloaded) if gateway.reloader.last else False


async def test_what_waits_behind_another_document_is_stale(gateway: Gateway) -> None:
    before = gateway.revision
    done = await gateway.commit(TWO)
    with pytest.raises(Stale) as stale:
        await gateway.editor.commit(before, RemoveEntry("providers", "echo"), AUTHOR)
    assert done.revision == stale.value.present


async def test_of_edits_at_the_same_time_one_is_made(gateway: Gateway) -> None:
    revision = gateway.revision
    made = await asyncio.gather(
        *(gateway.editor.commit(revision, PutEntry("providers", f"p{n}", {"type": "echo"}), AUTHOR) for n in range(5)),
        return_exceptions=True,
    )
    assert 1 == sum(isinstance(each, Committed) for each in made)
    assert 4 == sum(isinstance(each, Stale) for each in made)


async def test_a_document_that_was_refused_is_mended_by_an_edit(gateway: Gateway, expect_log: ExpectLog) -> None:
    gateway.write(GOOD + "bogus: 1\n")
    with expect_log("configuration refused|stays", logging.ERROR):
        assert isinstance(await gateway.editor.reload("api", AUTHOR), Refused)
    found = await gateway.editor.read()
    assert found.revision != found.in_force
    with pytest.raises(ConfigFaults):
        await gateway.commit(TWO)
    done = await gateway.commit(MergePatch({"bogus": None}))
    assert (GOOD, True) == (gateway.text, done.changed)
    assert gateway.revision == done.revision


async def test_files_that_cannot_be_read_are_left_out_and_nothing_is_edited(gateway: Gateway) -> None:
    gateway.path.unlink()
    found = await gateway.editor.read()
    assert (None, gateway.revision, ()) == (found.revision, found.in_force, found.files)
    with pytest.raises(Unreadable):
        await gateway.editor.commit(gateway.revision, TWO, AUTHOR)
    trial = await gateway.editor.try_out(None)
    assert "there is no such file" in trial.faults[0].message


async def test_a_trial_tells_what_would_become_and_does_nothing(gateway: Gateway) -> None:
    revision = gateway.revision
    trial = await gateway.editor.try_out(
        MergePatch({"server": {"workers": 3}, "providers": [{"name": "a", "type": "echo"}]})
    )
    assert () == trial.faults
    assert ("server.workers",) == trial.restart
    assert "-providers: [{name: echo, type: echo}]" in trial.diff
    assert (GOOD, revision) == (gateway.text, gateway.revision)
    refused = await gateway.editor.try_out(PutEntry("providers", "bad", {"type": "ecko"}))
    assert [("providers", 1, "type")] == [fault.path for fault in refused.faults]
    guarded = await gateway.editor.try_out(MergePatch({"server": {"allow_private_targets": True}}))
    assert [("server", "allow_private_targets")] == [fault.path for fault in guarded.faults]
    with pytest.raises(EntryMissing):
        await gateway.editor.try_out(RemoveEntry("providers", "nobody"))


async def test_a_trial_of_the_disk_tells_what_a_reload_would_do(gateway: Gateway) -> None:
    assert ((), "") == ((trial := await gateway.editor.try_out(None)).faults, trial.diff)
    gateway.write(GOOD + "bogus: 1\n")
    trial = await gateway.editor.try_out(None)
    assert "+bogus: " in trial.diff
    assert [("bogus",)] == [fault.path for fault in trial.faults]


async def test_the_difference_shows_no_secret(gateway: Gateway) -> None:
    place_of_secrets(gateway.path)
    secret = planted("provider-key")
    entry = {"type": "openai", "credentials": [{"name": "main", "api_key": secret}]}
    trial = await gateway.editor.try_out(Change(PutEntry("providers", "openai", entry)))  # type: ignore[arg-type]  # any members
    assert "${kept}" in trial.diff
    assert secret not in trial.diff


async def test_an_address_that_the_api_sets_is_kept_from_private_networks(gateway: Gateway) -> None:
    entry = {"type": "openai-compatible", "base_url": "https://api.example.com/v1"}
    done = await gateway.commit(PutEntry("providers", "remote", entry))  # type: ignore[arg-type]  # any members
    assert "allow_private: false" in gateway.text
    assert any("allow_private" in notice for notice in done.notices)


# What other workers ask for.


async def test_a_worker_follows_what_another_has_written_and_builds_nothing_twice(
    gateway: Gateway, start: Start
) -> None:
    other = start()
    done = await gateway.commit(TWO, trigger="restore")
    for _ in range(2):
        await other.others.handlers[Apply](Apply(done.revision, "restore"))  # type: ignore[misc]  # each task has its own handler
    assert ["echo", "two", "more"] == other.providers
    assert ["start", "restore"] == [event.trigger for event in other.told(ConfigApplied)]
    # The watch sees the files as well; told to reload, it builds all the same.
    await other.reloader.reload("watch", unless_in_force=True)
    assert 2 == len(other.told(ConfigApplied))
    await other.others.handlers[Reload](Reload("api"))  # type: ignore[misc]  # each task has its own handler
    assert 3 == len(other.told(ConfigApplied))


async def test_a_worker_that_cannot_follow_says_so(gateway: Gateway, expect_log: ExpectLog) -> None:
    gateway.write("bogus: 1\n")
    with expect_log("configuration refused|stays", logging.ERROR), pytest.raises(TaskFailed):
        await gateway.others.handlers[Apply](Apply("0" * 64, "api"))  # type: ignore[misc]  # each task has its own handler


@pytest.mark.parametrize(
    "content",
    ["# a remark\nroot:$y$hash:x: 1\n", "not a mapping\n", "twice: 1\ntwice: 2\n", "\0"],
    ids=["of another program", "no document", "a fault with its text", "no text"],
)
async def test_no_file_is_read_that_the_api_names_anew(gateway: Gateway, content: str) -> None:
    (gateway.path.parent / "other.txt").write_text(content)
    revisions = set()
    for name in ("other.txt", "other.*", "missing.txt", str(gateway.path.parent / "other.txt"), "/proc/self/environ"):
        edit = MergePatch({"include": [name]})
        trial = await gateway.editor.try_out(edit)
        assert [("include", 0)] == [fault.path for fault in trial.faults]
        assert "" == trial.diff
        revisions.add(trial.revision)
        with pytest.raises(GuardRefused, match="names a file"):
            await gateway.commit(edit)
    # It is a hash of what was read.
    assert 1 == len(revisions)
