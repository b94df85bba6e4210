"""Webhooks of running gateways: what is committed before an answer, who of several workers tells, and what it costs others."""

import asyncio
import contextlib
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.gateway_process import ADMIN_KEY, Answer, Gateway, run_cli, total, until
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.webhook_receiver import SECRET, Receiver, receiver, status

PATH = planted("hook-path")
"""Whoever knows it may post there, as of many receivers."""
ECHO = "providers: [{name: echo, type: echo}]\n"
SECONDS = 60.0


def environment(*hooks: Receiver, port: int | None = None) -> dict[str, str]:
    urls = {f"HOOK_{number}": f"http://127.0.0.1:{port or hook.port}/{PATH}" for number, hook in enumerate(hooks)}
    return {"HOOK_SECRET": SECRET} | urls


def entry(name: str, events: str, more: str = "", number: int = 0) -> str:
    url, secret = f"${{env:HOOK_{number}}}", "${env:HOOK_SECRET}"
    return f"  - {{name: {name}, url: '{url}', secret: '{secret}', events: [{events}]{more}}}\n"


async def asked(running: Gateway, method: str, path: str, body: object = None) -> Answer:
    """In a thread, as receivers answer in this one."""
    return await asyncio.to_thread(running.request, method, f"/api/v1/{path}", body, None, ADMIN_KEY)


async def add_alias(running: Gateway, name: str) -> None:
    answer = await asked(running, "POST", "aliases", {"from": name, "to": "echo/echo"})
    assert 201 == answer.status, answer


@contextlib.contextmanager
def database(running: Gateway) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(running.config.parent / "data/sluice.db", timeout=SECONDS)) as connection:
        yield connection


def kept(running: Gateway) -> list[Any]:
    """The payloads in the outbox, in the order in which they happened."""
    with database(running) as connection:
        rows = connection.execute("SELECT payload FROM webhook_outbox ORDER BY at, id").fetchall()
    return [json.loads(payload) for (payload,) in rows]


def committed(running: Gateway) -> list[Any]:
    """The same, and those that wait on the disk, as the database was slow to take them."""
    with database(running) as connection:
        found = {each[0]: each for each in connection.execute("SELECT id, at, payload FROM webhook_outbox")}
    for file in running.config.parent.glob("data/spool/webhooks.*"):
        for line in file.read_text().splitlines():
            entry = json.loads(line[line.index("{") :])
            found[entry["id"]] = (entry["id"], entry["at"], entry["payload"])
    return [json.loads(payload) for _, _, payload in sorted(found.values(), key=lambda each: (each[1], each[0]))]


def failures(running: Gateway, webhook: str) -> set[str]:
    with database(running) as connection:
        found = connection.execute("SELECT failure FROM webhook_deliveries WHERE webhook = ?", (webhook,)).fetchall()
    return {failure for (failure,) in found}


def summary(payload: Any) -> tuple[str, str | None]:
    return payload["type"], payload["data"].get("trigger")


async def test_an_edit_a_token_and_a_lockout_are_told_though_the_gateway_is_killed_right_after_the_answer(
    start_gateway: StartGateway,
) -> None:
    async with receiver(status(503)) as hook:
        text = f"{ECHO}webhooks:\n{entry('ops', 'config.*, token.*, auth.*')}"
        running = await asyncio.to_thread(start_gateway, text, extra=environment(hook))
        running.abandon()
        await add_alias(running, "first")
        created = await asked(running, "POST", "tokens", {"name": "made", "models": ["*"]})
        assert 201 == created.status, created
        running.expect_log("is locked out")
        answers = await asyncio.to_thread(
            lambda: [running.management("GET", "/api/v1/health", key=f"wrong key {number}") for number in range(10)]
        )
        assert {401} == {answer.status for answer in answers}
        running.signal(signal.SIGKILL)
        await running.ended()
        expected = [
            ("config.applied", "start"),
            ("config.applied", "api"),
            ("token.created", None),
            ("auth.lockout", None),
        ]
        assert expected == [summary(payload) for payload in committed(running)]
        with database(running) as connection, connection:
            # It is the schedule that is short of the test, and what the killed process may have had in hand.
            connection.execute("UPDATE webhook_deliveries SET state_at = 0")
        hook.answer = status(204)
        seen = len(hook.got)
        later = await asyncio.to_thread(start_gateway, "", config=running.config, extra=environment(hook))
        # All of it, what the second start tells too, has been verified by the receiver.
        await until(lambda: {*expected} == {summary(payload) for _, payload in hook.got[seen:]}, SECONDS)

        def applied() -> list[str]:
            return [payload["data"]["revision"] for payload in kept(later) if "config.applied" == payload["type"]]

        await until(lambda: 3 == len(applied()), SECONDS)
        revisions = applied()
        assert [2, 1] == sorted(Counter(revisions).values(), reverse=True)
        assert revisions[-1] == revisions[-2]


async def test_each_fact_is_told_once_by_two_workers(start_gateway: StartGateway) -> None:
    async with receiver() as hook:
        text = f"server: {{workers: 2}}\n{ECHO}webhooks:\n{entry('ops', 'config.*, gateway.*, auth.*')}"
        running = await asyncio.to_thread(start_gateway, text, extra=environment(hook))
        await until(lambda: running.err.count("listening on") == 3, SECONDS)
        for number in range(4):
            # By either worker, as they share connections evenly.
            await add_alias(running, f"alias-{number}")
        assert 200 == (await asked(running, "POST", "config/reload")).status
        refused = await asked(running, "POST", "aliases", {"from": "bad", "to": "nowhere/x"})
        assert 422 == refused.status, refused
        text = running.config.read_text()
        running.expect_log("configuration refused|configuration in force stays")
        running.rewrite(f"{text}bogus: 1\n")
        await until(lambda: running.err.count("configuration in force stays") == 2, SECONDS)
        running.rewrite(f"{text}# edited\n")
        await until(lambda: running.err.count("(watch, ") == 2, SECONDS)
        running.signal(signal.SIGHUP)
        await until(lambda: running.err.count("(signal, ") == 2, SECONDS)
        # What is held, as it may be another worker's edit, is told at the end at the latest.
        running.signal(signal.SIGTERM)
        await running.ended()
        assert {
            ("gateway.started", None): 1,
            ("config.applied", "start"): 1,
            # Four edits and a reload.
            ("config.applied", "api"): 5,
            ("config.rejected", "api"): 1,
            ("config.rejected", "watch"): 1,
            ("config.applied", "watch"): 1,
            ("config.applied", "signal"): 1,
            ("gateway.stopping", None): 1,
        } == Counter(summary(payload) for payload in kept(running))


async def test_a_webhook_is_told_what_it_wants_where_it_wants_it_and_its_address_shows_nowhere(
    start_gateway: StartGateway,
) -> None:
    async with receiver() as one, receiver() as other:
        text = (
            f"{ECHO}webhooks:\n"
            + entry("ops", "config.*")
            + entry("requests", "request.completed", ", match: {token: tester, model: 'e*'}, sample: 0.5")
            + entry("inside", "config.*", ", allow_private: false")
        )
        running = await asyncio.to_thread(start_gateway, text, extra=environment(one, other))
        await until(lambda: [("config.applied", "start")] == [summary(payload) for _, payload in one.got], SECONDS)

        # Requests, by sample: which ones follows from the events' ids.
        def chats() -> set[int]:
            return {running.chat("echo/echo").status for _ in range(60)} | {running.chat("echo/other").status}

        assert {200} == await asyncio.to_thread(chats)
        await until(lambda: len(one.got) > 11, SECONDS)
        assert 50 > len(one.got)
        (data,) = (payload["data"] for _, payload in one.got[1:2])
        assert ("tester", "echo", "openai-chat", 200) == (
            data["token"],
            data["provider"],
            data["dialect"],
            data["status"],
        )

        # An address in a private network that is forbidden: nothing was connected to.
        await until(lambda: {"private_address"} == failures(running, "inside"), SECONDS)
        await until(lambda: running.metric("sluice_webhook_tries_total", webhook="inside"), SECONDS)
        # It is tried again after some seconds.
        found, tries = running.metrics(), "sluice_webhook_tries_total"
        assert total(found, tries, webhook="inside") == total(found, tries, webhook="inside", outcome="private_address")
        assert 1 == running.metric("sluice_webhook_events_total", event="config.applied")

        # Another address, while it runs.
        running.rewrite(running.config.read_text().replace("HOOK_0", "HOOK_1", 1))
        await until(lambda: [("config.applied", "watch")] == [summary(payload) for _, payload in other.got], SECONDS)
        assert {f"/{PATH}"} == {call.path for call in other.calls}

        health = (await asked(running, "GET", "health")).json()["webhooks"]
        assert {"failing": [], "disabled": [], "waiting": 0, "spooled": 0, "waits_for_database": False} == health
        # Answers are searched for planted secrets; the document's, an entry's and a delivery's too.
        for path in ("config", "config/document", "metrics", "webhooks", "webhooks/ops/deliveries"):
            await asked(running, "GET", path)
        status, refused, _ = await _checked(running, other)
        assert (1, True) == (status, "webhooks[0].events: webhook `ops`: no event has a name like `nothing`" in refused)
        assert PATH not in refused


async def _checked(running: Gateway, hook: Receiver) -> tuple[int, str, str]:
    bad = running.config.parent / "bad.yaml"
    bad.write_text(f"{ECHO}webhooks:\n{entry('ops', 'nothing')}")
    extra = environment(hook)
    return await asyncio.to_thread(run_cli, "check", str(bad), cwd=running.config.parent, extra=extra)


async def test_requests_and_edits_go_on_while_the_database_is_away(start_gateway: StartGateway) -> None:
    async with receiver() as hook:
        text = f"{ECHO}webhooks:\n{entry('ops', 'config.*, request.completed')}"
        running = await asyncio.to_thread(start_gateway, text, extra=environment(hook))
        running.expect_log(
            "wait in memory for the database|waits on the disk|webhooks wait for the database|cannot be "
        )
        await until(lambda: 1 == len(hook.got), SECONDS)
        with database(running) as other:
            other.execute("BEGIN IMMEDIATE")
            assert 200 == (await asyncio.to_thread(running.chat, "echo/echo")).status
            await add_alias(running, "meanwhile")
            # What is committed is on the disk when the answer comes.
            assert list(running.config.parent.glob("data/spool/webhooks.*"))
            assert 200 == (await asyncio.to_thread(running.chat, "echo/echo")).status
            other.rollback()
        expected = {("config.applied", "start"): 1, ("config.applied", "api"): 1, ("request.completed", None): 2}
        await until(lambda: expected == Counter(summary(payload) for _, payload in hook.got), SECONDS)


async def test_without_webhooks_no_database_is_made(start_gateway: StartGateway) -> None:
    running = await asyncio.to_thread(start_gateway, f"{ECHO}usage: {{ledger: false}}\n")
    assert 200 == (await asyncio.to_thread(running.chat, "echo/echo")).status
    running.rewrite(running.config.read_text() + "# edited\n")
    await until(lambda: running.err.count("is in force") == 2, SECONDS)
    running.stop()
    assert not (running.config.parent / "data").exists()
