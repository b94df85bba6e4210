"""Providers while they run, over real sockets: tests, lists of models, the monitor, and what they leave behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import proxy.probe
from core.events import Event, ProviderDown, ProviderRecovered
from core.headers import Headers
from gateway.provider_life import ProviderLife
from gateway.reload import Reloader
from gateway.resources import Resources
from management.provider_service import (
    Job,
    JobState,
    KnownModels,
    ProviderState,
    RefreshFailed,
    UnknownProvider,
)
from tests.gateway_process import ADMIN_KEY, Gateway, document
from tests.planted import place_of_secrets, planted
from tests.ports import closed_port, free_port
from tests.provider import Call, completion, error, provider
from transport.messages import Clocks, UpstreamRequest

KEY = planted("provider-key", "sk-")
ENTRY = "{{name: {name}, type: openai-compatible, base_url: http://127.0.0.1:{port}/v1, {extra}}}"
CREDENTIAL = f"credentials: [{{name: main, api_key: '{KEY}'}}]"
MODELS = {"object": "list", "data": [{"id": "m-1", "created": 1700000000, "owned_by": "them"}, {"id": "m-2"}]}


def entry(port: int, name: str = "real", extra: str = CREDENTIAL) -> str:
    return "providers: [" + ENTRY.format(name=name, port=port, extra=extra) + "]\n"


class Running:
    """The parts of a gateway that providers' life is made of, in this process."""

    def __init__(self, config: Path, resources: Resources, reloader: Reloader, life: ProviderLife) -> None:
        self.config = config
        self.resources = resources
        self.reloader = reloader
        self.life = life
        self.told: list[Event] = []
        resources.events.subscribe(self.told.append, ProviderDown, ProviderRecovered)

    async def edit(self, text: str) -> None:
        self.config.write_text(text)
        await self.reloader.reload("watch")


@asynccontextmanager
async def living(text: str, place: Path) -> AsyncIterator[Running]:
    config = place_of_secrets(place / "config.yaml")
    config.write_text(text)
    resources = Resources({})
    try:
        reloader = Reloader(config, resources)
        reloader.start()
        life = ProviderLife(resources, reloader.current)
        life.start()
        yield Running(config, resources, reloader, life)
    finally:
        await resources.close()


async def serve_models(call: Call) -> None:
    """A provider that does all that is asked of it here."""
    if call.path == "/v1/models":
        await call.answer(MODELS)
    else:
        await call.body()
        await call.answer(completion("pong"))


async def until(happened: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.01)


async def listed(known: Awaitable[KnownModels]) -> list[str]:
    return [model.id for model in (await known).models]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is waited for long."""
    brief = Clocks(connect_seconds=60, first_byte_seconds=0.2, idle_seconds=0.2)
    for name in ("_CLOCKS", "_TRIAL_CLOCKS"):
        monkeypatch.setattr(proxy.probe, name, brief)


async def test_a_test_tells_how_the_provider_answers(tmp_path: Path) -> None:
    async with provider(serve_models) as up, living(entry(up.port), tmp_path) as running:
        found = await running.life.test("real")
        assert (True, 200, None) == (found.ok, found.status, found.error)
        assert ("GET", f"http://127.0.0.1:{up.port}/v1/models", "main", None) == (
            found.asked.method,
            found.asked.url,
            found.asked.credential,
            found.asked.model,
        )
        assert f"Bearer {KEY}" == up.calls[0].headers["authorization"]
        found = await running.life.test("real", "m-1")
        assert (True, "POST", "m-1", "ping") == (
            found.ok,
            found.asked.method,
            found.asked.model,
            up.calls[1].json()["messages"][0]["content"],
        )
        assert ProviderState.UP is running.life.health("real").state
        with pytest.raises(UnknownProvider):
            await running.life.test("another")


async def hang(call: Call) -> None:
    await call.gone()


async def hang_up(call: Call) -> None:
    call.reset()


async def cut(call: Call) -> None:
    await call.answer(MODELS, cut_to=10)


async def garble(call: Call) -> None:
    await call.send(b"HTP/1.1 what\r\n\r\n")


async def show_a_page(call: Call) -> None:
    await call.answer(b"<html>Sign in</html>", headers={"content-type": "text/html"})


async def refuse_the_key(call: Call) -> None:
    # Some repeat what they were sent.
    await call.answer({"error": {"message": call.headers["authorization"], "code": "invalid_api_key"}}, 401)


async def have_no_list(call: Call) -> None:
    await call.answer(error("not_found"), 404)


async def repeat_the_key(call: Call) -> None:
    await call.answer({"data": [{"id": call.headers["authorization"].removeprefix("Bearer ")}]})


FAILURES: dict[Callable[[Call], Awaitable[None]], tuple[str, int | None]] = {
    hang: ("upstream_timeout", None),
    hang_up: ("upstream_disconnected", None),
    cut: ("upstream_disconnected", 200),
    garble: ("upstream_malformed", None),
    show_a_page: ("upstream_malformed", 200),
    refuse_the_key: ("upstream_credentials_rejected", 401),
    have_no_list: ("upstream_rejected", 404),
    repeat_the_key: ("upstream_malformed", 200),
}


@pytest.mark.parametrize("behave", FAILURES, ids=lambda behave: behave.__name__)
async def test_a_provider_that_fails_is_told_in_a_word(
    behave: Callable[[Call], Awaitable[None]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    code, status = FAILURES[behave]
    if behave is hang:
        # Alone: what comes late on a machine that stands still has failed no other way.
        request.getfixturevalue("impatient")
    async with provider(behave) as up, living(entry(up.port), tmp_path) as running:
        found = await running.life.test("real")
        assert found.error is not None
        assert (False, status, code) == (found.ok, found.status, found.error.code)
        assert KEY not in repr(found)
        with pytest.raises(RefreshFailed) as failed:
            await running.life.refresh("real")
        assert (code, KEY in repr(failed.value.error)) == (failed.value.error.code, False)
        known = await running.life.models("real")
        assert ((), None, code) == (known.models, known.seen_at, known.error and known.error.code)


async def test_nobody_listens(tmp_path: Path) -> None:
    with closed_port() as nowhere:
        async with living(entry(nowhere), tmp_path) as running:
            found = await running.life.test("real")
            assert (None, "upstream_unreachable") == (found.status, found.error and found.error.code)


async def test_a_credential_goes_nowhere_but_to_its_own_address(tmp_path: Path) -> None:
    async with provider(serve_models) as other:

        async def lead_away(call: Call) -> None:
            target = f"http://127.0.0.1:{other.port}/v1/models"
            await call.body()
            await call.answer({"data": ["a"], "has_more": True, "last_id": target}, 307, {"location": target})

        async with provider(lead_away) as up, living(entry(up.port), tmp_path) as running:
            for model in (None, "m-1", f"http://127.0.0.1:{other.port}/v1", "../../elsewhere"):
                found = await running.life.test("real", model)
                assert (False, 307) == (found.ok, found.status)
            with pytest.raises(RefreshFailed):
                await running.life.refresh("real")
            assert {"/v1/models", "/v1/chat/completions"} == {call.path for call in up.calls}
            assert [] == other.calls


async def test_a_provider_that_may_not_be_private_is_not_connected_to(tmp_path: Path) -> None:
    async with provider(serve_models) as up:
        text = entry(up.port, extra=f"{CREDENTIAL}, allow_private: false, health: {{probe_seconds: 0.05}}")
        async with living(text, tmp_path) as running:
            for model in (None, "m-1"):
                found = await running.life.test("real", model)
                assert (None, "upstream_address_refused") == (found.status, found.error and found.error.code)
            with pytest.raises(RefreshFailed):
                await running.life.refresh("real")
            await until(lambda: running.told)
            assert [] == up.calls


async def test_whoever_asks_at_once_has_the_provider_asked_once(tmp_path: Path) -> None:
    opened = asyncio.Event()

    async def wait(call: Call) -> None:
        await opened.wait()
        await call.answer(MODELS)

    async with provider(wait) as up, living(entry(up.port), tmp_path) as running:
        waiting = [asyncio.ensure_future(running.life.refresh("real")) for _ in range(20)]
        await until(lambda: up.calls)
        assert (await running.life.models("real")).refreshing
        opened.set()
        assert {("m-1", "m-2")} == {
            tuple(model.id for model in known.models) for known in await asyncio.gather(*waiting)
        }
        assert 1 == len(up.calls)


async def test_a_stale_list_is_given_out_while_the_next_is_read(tmp_path: Path) -> None:
    port = free_port()
    text = entry(port, extra="discovery: {ttl_seconds: 0.05}")
    async with provider(serve_models, port) as up, living(text, tmp_path) as running:
        await running.life.refresh("real")
        up.behave = hang
        await asyncio.sleep(0.1)
        for _ in range(3):
            known = await running.life.models("real")
            assert (2, True, True) == (len(known.models), known.stale, known.refreshing)
        await until(lambda: len(up.calls) == 2)


async def test_lists_outlive_the_process_and_are_seen_by_others(tmp_path: Path) -> None:
    async with provider(serve_models) as up:
        async with living(entry(up.port), tmp_path) as first, living(entry(up.port), tmp_path) as second:
            assert (await first.life.refresh("real")).stored
            assert ["m-1", "m-2"] == await listed(second.life.models("real"))

            async def have_another(call: Call) -> None:
                await call.answer(["m-3"])

            up.behave = have_another
            await second.life.refresh("real")
            assert ["m-3"] == await listed(first.life.models("real"))
        async with living(entry(up.port), tmp_path) as third:
            known = await third.life.models("real")
            assert (["m-3"], False, True) == ([model.id for model in known.models], known.stale, known.stored)
        assert 2 == len(up.calls)


async def test_without_a_database_lists_are_in_memory_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sluice.db").mkdir()
    async with provider(serve_models) as up, living(entry(up.port), tmp_path) as running:
        known = await running.life.refresh("real")
        assert (2, False, False) == (len(known.models), known.stale, known.stored)
        job_id = await running.life.refresh_all()
        assert "done" == (await ended(running.life, job_id)).state


async def ended(life: ProviderLife, job_id: str) -> Job:
    async with asyncio.timeout(60):
        while True:
            job = await life.job(job_id)
            assert job is not None
            if job.state is not JobState.RUNNING:
                return job
            await asyncio.sleep(0.01)


async def test_all_lists_are_read_as_one_job(tmp_path: Path) -> None:
    opened = asyncio.Event()

    async def wait(call: Call) -> None:
        await opened.wait()
        await call.answer(MODELS)

    async with AsyncExitStack() as places:
        nowhere, up = places.enter_context(closed_port()), await places.enter_async_context(provider(wait))
        entries = [
            up.entry("one"),
            f"{{name: two, type: openai-compatible, base_url: http://127.0.0.1:{nowhere}/v1}}",
        ]
        text = f"providers: [{', '.join(entries)}, {{name: echo, type: echo}}]\n"
        async with living(text, tmp_path) as running, living(text, tmp_path) as other:
            job_id = await running.life.refresh_all()
            assert job_id == await running.life.refresh_all()
            assert JobState.RUNNING is getattr(await other.life.job(job_id), "state", None)
            opened.set()
            job = await ended(running.life, job_id)
            assert job.result is not None
            one, two, echo = job.result.providers
            assert (JobState.DONE, 2, None) == (job.state, one.models, two.models)
            assert "upstream_unreachable" == (two.error and two.error.code)
            assert (echo.models or 0) > 2
            assert job == await other.life.job(job_id)
            assert job_id != await running.life.refresh_all()
            assert None is await running.life.job("job_none")


async def test_probes_need_no_connection_of_requests(tmp_path: Path) -> None:
    async def hold_chats(call: Call) -> None:
        if call.path == "/v1/models":
            await call.answer(MODELS)
        else:
            await call.gone()

    async with provider(hold_chats) as up:
        text = "transport: {max_connections: 1, max_waiting: 0}\n" + entry(up.port)
        async with living(text, tmp_path) as running:
            clocks = Clocks(connect_seconds=60, first_byte_seconds=None, idle_seconds=None)
            url = f"http://127.0.0.1:{up.port}/v1/chat/completions"
            request = UpstreamRequest("POST", url, Headers(), b"{}", None, clocks)
            held = asyncio.ensure_future(running.resources.client.send(request))
            await until(lambda: up.calls)
            assert (await running.life.test("real")).ok
            assert ["m-1", "m-2"] == await listed(running.life.refresh("real"))
            held.cancel()


async def test_an_idle_provider_is_asked_and_its_going_and_coming_is_told(tmp_path: Path) -> None:
    port = free_port()
    text = entry(port, extra=f"{CREDENTIAL}, health: {{probe_seconds: 0.1}}")
    async with living(text, tmp_path) as running:
        life, told = running.life, running.told
        assert ProviderState.UNKNOWN is life.health("real").state
        await until(lambda: told)
        assert [ProviderDown(provider="real", reason="upstream_unreachable", failures=3)] == told
        found = life.health("real")
        assert (ProviderState.DOWN, "upstream_unreachable", None) == (
            found.state,
            found.last_error_code,
            found.last_success_at,
        )
        assert found.since is not None
        assert found.last_failure_at is not None
        assert found.next_probe_at is not None
        assert found.next_probe_at > found.last_failure_at >= found.since
        assert 'sluice_provider_up{provider="real"} 0.0' in running.resources.metrics.render()[1].decode()
        async with provider(serve_models, port) as up:
            await until(lambda: len(told) == 2)
            assert isinstance(told[1], ProviderRecovered)
            found = life.health("real")
            assert (ProviderState.UP, 0) == (found.state, found.consecutive_failures)
            assert (found.probe_latency_seconds or 0) > 0
            assert 'sluice_provider_up{provider="real"} 1.0' in running.resources.metrics.render()[1].decode()
            assert {("GET", "/v1/models")} == {(call.method, call.path) for call in up.calls}
            # None that is gone from the configuration is asked any more, or shown.
            await running.edit("providers: [{name: echo, type: echo, health: {probe_seconds: 0.05}}]\n")
            count = len(up.calls)
            await asyncio.sleep(0.4)
            assert count >= len(up.calls) - 1
            with pytest.raises(UnknownProvider):
                life.health("real")
            # What answers by itself is not asked.
            assert (ProviderState.UNKNOWN, None) == (life.health("echo").state, life.health("echo").next_probe_at)
            assert "sluice_provider_up{" not in running.resources.metrics.render()[1].decode()


async def test_what_providers_have_is_listed_to_callers_where_their_models_match(tmp_path: Path) -> None:
    async def have_many(call: Call) -> None:
        await call.answer(["m-1", "m-2", "n-1", "echo/m-3", "mine"])

    async with provider(have_many) as up:
        text = (
            f"providers: [{{name: real, type: openai-compatible, base_url: http://127.0.0.1:{up.port}/v1,"
            " models: [mine, 'm-*', 'echo/*']}, {name: echo, type: echo, models: ['m-*']}]\n"
        )
        async with living(text, tmp_path) as running:
            discovered = running.resources.discovered
            discovered.asked()
            await until(lambda: discovered.models)
            assert [("m-1", "real"), ("m-2", "real"), ("mine", "real")] == [
                (model.id, model.owned_by) for model in discovered.models
            ]
            await running.edit(text.replace("'m-*', 'echo/*'", "'n-*'"))
            await until(lambda: [model.id for model in discovered.models] == ["n-1", "mine"])
            assert running.reloader.current().plane.discovered is discovered


def test_any_worker_tells_what_one_has_read(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(
        document("server: {workers: 2}\nproviders: [{name: echo, type: echo, models: ['ec*']}]\n", "")
    )

    def ask(method: str, path: str, body: object = None) -> Any:
        answer = gateway.request(method, path, body, key=ADMIN_KEY)
        assert answer.status in (200, 202), answer
        return answer.json()

    assert ask("POST", "/api/v1/providers/echo/test", {"model": "echo"})["ok"]
    first = ask("POST", "/api/v1/models/refresh", {"source": "provider", "provider": "echo"})
    assert first["stored"]
    job = ask("POST", "/api/v1/models/refresh", {"source": "all"})
    found = [ask("GET", "/api/v1/providers/echo/models") for _ in range(6)]
    assert {len(first["data"])} == {len(each["data"]) for each in found}
    assert {job["id"]} == {ask("GET", f"/api/v1/jobs/{job['id']}")["id"] for _ in range(6)}
