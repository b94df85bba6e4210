"""Processes that are killed in the middle: what they had committed is delivered by whoever comes after."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.clock import SystemClock
from storage.database import Database
from storage.webhooks import WebhookStore
from tests.integration.conftest import NewUrl
from tests.webhook_receiver import SECRET, Receiver, receiver, slow, status
from transport.client import HttpClient
from webhooks.delivery import Limits
from webhooks.service import Webhooks

ROOT = Path(__file__).resolve().parent.parent.parent
MOST_SECONDS = 60

_CHILD = """
import asyncio, os, sys
from pathlib import Path
from core.clock import SystemClock
from core.events import ConfigApplied, GatewayStopping
from core.secret import Secret
from storage.database import Database
from storage.webhooks import WebhookStore
from transport.client import HttpClient
from webhooks.endpoint import Endpoint
from webhooks.observer import Observer
from webhooks.service import Webhooks
from webhooks.subscriptions import Subscription

async def main(what, spool, port):
    clock = SystemClock()
    store = WebhookStore(Database(os.environ["DATABASE_URL"], clock))

    async def opened():
        return store

    endpoint = Endpoint(
        name="ops",
        url=f"http://127.0.0.1:{port}/hook",
        secrets=(Secret.literal(os.environ["HOOK_SECRET"]),),
        subscription=Subscription(webhook="ops"),
    )
    made = Webhooks(opened, lambda: True, Path(spool), HttpClient(), clock, lambda: 0.0)
    made.start()
    made.follow([endpoint])
    if what == "commit":
        number = 0
        while True:
            number += 1
            made.offer(ConfigApplied(revision=str(number), trigger="api", duration_seconds=0.1))
            assert await made.commit_now()
            print(number, flush=True)
    for number in range(int(what)):
        made.offer(GatewayStopping(reason=str(number)))
    while made.outbox.waiting:
        await asyncio.sleep(0.01)
    print("written", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def process(what: str, url: str, spool: Path, hook: Receiver) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _CHILD, what, str(spool), str(hook.port)]
    environment = os.environ | {"DATABASE_URL": url, "HOOK_SECRET": SECRET}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


class Later(SystemClock):
    """After what an ended process had taken is free again."""

    __slots__ = ()

    time = staticmethod(lambda: SystemClock().time() + 61)


async def deliver_the_rest(url: str, spool: Path, hook: Receiver, expected: set[str], field: str) -> None:
    database = Database(url, Later())
    store = WebhookStore(database)

    async def opened() -> WebhookStore:
        return store

    client = HttpClient()
    made = Webhooks(opened, lambda: True, spool, client, Later(), lambda: 0.0, limits=Limits())
    try:
        made.start()
        made.follow([hook.endpoint()])
        async with asyncio.timeout(MOST_SECONDS):
            while expected - {payload["data"][field] for _, payload in hook.got}:
                await asyncio.sleep(0.02)
            while made.outbox.spooled or await store.due():
                await asyncio.sleep(0.02)
    finally:
        await made.close()
        await client.close()
        await database.close()


async def test_what_was_committed_before_a_kill_is_delivered(kind: str, new_url: NewUrl, tmp_path: Path) -> None:
    url, spool = new_url(kind), tmp_path / "spool"
    committed: set[str] = set()
    async with receiver() as hook:
        for _ in range(2):
            with process("commit", url, spool, hook) as child:
                assert child.stdout is not None
                # In a thread, as the endpoint answers in this one.
                for _ in range(30):
                    committed.add((await asyncio.to_thread(child.stdout.readline)).strip())
                child.send_signal(signal.SIGKILL)
                # It had time for some more.
                committed.update((await asyncio.to_thread(child.stdout.read)).split())
        assert 30 <= len(committed)
        await deliver_the_rest(url, spool, hook, committed, "revision")


async def test_what_was_committed_to_the_disk_before_a_kill_is_delivered(new_url: NewUrl, tmp_path: Path) -> None:
    url, spool = new_url("sqlite"), tmp_path / "spool"
    await _opened(url)
    committed: set[str] = set()
    async with receiver() as hook:
        with process("commit", url, spool, hook) as child:
            assert child.stdout is not None
            committed.add((await asyncio.to_thread(child.stdout.readline)).strip())
            other = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=MOST_SECONDS)
            other.execute("BEGIN IMMEDIATE")
            for _ in range(20):
                committed.add((await asyncio.to_thread(child.stdout.readline)).strip())
            while not list(spool.glob("webhooks.*")):
                committed.add((await asyncio.to_thread(child.stdout.readline)).strip())
            child.send_signal(signal.SIGKILL)
            committed.update((await asyncio.to_thread(child.stdout.read)).split())
            await asyncio.to_thread(child.wait)
        other.rollback()
        other.close()
        assert list(spool.glob("webhooks.*"))
        await deliver_the_rest(url, spool, hook, committed, "revision")


async def _opened(url: str) -> None:
    database = Database(url, SystemClock())
    await database.open()
    await database.close()


@pytest.mark.parametrize("count", [400])
async def test_a_kill_in_the_middle_of_delivery_loses_nothing(
    kind: str, new_url: NewUrl, tmp_path: Path, count: int
) -> None:
    url, spool = new_url(kind), tmp_path / "spool"
    async with receiver(slow(0.005)) as hook:
        with process(str(count), url, spool, hook) as child:
            assert child.stdout is not None
            assert "written\n" == await asyncio.to_thread(child.stdout.readline)
            async with asyncio.timeout(MOST_SECONDS):
                while len(hook.got) < 100:
                    await asyncio.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            await asyncio.to_thread(child.wait)
        assert count > len(hook.taken)
        hook.answer = status(200)
        await deliver_the_rest(url, spool, hook, {str(number) for number in range(count)}, "reason")
        # What it had taken and not told of is delivered again: no more than it takes at once.
        assert count == len(hook.taken)
        assert count + 64 >= len(hook.got)
