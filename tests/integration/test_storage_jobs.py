"""Jobs in a database."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import gateway.kept
from config.schema import Config
from core.clock import ManualClock, SystemClock
from gateway.kept import Jobs
from gateway.stores import Stores
from storage.database import Database
from storage.errors import BadCursor, NotFound
from storage.jobs import JobStore
from storage.records import Job
from tests.conftest import ExpectLog
from tests.gateway_process import environment


async def test_a_job_begins_and_ends_once(database: Database, clock: ManualClock) -> None:
    store = JobStore(database)
    began = database.now()
    running = Job(id="job_1", kind="models.refresh", state="running", created_at=began)
    assert running == await store.begin("job_1", "models.refresh")
    assert running == await store.get("job_1")
    clock.advance(2)
    result = {"providers": [{"name": "ü", "models": 3, "share": 0.5}]}
    ended = Job(
        id="job_1",
        kind="models.refresh",
        state="done",
        created_at=began,
        finished_at=began + 2_000_000,
        result=result,
    )
    assert ended == await store.end("job_1", "done", result)
    clock.advance(2)
    assert ended == await store.end("job_1", "failed")
    assert ended == await store.get("job_1")


async def test_a_job_that_is_not_there_is_not_ended(database: Database) -> None:
    store = JobStore(database)
    assert None is await store.get("job_1")
    with pytest.raises(NotFound, match="job_1"):
        await store.end("job_1", "done")


async def test_what_ended_processes_have_left_has_failed(database: Database, clock: ManualClock) -> None:
    store = JobStore(database)
    assert 0 == await store.fail_running(["gone"], database.now())
    await store.begin("long ago", "a", "of another machine")
    clock.advance(1)
    now = database.now()
    await store.begin("left", "a", "gone")
    await store.begin("ended", "a", "gone")
    await store.end("ended", "done")
    await store.begin("running", "a", "lives")
    await store.begin("nobody's", "a")
    assert 2 == await store.fail_running(["gone"], now)
    assert 0 == await store.fail_running(["gone"], now)
    states = {"long ago": "failed", "left": "failed", "ended": "done", "running": "running", "nobody's": "running"}
    assert states == {job.id: job.state for job in (await store.list()).entries}


async def test_the_oldest_are_forgotten_and_the_pages_of_the_list_give_each_once(database: Database) -> None:
    store = JobStore(database, kept=5)
    for number in range(1, 9):
        await store.begin(f"job_{number}", "a")
    first = await store.list(limit=3)
    second = await store.list(limit=3, cursor=first.next_cursor)
    assert [["job_8", "job_7", "job_6"], ["job_5", "job_4"]] == [
        [job.id for job in page.entries] for page in (first, second)
    ]
    assert None is second.next_cursor
    with pytest.raises(BadCursor):
        await store.list(cursor="nonsense")


BEGINS = """
import asyncio, sys
from pathlib import Path
from config.schema import Config
from core.clock import SystemClock
from gateway.kept import Jobs
from gateway.stores import Stores

async def main():
    stores = Stores(SystemClock())
    stores.begin(Config(), Path(sys.argv[1]))
    jobs = Jobs(stores, SystemClock())
    job = jobs.new("models.refresh")
    await jobs.tell(job)
    print(job, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_job_fails_when_its_process_was_killed_and_runs_on_where_it_was_not(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    command = [sys.executable, "-W", "error", "-c", BEGINS, str(tmp_path)]

    def started() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    running = [started() for _ in range(2)]
    (killed, left), (living, still) = running
    stores = Stores(SystemClock())
    stores.begin(Config(), tmp_path)
    try:
        killed.kill()
        killed.wait()
        jobs = Jobs(stores, SystemClock())
        own = jobs.new("models.refresh")
        await jobs.tell(own)
        with expect_log("1 jobs have failed: the processes that ran them have ended", logging.INFO):
            await jobs.fail_left()
        states = {job.id: job.state for job in (await stores.jobs.list()).entries}
        assert {left: "failed", still: "running", own: "running"} == states
        # Of whom nothing is left to tell, nobody needs to know.
        assert 2 == len(list((tmp_path / "data/owners").iterdir()))
        living.kill()
        living.wait()
        await jobs.fail_left()
        assert [own] == [job.id for job in (await stores.jobs.list()).entries if job.state == "running"]
    finally:
        for process, _ in running:
            process.kill()
            process.communicate()
        await stores.close()


async def test_where_there_is_no_database_nothing_is_asked_and_nothing_made(tmp_path: Path) -> None:
    stores = Stores(SystemClock())
    stores.begin(Config(), tmp_path)
    await Jobs(stores, SystemClock()).fail_left()
    await stores.close()
    assert not (tmp_path / "data").exists()


async def test_jobs_of_ended_processes_are_seen_to_when_the_database_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.kept, "_PAUSE_SECONDS", 0.02)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/sluice.db"
    file.write_text("this was never a database\n" * 100)
    stores = Stores(SystemClock())
    stores.begin(Config(), tmp_path)
    waiting = asyncio.get_running_loop().create_task(Jobs(stores, SystemClock()).fail_left())
    async with asyncio.timeout(60):
        while stores.state().status != "unavailable":
            await asyncio.sleep(0.01)
        assert not waiting.done()
        # Empty: the next use makes its tables.
        file.write_bytes(b"")
        await waiting
    assert "ok" == stores.state().status
    await stores.close()
