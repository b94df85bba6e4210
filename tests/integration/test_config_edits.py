"""Edits by the API of running gateways: none is lost or halved, and each is in force on all workers, or taken back."""

import asyncio
import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import ADMIN_KEY, Answer, Gateway, document, gateway, put_text, until

CONFIG = """
include: [conf.d/*.yaml]
server: {workers: WORKERS}
providers: [{name: echo, type: echo}]
routes: [{name: probe, match: {model: probe}, targets: [echo/first], retry: {attempts: 1}}]
"""
INCLUDED = "model_aliases: [{from: other, to: echo/first}]\n"


@contextmanager
def running(place: Path, workers: int = 1, *, again: bool = False) -> Iterator[Gateway]:
    """A gateway; ``again``: on the files that another has left there."""
    if not again:
        (place / "conf.d").mkdir(parents=True)
        (place / "conf.d/more.yaml").write_text(INCLUDED)
    text = document(CONFIG.replace("WORKERS", str(workers)))
    with gateway(text, place, config=place / "config.yaml" if again else None) as found:
        _await_workers(found, workers)
        yield found


def _await_workers(found: Gateway, workers: int) -> None:
    deadline = time.monotonic() + 60
    while workers > 1 and found.err.count("listening on") < workers + 1:
        assert time.monotonic() < deadline, found.err
        time.sleep(0.02)


def manage(found: Gateway, method: str, path: str, body: object = None, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return found.request(method, f"/api/v1{path}", body, fields, key=ADMIN_KEY)


def patch(found: Gateway, members: dict[str, Any], revision: str | None = None, path: str = "/config") -> Answer:
    """A merge patch, of the document as it is where no ``revision`` is given."""
    etag = f'"{revision}"' if revision is not None else manage(found, "GET", "/config").headers["etag"]
    method, body = ("PATCH", members) if path == "/config" else ("POST", {"patch": members})
    return manage(found, method, path, body, if_match=etag)


def aimed(target: str) -> dict[str, Any]:
    route = {"name": "probe", "match": {"model": "probe"}, "targets": [target], "retry": {"attempts": 1}}
    return {"routes": [route]}


def targets(found: Gateway, count: int = 16) -> set[str]:
    """Where requests go, whichever worker takes them."""
    with ThreadPoolExecutor(8) as threads:
        return {each.headers["x-sluice-target"] for each in threads.map(lambda _: found.chat("probe"), range(count))}


class Traces:
    """What is remembered of the edits of one gateway since this was made."""

    def __init__(self, found: Gateway) -> None:
        self._found = found
        found.settle()
        self._revisions = self._list("/config/revisions")
        self._entries = self._list("/audit")
        self._taken_back = found.err.count("is taken back")

    def _list(self, path: str) -> list[dict[str, Any]]:
        return list(manage(self._found, "GET", f"{path}?limit=1000").json()["data"])

    @property
    def triggers(self) -> list[str]:
        """Those of the revisions, oldest first."""
        found = self._list("/config/revisions")
        return [each["trigger"] for each in reversed(found[: len(found) - len(self._revisions)])]

    def audited(self, action: str) -> int:
        found = self._list("/audit")
        return sum(entry["action"] == action for entry in found[: len(found) - len(self._entries)])

    @property
    def taken_back(self) -> int:
        return self._found.err.count("is taken back") - self._taken_back


@pytest.fixture(scope="module", params=[1, 2])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of one worker, and one of two."""
    with running(tmp_path_factory.mktemp("edited"), request.param) as found:
        found.expect_log("is taken back, (nobody has confirmed it in time|more requests failed than before)")
        yield found


@pytest.fixture
def edited(shared: Gateway) -> Gateway:
    """The same, with the same routes for each test."""
    assert 200 == patch(shared, aimed("echo/zero")).status
    assert 200 == patch(shared, aimed("echo/first")).status
    return shared


@pytest.fixture
def traces(edited: Gateway) -> Traces:
    return Traces(edited)


def test_of_edits_at_the_same_time_each_is_made_once_or_refused(edited: Gateway, traces: Traces) -> None:
    first = manage(edited, "GET", "/config/document")
    statuses: list[int] = []

    def edit(number: int) -> None:
        found = first
        while True:
            text = found.body + b"# edit %d\n" % number
            answer = manage(edited, "PUT", "/config/document", text, if_match=found.headers["etag"])
            statuses.append(answer.status)
            if answer.status == 200:
                return
            assert (412, "config_error-stale") == (answer.status, answer.code)
            found = manage(edited, "GET", "/config/document")

    # All begin with the same document.
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(edit, range(20)))
    made = re.findall(rb"# edit (\d+)", edited.config.read_bytes())
    assert sorted(range(20)) == sorted(map(int, made))
    assert 20 == statuses.count(200)
    assert len(statuses) >= 20 + 19
    # What other workers and the watch see of them adds none.
    edited.settle()
    time.sleep(2.2)
    assert ["api"] * 20 == traces.triggers
    assert 0 == traces.audited("config.apply")


def test_an_edit_is_in_force_on_all_workers_when_it_is_answered(edited: Gateway) -> None:
    tried = edited.metric("sluice_config_reloads_total")
    for number in range(6):
        answer = patch(edited, aimed(f"echo/number-{number}"))
        assert 200 == answer.status, answer
        assert {f"echo/number-{number}"} == targets(edited)
    # Nor is one built a second time where the watch sees it, which may be the first to see it.
    time.sleep(0.8)
    assert 6 * max(1, len(edited.workers())) == edited.metric("sluice_config_reloads_total") - tried


def test_a_reload_is_in_force_on_all_workers_when_it_is_answered(edited: Gateway) -> None:
    for number in range(4):
        put_text(edited.config, edited.config.read_text().replace("echo/", f"echo/{number}"))
        assert 200 == manage(edited, "POST", "/config/reload").status
        assert {f"echo/{''.join(map(str, range(number, -1, -1)))}first"} == targets(edited)


async def test_an_edit_by_hand_is_kept_and_audited_once(edited: Gateway, traces: Traces) -> None:
    put_text(edited.config, edited.config.read_text() + "# by hand\n")
    await until(lambda: traces.audited("config.apply") and traces.triggers)
    await asyncio.sleep(0.3)
    assert (1, ["watch"]) == (traces.audited("config.apply"), traces.triggers)


def both(mark: int) -> dict[str, Any]:
    """An edit of both files."""
    return {"routes": [{"name": "probe", "match": {"model": "probe"}, "targets": [f"echo/m{mark}"]}]} | {
        "model_aliases": [{"from": "other", "to": f"echo/m{mark}"}]
    }


def marks(place: Path) -> tuple[list[str], list[str]]:
    return tuple(re.findall(r"echo/(\w+)", (place / name).read_text()) for name in ("config.yaml", "conf.d/more.yaml"))  # type: ignore[return-value]  # two files


def left_over(place: Path) -> list[str]:
    return [path.name for pattern in (".*.new", ".*.journal") for path in place.rglob(pattern)]


@contextmanager
def edits(found: Gateway) -> Iterator[list[int]]:
    """One edit of both files after the other; the statuses."""
    ended, statuses = threading.Event(), list[int]()

    def edit() -> None:
        mark = 0
        while not ended.is_set():
            mark += 1
            # Whoever takes the connection may be killed.
            with contextlib.suppress(OSError, HTTPException, KeyError):
                statuses.append(patch(found, both(mark)).status)

    with ThreadPoolExecutor(1) as thread:
        editing = thread.submit(edit)
        try:
            yield statuses
        finally:
            ended.set()
            editing.result()


async def test_workers_that_are_killed_while_they_write_leave_no_half_edit(tmp_path: Path) -> None:
    with running(tmp_path, 2) as found:
        found.expect_log("ended with status -9|an edit of several files was cut off")
        workers = found.workers()
        with edits(found) as statuses:
            await until(lambda: len(statuses) >= 2)
            for number, worker in enumerate(workers):
                await asyncio.sleep(0.02)
                os.kill(worker, signal.SIGKILL)
                await until(lambda: found.err.count("listening on") == 4 + number)  # noqa: B023  awaited here
            count = len(statuses)
            await until(lambda: len(statuses) >= count + 2)
        # 202: one that starts has not told in time that it has the edit.
        assert {200} <= set(statuses) <= {200, 202}
        first, second = marks(tmp_path)
        assert first == second
        await until(lambda: {f"echo/{first[0]}"} == targets(found))


async def test_a_gateway_that_is_killed_while_it_writes_finds_a_whole_document(tmp_path: Path) -> None:
    for number in range(3):
        with running(tmp_path, again=number > 0) as found:
            if number:
                first, second = marks(tmp_path)
                assert first == second
                assert {f"echo/{first[0]}"} == targets(found, 2)
            with edits(found) as statuses:
                await until(lambda: len(statuses) >= 3)
                await asyncio.sleep(0.013 * number)
                found.process.kill()
                assert -signal.SIGKILL == found.process.wait()
            found.abandon()
    with running(tmp_path, again=True) as found:
        first, second = marks(tmp_path)
        assert (first, {f"echo/{first[0]}"}) == (second, targets(found, 2))
        # What lay beside the files goes with the next edit.
        assert 200 == patch(found, both(0)).status
    assert [] == left_over(tmp_path)


def apply(found: Gateway, members: dict[str, Any], seconds: float) -> Answer:
    return patch(found, members, path=f"/config/apply?confirm_within_seconds={seconds}")


def confirmation(place: Path) -> Path:
    """The file of what waits to be confirmed."""
    return place / ".config.yaml.confirm"


def let_time_pass(place: Path) -> None:
    """Until that what waits should have been confirmed: it says itself when that is."""
    waiting = json.loads(confirmation(place).read_bytes())
    put_text(confirmation(place), json.dumps({**waiting, "deadline": time.time()}))


async def test_an_edit_that_nobody_confirms_is_taken_back_everywhere(edited: Gateway, traces: Traces) -> None:
    before, began = edited.config.read_text(), time.time()
    answer = apply(edited, aimed("echo/second"), 300.0)
    assert 200 == answer.status
    deadline = json.loads(confirmation(edited.config.parent).read_bytes())["deadline"]
    assert began + 300 <= deadline <= time.time() + 300
    assert {"echo/second"} == await asyncio.to_thread(targets, edited)
    assert 409 == patch(edited, aimed("echo/third")).status
    # Whichever worker is asked.
    shown = {manage(edited, "GET", "/config/pending").json()["pending"]["revision"] for _ in range(8)}
    assert {answer.json()["revision"]} == shown
    let_time_pass(edited.config.parent)
    await until(lambda: edited.config.read_text() == before)
    await until(lambda: targets(edited) == {"echo/first"})
    await until(lambda: traces.audited("config.rollback") == 1)
    await until(lambda: traces.triggers == ["api", "rollback"])
    assert 1 == traces.taken_back
    assert {None} == {manage(edited, "GET", "/config/pending").json()["pending"] for _ in range(8)}


async def test_an_edit_that_is_confirmed_stays_everywhere(edited: Gateway) -> None:
    for seconds in (1.0, 5.0, 25.0):
        revision = apply(edited, aimed("echo/second"), seconds).json()["revision"]
        status = manage(edited, "POST", "/config/confirm", {"revision": revision}).status
        if status == 204:
            break
        # This machine was too slow, or stood still: it is taken back by now, or will be.
        await until(lambda: targets(edited) == {"echo/first"})
    assert 204 == status
    assert {None} == {manage(edited, "GET", "/config/pending").json()["pending"] for _ in range(8)}
    await asyncio.sleep(seconds + 0.2)
    assert {"echo/second"} == await asyncio.to_thread(targets, edited)
    assert 409 == manage(edited, "POST", "/config/rollback").status


async def test_an_edit_is_taken_back_when_somebody_asks(edited: Gateway, traces: Traces) -> None:
    apply(edited, aimed("echo/second"), 60.0)
    assert 200 == manage(edited, "POST", "/config/rollback").status
    assert {"echo/first"} == await asyncio.to_thread(targets, edited)
    edited.settle()
    assert 1 == traces.audited("config.rollback")


async def test_an_edit_that_lets_requests_fail_is_taken_back_at_once(edited: Gateway, traces: Traces) -> None:
    assert {"echo/first"} == await asyncio.to_thread(targets, edited, 60)
    assert 200 == apply(edited, aimed("echo/status-500"), 60.0).status
    await asyncio.to_thread(targets, edited, 130)
    await until(lambda: targets(edited, 4) == {"echo/first"})
    assert 1 == traces.taken_back


async def test_an_edit_of_a_gateway_that_has_crashed_is_taken_back_by_the_next(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        assert 200 == apply(found, aimed("echo/second"), 300.0).status
        assert 0o600 == confirmation(tmp_path).stat().st_mode & 0o777
        found.process.kill()
        found.process.wait()
        found.abandon()
    let_time_pass(tmp_path)
    with running(tmp_path, again=True) as found:
        found.expect_log("is taken back, nobody has confirmed it in time")
        assert {"echo/first"} == await asyncio.to_thread(targets, found)
        await until(lambda: "config.rollback" in manage(found, "GET", "/audit").body.decode())
    assert not confirmation(tmp_path).exists()
