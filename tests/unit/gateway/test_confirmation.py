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
from gateway import confirmation
from gateway.control import Apply
from management.editing.editor import ConfirmationPending, NothingPending, Reloaded
from tests.conftest import ExpectLog
from tests.gateway_process import until
from tests.unit.gateway.conftest import AUTHOR, GOOD, MORE, TWO, Gateway, LaterClock, MovableClock, Start, until_told


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def gateway(start: Start, clock: MovableClock, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    # How soon it is seen that the clock was moved.
    monkeypatch.setattr(confirmation, "_LOOK_SECONDS", 0.02)
    return start(clock)


WITHIN_SECONDS = 60.0
"""Time enough for what a test does before it moves the clock beyond."""


async def test_an_edit_that_is_confirmed_stays(gateway: Gateway, clock: MovableClock) -> None:
    before, began = gateway.revision, datetime.now(UTC)
    done = await gateway.commit(TWO, confirm_within_seconds=WITHIN_SECONDS)
    pending = gateway.editor.pending()
    assert pending is not None
    assert (done.revision, before, done.confirm_by, AUTHOR) == (
        pending.revision,
        pending.before,
        pending.confirm_by,
        pending.author,
    )
    assert began <= pending.confirm_by - timedelta(seconds=WITHIN_SECONDS) <= datetime.now(UTC)
    with pytest.raises(NothingPending):
        await gateway.editor.confirm(before, AUTHOR)
    with pytest.raises(ConfirmationPending):
        await gateway.commit(RemoveEntry("providers", "echo"))
    await gateway.editor.confirm(done.revision, AUTHOR)
    assert gateway.editor.pending() is None
    clock.ahead_seconds = WITHIN_SECONDS + 1
    await asyncio.sleep(0.2)
    assert done.revision == gateway.revision
    with pytest.raises(NothingPending):
        await gateway.editor.confirm(done.revision, AUTHOR)
    with pytest.raises(NothingPending):
        await gateway.editor.roll_back(AUTHOR)


async def test_an_edit_that_nobody_confirms_is_taken_back(
    gateway: Gateway, clock: MovableClock, expect_log: ExpectLog
) -> None:
    before = gateway.revision
    edit = MergePatch({"providers": [{"name": "a", "type": "echo"}, {"name": "b", "type": "echo"}]})
    with expect_log("is taken back, nobody has confirmed it in time"):
        done = await gateway.commit(edit, confirm_within_seconds=WITHIN_SECONDS)
        clock.ahead_seconds = WITHIN_SECONDS + 1
        await until(lambda: gateway.told(ConfigRolledBack))
        await until(lambda: gateway.editor.pending() is None)
    assert (GOOD, MORE) == (gateway.text, gateway.included)
    assert before == gateway.revision
    assert [ConfigRolledBack(revision=done.revision, restored=before, reason="unconfirmed")] == gateway.told(
        ConfigRolledBack
    )
    await until(lambda: Apply(before, "rollback") == gateway.others.asked[-1])
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


async def test_one_of_several_processes_takes_it_back(
    gateway: Gateway, start: Start, clock: MovableClock, expect_log: ExpectLog
) -> None:
    gateways = [gateway, start(clock), start(clock)]
    done = await gateway.commit(TWO, confirm_within_seconds=WITHIN_SECONDS)
    for each in gateways[1:]:
        await each.others.handlers[Apply](Apply(done.revision, "api"))  # type: ignore[misc]  # each task has its own handler
        assert each.editor.pending() == gateway.editor.pending()
    clock.ahead_seconds = WITHIN_SECONDS + 1
    with expect_log("is taken back"):
        await until(lambda: all(each.editor.pending() is None for each in gateways))
        await until(lambda: any(each.told(ConfigRolledBack) for each in gateways))
    assert 1 == sum(len(each.told(ConfigRolledBack)) for each in gateways)


async def test_an_edit_of_a_process_that_has_died_is_taken_back_by_the_next(
    gateway: Gateway, start: Start, clock: MovableClock, expect_log: ExpectLog
) -> None:
    await gateway.commit(TWO, confirm_within_seconds=WITHIN_SECONDS)
    await gateway.close()
    later = start(clock)
    assert ["echo", "two", "more"] == later.providers
    clock.ahead_seconds = WITHIN_SECONDS + 1
    with expect_log("is taken back"):
        await until(lambda: later.told(ConfigRolledBack))
    await until(lambda: later.editor.pending() is None)
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


async def test_what_was_changed_by_hand_meanwhile_is_not_taken_back(
    gateway: Gateway, clock: MovableClock, expect_log: ExpectLog
) -> None:
    await gateway.commit(TWO, confirm_within_seconds=WITHIN_SECONDS)
    by_hand = gateway.text + "# by hand\n"
    with expect_log("was changed while configuration .* waited to be confirmed"):
        gateway.write(by_hand)
        clock.ahead_seconds = WITHIN_SECONDS + 1
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
    gateway: Gateway, clock: MovableClock, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    key = gateway.beside("key")
    key.write_text("first")
    gateway.write(GOOD + "route_tests: []\nserver: {workers: '${file:workers}'}\n")
    gateway.beside("workers").write_text("1")
    assert isinstance(await gateway.editor.reload("api", AUTHOR), Reloaded)
    await gateway.commit(PutDocument(GOOD.encode()), confirm_within_seconds=WITHIN_SECONDS)
    # The document before refers to what is there no more.
    gateway.beside("workers").unlink()
    clock.ahead_seconds = WITHIN_SECONDS + 1
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
