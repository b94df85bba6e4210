"""Edits that wait to be confirmed: each is confirmed or taken back, whatever becomes of who made it."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from config.edit.edits import MergePatch, PutDocument, RemoveEntry
from config.edit.errors import ReadOnlyDocument
from config.edit.writer import LockedDraft
from core.events import ConfigRolledBack, RequestFailed
from core.identity import Author
from gateway.control import Apply
from management.editing.editor import ConfirmationPending, NothingPending, Reloaded
from tests.conftest import ExpectLog
from tests.gateway_process import until
from tests.unit.gateway.conftest import AUTHOR, GOOD, MORE, TWO, Gateway, LaterClock, Start, until_told


async def test_an_edit_that_is_confirmed_stays(gateway: Gateway) -> None:
    before, began = gateway.revision, datetime.now(UTC)
    # The first edit makes the database, which takes its time.
    done = await gateway.commit(TWO, confirm_within_seconds=2)
    pending = gateway.editor.pending()
    assert pending is not None
    assert (done.revision, before, done.confirm_by, AUTHOR) == (
        pending.revision,
        pending.before,
        pending.confirm_by,
        pending.author,
    )
    assert began <= pending.confirm_by - timedelta(seconds=2) <= datetime.now(UTC)
    with pytest.raises(NothingPending):
        await gateway.editor.confirm(before, AUTHOR)
    with pytest.raises(ConfirmationPending):
        await gateway.commit(RemoveEntry("providers", "echo"))
    await gateway.editor.confirm(done.revision, AUTHOR)
    assert gateway.editor.pending() is None
    await asyncio.sleep((pending.confirm_by - datetime.now(UTC)).total_seconds() + 0.2)
    assert done.revision == gateway.revision
    with pytest.raises(NothingPending):
        await gateway.editor.confirm(done.revision, AUTHOR)
    with pytest.raises(NothingPending):
        await gateway.editor.roll_back(AUTHOR)


async def test_an_edit_that_nobody_confirms_is_taken_back(gateway: Gateway, expect_log: ExpectLog) -> None:
    before = gateway.revision
    edit = MergePatch({"providers": [{"name": "a", "type": "echo"}, {"name": "b", "type": "echo"}]})
    with expect_log("is taken back, nobody has confirmed it in time"):
        done = await gateway.commit(edit, confirm_within_seconds=0.2)
        await until(lambda: gateway.told(ConfigRolledBack))
        await until(lambda: gateway.editor.pending() is None)
    assert (GOOD, MORE) == (gateway.text, gateway.included)
    assert before == gateway.revision
    assert [ConfigRolledBack(revision=done.revision, restored=before, reason="unconfirmed")] == gateway.told(
        ConfigRolledBack
    )
    assert Apply(before, "rollback") == gateway.others.asked[-1]
    await until(lambda: not gateway.waits)
    await until_told([("admin_key", "config.rollback")], gateway.audited)
    await until_told(["start", "api", "rollback"], gateway.triggers)


async def test_an_edit_is_taken_back_when_somebody_asks(gateway: Gateway) -> None:
    before = gateway.revision
    done = await gateway.commit(TWO, confirm_within_seconds=60.0)
    undone = await gateway.editor.roll_back(Author("session", "eve"))
    assert (before, True, before) == (undone.revision, undone.changed, gateway.revision)
    assert [ConfigRolledBack(revision=done.revision, restored=before, reason="asked")] == gateway.told(ConfigRolledBack)
    assert "session eve" == (await gateway.kept())[-1].author
    # Who asks by the API is audited there.
    assert [] == await gateway.audited()


async def test_an_edit_that_lets_requests_fail_is_taken_back_at_once(gateway: Gateway, expect_log: ExpectLog) -> None:
    before = gateway.revision
    done = await gateway.commit(TWO, confirm_within_seconds=60.0, max_failure_increase=0.5)
    everything = dict.fromkeys(RequestFailed.__struct_fields__)
    failed = RequestFailed(**{**everything, "status": 502, "revision": done.revision, "error_code": "x", "attempts": 1})  # type: ignore[arg-type]  # any members
    with expect_log("more requests failed than before"):
        for _ in range(50):
            # What is not of this test's interest is told nobody else.
            gateway.editor._failures.failed(failed)
        await until(lambda: gateway.told(ConfigRolledBack))
    assert before == gateway.revision
    assert ["failures"] == [event.reason for event in gateway.told(ConfigRolledBack)]


async def test_one_of_several_processes_takes_it_back(start: Start, expect_log: ExpectLog) -> None:
    gateways = [start() for _ in range(3)]
    # On a slow machine the others must hear of it in time.
    done = await gateways[0].commit(TWO, confirm_within_seconds=3)
    for each in gateways[1:]:
        await each.others.handlers[Apply](Apply(done.revision, "api"))  # type: ignore[misc]  # each task has its own handler
        assert each.editor.pending() == gateways[0].editor.pending()
    with expect_log("is taken back"):
        await until(lambda: all(each.editor.pending() is None for each in gateways))
        await until(lambda: any(each.told(ConfigRolledBack) for each in gateways))
    assert 1 == sum(len(each.told(ConfigRolledBack)) for each in gateways)


async def test_an_edit_of_a_process_that_has_died_is_taken_back_by_the_next(
    gateway: Gateway, start: Start, expect_log: ExpectLog
) -> None:
    await gateway.commit(TWO, confirm_within_seconds=1.5)
    await gateway.close()
    later = start()
    assert ["echo", "two", "more"] == later.providers
    with expect_log("is taken back"):
        await until(lambda: later.told(ConfigRolledBack))
    assert GOOD == gateway.text


async def test_an_edit_that_is_overdue_at_the_start_is_never_put_in_force(
    gateway: Gateway, start: Start, expect_log: ExpectLog
) -> None:
    before = gateway.revision
    done = await gateway.commit(TWO, confirm_within_seconds=600.0)
    await gateway.close()
    with expect_log("is taken back"):
        later = start(LaterClock())
    assert (GOOD, ["echo", "more"]) == (gateway.text, later.providers)
    await until(lambda: later.told(ConfigRolledBack))
    assert [ConfigRolledBack(revision=done.revision, restored=before, reason="unconfirmed")] == later.told(
        ConfigRolledBack
    )
    await until_told([("admin_key", "config.rollback")], later.audited)


async def test_what_was_changed_by_hand_meanwhile_is_not_taken_back(gateway: Gateway, expect_log: ExpectLog) -> None:
    await gateway.commit(TWO, confirm_within_seconds=2)
    by_hand = gateway.text + "# by hand\n"
    gateway.write(by_hand)
    with expect_log("was changed while configuration .* waited to be confirmed"):
        await until(lambda: gateway.editor.pending() is None)
    assert by_hand == gateway.text
    assert [] == gateway.told(ConfigRolledBack)
    assert (await gateway.commit(RemoveEntry("providers", "two"))).changed


async def test_an_edit_that_could_not_be_written_is_not_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: LockedDraft) -> tuple[str, ...]:
        raise ReadOnlyDocument("config.yaml cannot be replaced")

    with monkeypatch.context() as patched:
        patched.setattr(LockedDraft, "write", refuse)
        with pytest.raises(ReadOnlyDocument):
            await gateway.commit(TWO, confirm_within_seconds=60.0)
    assert not gateway.waits
    assert (await gateway.commit(TWO)).changed


async def test_what_cannot_be_taken_back_is_tried_again(
    gateway: Gateway, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    key = gateway.beside("key")
    key.write_text("first")
    gateway.write(GOOD + "route_tests: []\nserver: {workers: '${file:workers}'}\n")
    gateway.beside("workers").write_text("1")
    assert isinstance(await gateway.editor.reload("api", AUTHOR), Reloaded)
    await gateway.commit(PutDocument(GOOD.encode()), confirm_within_seconds=2)
    # The document before refers to what is there no more.
    gateway.beside("workers").unlink()
    with expect_log("cannot be, and is tried again|is taken back", logging.WARNING):
        await until(lambda: any("is tried again" in message for message in caplog.messages))
        assert gateway.editor.pending() is not None
        gateway.beside("workers").write_text("1")
        await until(lambda: gateway.told(ConfigRolledBack))


async def test_a_confirmation_that_cannot_be_read_stops_nothing(
    gateway: Gateway, start: Start, expect_log: ExpectLog
) -> None:
    gateway.beside(".config.yaml.confirm").write_text("broken")
    with expect_log("was changed and cannot be read", logging.ERROR):
        gateway = start()
        assert (await gateway.commit(TWO)).changed
        await asyncio.sleep(0.1)
