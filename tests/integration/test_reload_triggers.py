"""What makes the gateway read its configuration again, and what it says then."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from config import watch
from tests.gateway_process import ADMIN_KEY, TOKEN, Gateway, until
from tests.integration.conftest import StartGateway
from tests.provider import Call, provider

DOCUMENT = """\
providers:
  - {name: echo, type: echo, models: ["echo-*"], options: {interval_seconds: 0.05}}
model_aliases:
  - {from: probe, to: echo/first}
"""
REFUSED = "configuration refused|configuration in force stays"


@pytest.fixture
def running(start_gateway: StartGateway) -> Gateway:
    return start_gateway(DOCUMENT)


def edit(running: Gateway, old: str, new: str) -> None:
    text = running.config.read_text()
    assert old in text
    running.rewrite(text.replace(old, new))


def target(running: Gateway) -> str:
    return running.chat("probe").headers["x-sluice-target"]


async def test_saving_the_file_is_enough(running: Gateway) -> None:
    edit(running, "echo/first", "echo/second")
    seconds = await until(lambda: target(running) == "echo/second")
    # Within two seconds, by what the watcher waits for itself; besides, a machine takes the time that it takes.
    assert watch.LOOK_SECONDS + watch.UNSTABLE_SECONDS < 2
    assert seconds < 20


async def test_sighup_reloads_even_what_is_unchanged(running: Gateway) -> None:
    before = running.metric("sluice_config_reloads_total", result="applied", trigger="signal")
    running.signal(signal.SIGHUP)
    await until(lambda: running.metric("sluice_config_reloads_total", result="applied", trigger="signal") == before + 1)
    assert "echo/first" == target(running)


def test_the_api_reloads_and_gives_the_revision(running: Gateway) -> None:
    before = running.management("GET", "/api/v1/health").json()["revision"]
    edit(running, "echo/first", "echo/second")
    answer = running.management("POST", "/api/v1/config/reload")
    assert (200, True) == (answer.status, answer.json()["changed"])
    probed = running.chat("probe")
    assert ("echo/second", answer.json()["revision"]) == (
        probed.headers["x-sluice-target"],
        probed.headers["x-sluice-revision"],
    )
    assert before != answer.json()["revision"]
    again = running.management("POST", "/api/v1/config/reload").json()
    assert (False, answer.json()["revision"]) == (again["changed"], again["revision"])
    last = running.management("GET", "/api/v1/health").json()["last_reload"]
    assert ("api", "applied", 0) == (last["trigger"], last["result"], last["faults"])


async def test_the_api_tells_every_fault_with_its_place_and_changes_nothing(running: Gateway) -> None:
    running.expect_log(REFUSED)
    revision = running.management("GET", "/api/v1/health").json()["revision"]
    lines = running.config.read_text().splitlines()
    provider = next(number for number, line in enumerate(lines, 1) if "name: echo" in line)
    text = running.config.read_text().replace("type: echo", "tipe: echo").replace("model_aliases:", "model_alises:")
    running.rewrite(text)

    answer = running.management("POST", "/api/v1/config/reload")
    assert (422, "config_error-invalid") == (answer.status, answer.code)
    faults = answer.json()["error"]["faults"]
    assert {str(running.config)} == {fault["file"] for fault in faults}
    unknown = next(fault for fault in faults if "tipe" in fault["message"])
    assert (provider, lines[provider - 1].index("type") + 1) == (unknown["line"], unknown["column"])
    assert "did you mean `type`?" in unknown["message"]
    assert any("did you mean `model_aliases`?" in fault["message"] for fault in faults)

    health = running.management("GET", "/api/v1/health").json()
    assert (revision, "rejected", len(faults)) == (
        health["revision"],
        health["last_reload"]["result"],
        health["last_reload"]["faults"],
    )
    assert "echo/first" == target(running)
    assert 0 == running.metric("sluice_config_last_reload_successful")
    # The mend comes into force by itself.
    running.rewrite("\n".join(lines).replace("echo/first", "echo/mended") + "\n")
    await until(lambda: target(running) == "echo/mended")
    assert 1 == running.metric("sluice_config_last_reload_successful")


async def test_the_undoing_of_a_bad_edit_is_acknowledged(running: Gateway) -> None:
    running.expect_log(REFUSED)
    good = running.config.read_text()
    running.rewrite(good + "bogus: 1\n")
    await until(lambda: running.metric("sluice_config_last_reload_successful") == 0)
    running.rewrite(good)
    await until(lambda: running.metric("sluice_config_last_reload_successful") == 1)
    assert "is in force again" in running.err
    assert "applied" == running.management("GET", "/api/v1/health").json()["last_reload"]["result"]


async def test_a_document_that_was_emptied_takes_no_access_away(running: Gateway) -> None:
    running.expect_log(REFUSED)
    running.rewrite("")
    await until(lambda: running.metric("sluice_config_last_reload_successful") == 0)
    assert "the file is empty" in running.err
    assert "echo/first" == target(running)


@pytest.mark.parametrize("key", [None, "wrong-key-of-nobody", TOKEN])
def test_reloading_takes_the_admin_key(running: Gateway, key: str | None) -> None:
    answer = running.management("POST", "/api/v1/config/reload", key=key)
    assert (403 if key == TOKEN else 401) == answer.status
    assert "applied" not in answer.body.decode()


async def test_of_a_burst_of_edits_the_last_one_comes_into_force(running: Gateway) -> None:
    first = running.config.read_text()
    for number in range(30):
        running.rewrite(first.replace("echo/first", f"echo/burst-{number}"))
        await asyncio.sleep(0.01)
    await until(lambda: target(running) == "echo/burst-29")
    await asyncio.sleep(0.5)
    assert "echo/burst-29" == target(running)


def replace(file: Path, text: str) -> None:
    """Half of it is nowhere to be seen."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_an_included_file_is_watched_too(running: Gateway) -> None:
    running.expect_log(REFUSED)
    place = running.config.parent / "conf.d"
    place.mkdir()
    running.rewrite(running.config.read_text() + "include: [conf.d/*.yaml]\n")
    await until(lambda: running.metric("sluice_config_reloads_total", trigger="watch", result="applied") == 1)
    included = place / "more.yaml"
    replace(included, "model_aliases: [{from: more, to: echo/included}]\n")
    await until(lambda: running.chat("more").status == 200)
    replace(included, "model_aliases: [{from: more, two: echo/included}]\n")
    await until(lambda: running.metric("sluice_config_reloads_total", result="rejected") == 1)
    assert 200 == running.chat("more").status
    assert [record for record in running.log() if "more.yaml:1:" in record["event"]]


async def test_a_request_ends_on_the_generation_that_it_began_with(
    start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    is_gone = asyncio.Event()

    async def streams(call: Call) -> None:
        await call.body()
        await call.stream()
        await call.event("before")
        await is_gone.wait()
        await call.event("after")
        await call.end()

    async with provider(streams) as real:
        entry = real.entry("old", "models: ['old-*']")
        document = f"providers: [{entry}]\nmodel_aliases: [{{from: probe, to: old/first}}]\n"
        running = await asyncio.to_thread(start_gateway, document)
        body = {"model": "old-one", "stream": True, "messages": [{"role": "user", "content": "?"}]}
        async with http.post(f"{running.base_url}/chat/completions", json=body) as answer:
            first = await answer.content.readuntil(b"\n\n")
            revision = answer.headers["x-sluice-revision"]
            # Its provider, its alias and its model go away while it streams.
            text = running.config.read_text().replace(entry, "{name: other, type: echo, models: ['new-*']}")
            running.rewrite(text.replace("old/first", "other/first"))
            await until(lambda: running.chat("new-one").status == 200)
            assert 404 == running.chat("old-one").status
            is_gone.set()
            rest = await answer.read()
    assert b'"before"' in first
    assert b'"after"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert revision != running.chat("new-one").headers["x-sluice-revision"]


async def test_what_only_a_restart_changes_is_told(running: Gateway) -> None:
    running.expect_log("`server.workers` has changed")
    running.rewrite(running.config.read_text() + "server: {workers: 2}\n")
    await until(lambda: "`server.workers` has changed" in running.err)
    assert "echo/first" == target(running)


def test_the_admin_key_of_a_reload_never_shows(running: Gateway) -> None:
    running.management("POST", "/api/v1/config/reload")
    assert ADMIN_KEY not in running.out + running.err + running.metrics()
