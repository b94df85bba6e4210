"""Faults that one document hides behind others, and faults of the gateway itself while it reloads."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.faults import ConfigFaults
from core.events import ConfigRejected, Event
from gateway import reload as reload_module
from gateway.build import load_and_build
from gateway.reload import Reloader
from gateway.resources import Resources
from management.dependencies import Refused, Reloaded
from tests.conftest import ExpectLog

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
