"""Faults that one document hides behind others, and faults of the gateway itself while it reloads."""

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.faults import ConfigFaults
from core.events import ConfigApplied, ConfigRejected, Event
from gateway import reload as reload_module
from gateway.build import load_and_build
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.workers import LAST_GOOD
from management.editing.editor import Refused, Reloaded
from tests.conftest import ExpectLog
from tests.gateway_process import until

GOOD = "providers: [{name: echo, type: echo}]\n"


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources({})
    yield made
    await made.close()


async def test_an_unknown_key_hides_no_other_fault(tmp_path: Path, resources: Resources) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "provders: []\n"
        "management: {admin_key_hash: nope}\n"
        "providers: [{name: a, type: ecko}]\n"
        "tokens: [{name: t, sha256: abc}]\n"
        "routes: [{name: r, strategy: best, targets: [zz/x], retries: 3}]\n"
    )
    with pytest.raises(ConfigFaults) as refused:
        load_and_build(path, resources)
    assert [
        (1, ("provders",)),
        (2, ("management", "admin_key_hash")),
        (3, ("providers", 0, "type")),
        (4, ("tokens", 0, "sha256")),
        (5, ("routes", 0, "strategy")),
        (5, ("routes", 0, "targets", 0)),
        (5, ("routes", 0, "retries")),
    ] == [(fault.line, fault.path) for fault in refused.value.faults]


async def test_a_fault_of_the_gateway_refuses_one_document_and_not_the_next(
    tmp_path: Path, resources: Resources, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    reloader = Reloader(path, resources)
    first = reloader.start()
    told: list[Event] = []
    resources.events.subscribe(told.append)

    def broken(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patched, expect_log("could not be built|configuration refused|stays", logging.ERROR):
        patched.setattr(reload_module, "load_and_build", broken)
        path.write_text(GOOD + "# edited\n")
        outcome = await reloader.reload("watch")
    assert isinstance(outcome, Refused)
    assert first is reloader.current()
    (rejected,) = [event for event in told if isinstance(event, ConfigRejected)]
    assert "RuntimeError" in rejected.faults[0]

    again = await reloader.reload("watch")
    assert isinstance(again, Reloaded)
    assert again.changed


async def test_the_undoing_of_a_refused_edit_is_acknowledged(
    tmp_path: Path, resources: Resources, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sluice.config")
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    reloader = Reloader(path, resources)
    reloader.start()
    told: list[Event] = []
    resources.events.subscribe(told.append)
    path.write_text(GOOD + "bogus: 1\n")
    with expect_log("configuration refused|stays", logging.ERROR):
        await reloader.reload("watch")
    path.write_text(GOOD)
    outcome = await reloader.reload("watch")
    assert isinstance(outcome, Reloaded)
    assert not outcome.changed
    assert isinstance(told[-1], ConfigApplied)
    assert f"configuration {outcome.revision[:12]} is in force again" in caplog.text
    assert reloader.last is not None
    assert outcome is reloader.last[2]


async def test_the_include_of_a_document_whose_route_tests_fail_is_watched(
    tmp_path: Path, resources: Resources, expect_log: ExpectLog
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    reloader = Reloader(path, resources)
    reloader.start()
    (tmp_path / "more.yaml").write_text("route_tests: [{request: {model: echo/x}, expect: {provider: other}}]\n")
    path.write_text(GOOD + "include: [more.yaml]\n")
    watching = resources.background.spawn(reloader.watch(), "watch")
    with expect_log("configuration refused|stays", logging.ERROR):
        await until(lambda: reloader.last is not None and isinstance(reloader.last[2], Refused))
    (tmp_path / "more.yaml").write_text("route_tests: [{request: {model: echo/x}, expect: {provider: echo}}]\n")
    await until(lambda: reloader.last is not None and isinstance(reloader.last[2], Reloaded))
    watching.cancel()


async def test_what_waits_for_a_restart_is_told_once_and_not_when_it_is_undone(
    tmp_path: Path, resources: Resources, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    reloader = Reloader(path, resources)
    reloader.start()
    edits = ("server: {listen: '127.0.0.1:1'}\n", "server: {listen: '127.0.0.1:1', drain_seconds: 3}\n", "")
    with expect_log("`server.listen` has changed"):
        for edit in edits:
            path.write_text(GOOD + edit)
            assert isinstance(await reloader.reload("watch"), Reloaded)
    assert 1 == caplog.text.count("`server.listen` has changed")


@pytest.fixture
async def worker_resources(tmp_path: Path) -> AsyncIterator[Resources]:
    made = Resources({LAST_GOOD: str(tmp_path / "last-good")})
    yield made
    await made.close()


async def test_a_worker_starts_from_the_last_good_document_where_its_own_is_refused(
    tmp_path: Path, worker_resources: Resources, expect_log: ExpectLog
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    Reloader(path, worker_resources).start()
    path.write_text(GOOD + "# second\n")
    second = Reloader(path, worker_resources)
    revision = second.start().revision
    for bad in ("bogus: 1\n", ""):
        path.write_text(bad)
        late = Reloader(path, worker_resources)
        with expect_log("configuration refused|stays", logging.ERROR):
            assert revision == late.start().revision
        assert late.last is not None
        assert isinstance(late.last[2], Refused)


async def test_what_a_reload_puts_in_force_is_kept_for_later_workers(
    tmp_path: Path, worker_resources: Resources, expect_log: ExpectLog
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    first = Reloader(path, worker_resources)
    first.start()
    path.write_text(GOOD + "# second\n")
    outcome = await first.reload("watch")
    assert isinstance(outcome, Reloaded)
    path.unlink()
    with expect_log("configuration refused|stays", logging.ERROR):
        assert outcome.revision == Reloader(path, worker_resources).start().revision


async def test_a_last_good_document_that_lacks_its_secret_now_is_no_start(
    tmp_path: Path, worker_resources: Resources, expect_log: ExpectLog
) -> None:
    path = tmp_path / "config.yaml"
    (tmp_path / "level").write_text("info")
    path.write_text(GOOD + "telemetry: {log_level: '${file:level}'}\n")
    Reloader(path, worker_resources).start()
    (tmp_path / "level").write_text("loud")
    worker_resources.secrets.files.refresh()
    with expect_log("the last good configuration is lost", logging.ERROR), pytest.raises(ConfigFaults):
        Reloader(path, worker_resources).start()


async def test_a_copy_that_cannot_be_kept_is_told_and_stops_nothing(tmp_path: Path, expect_log: ExpectLog) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    resources = Resources({LAST_GOOD: str(tmp_path / "gone" / "last-good")})
    with expect_log(f"no copy of the configuration .*{os.strerror(2)}"):
        Reloader(path, resources).start()
    await resources.close()
