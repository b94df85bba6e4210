"""Requests by credentials whose tokens end, to providers on real sockets: which one serves, a fresh token before it is
sent, another where it is refused, and what the client gets when there is none."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from config.schema import Provider, TokenPlacement
from core.clock import ManualClock
from core.errors import CredentialNotReady
from credentials.errors import CredentialFault, CredentialUnavailable, NeedsLogin
from proxy.live_credentials import member_of
from routing.cooldown import Reason
from tests.conftest import ExpectLog
from tests.connect_proxy import connect_proxy
from tests.exchange import SHARED, MemoryExchange, Plane, request, until
from tests.live_credentials import LIFE_SECONDS, OAUTH, SignedIn, token
from tests.planted import planted
from tests.provider import Behaviour, Call, completion, error, provider
from tests.provider import Provider as ProviderThere
from transport.client import HttpClient

_RATE_LIMITED = Reason.RATE_LIMITED
KEY = planted("static-key")
QUESTION = {"model": "real/gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


async def answers(call: Call) -> None:
    await call.body()
    await call.answer(completion("hi"))


def refuses(*tokens: str, status: int = 401) -> Behaviour:
    """A provider that takes all tokens but ``tokens``."""

    async def behave(call: Call) -> None:
        await call.body()
        if _sent(call) in tokens:
            await call.answer(error("invalid_api_key"), status)
        else:
            await call.answer(completion("hi"))

    return behave


def _sent(call: Call) -> str:
    return call.headers["authorization"].removeprefix("Bearer ")


class Scene:
    """A gateway with one provider, whose credentials sign in; by a clock that moves when it is told to."""

    def __init__(self, there: ProviderThere, client: HttpClient) -> None:
        self.there = there
        self.clock = ManualClock()
        self.signed_in = SignedIn(self.clock)
        self.signed_in.follow(Provider(name="real", type="openai-compatible", oauth=OAUTH))
        self.server = self.signed_in.server
        self.client = client

    def gateway(self, *credentials: dict[str, Any], **more: Any) -> Plane:
        """With the file's own ``credentials``."""
        entry = {
            "name": "real",
            "type": "openai-compatible",
            "base_url": f"http://127.0.0.1:{self.there.port}/v1",
            "oauth": OAUTH,
            "credentials": list(credentials),
            **more.pop("entry", {}),
        }
        return Plane(
            clock=self.clock, live=self.signed_in.accounts, client=self.client, **{"providers": [entry], **more}
        )

    @property
    def tokens(self) -> list[str]:
        """What the provider was sent, call by call."""
        return [_sent(call) for call in self.there.calls]


NewScene = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def new_scene() -> AsyncIterator[NewScene]:
    async with AsyncExitStack() as running:

        async def make(behave: Behaviour = answers) -> Scene:
            there = await running.enter_async_context(provider(behave))
            client = HttpClient()
            running.push_async_callback(client.close)
            scene = Scene(there, client)
            running.push_async_callback(scene.signed_in.close)
            return scene

        yield make


def told(exchange: MemoryExchange) -> tuple[int, str | None]:
    """The status, and the code of an error."""
    return exchange.status, exchange.json().get("error", {}).get("code")


# A token that is refused


async def test_a_refused_token_is_exchanged_and_the_request_sent_again_unseen(new_scene: NewScene) -> None:
    scene = await new_scene(refuses(token("work", 1)))
    await scene.signed_in.add("work")
    gateway = scene.gateway()
    exchange = await gateway.post(QUESTION)
    assert (200, "1") == (exchange.status, exchange.field("x-sluice-attempts"))
    assert [token("work", 1), token("work", 2)] == scene.tokens
    assert scene.there.calls[0].content == scene.there.calls[1].content
    assert (["work"], []) == (scene.server.asked, gateway.attempts)


async def test_two_refusals_are_told_as_a_refused_credential_that_cools(new_scene: NewScene) -> None:
    scene = await new_scene(refuses(token("work", 1), token("work", 2)))
    await scene.signed_in.add("work", priority=1)
    gateway = scene.gateway()
    assert (502, "upstream_credentials_rejected") == told(await gateway.post(QUESTION))
    assert 2 == len(scene.there.calls)
    assert ["credential_refused"] == [each.reason for each in gateway.cooldowns.current(scene.clock.monotonic())]
    # By another, where there is one; the refused one is not asked for a third token.
    other = scene.gateway({"name": "plain", "api_key": KEY})
    assert 200 == (await other.post(QUESTION)).status
    assert KEY == scene.tokens[-1]
    assert ["work"] == scene.server.asked


@pytest.mark.parametrize("status", [402, 403])
async def test_what_is_about_the_account_asks_for_no_other_token(new_scene: NewScene, status: int) -> None:
    scene = await new_scene(refuses(token("work", 1), status=status))
    await scene.signed_in.add("work")
    assert (502, "upstream_credentials_rejected") == told(await scene.gateway().post(QUESTION))
    assert ([], 1) == (scene.server.asked, len(scene.there.calls))


async def test_an_upload_is_not_sent_again_but_the_next_one_finds_a_fresh_token(new_scene: NewScene) -> None:
    scene = await new_scene(refuses(token("work", 1)))
    await scene.signed_in.add("work")
    gateway = scene.gateway()
    form = [("content-type", "multipart/form-data; boundary=b"), ("x-sluice-provider", "real")]
    body = [b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\n', b"x" * 100_000, b"\r\n--b--\r\n"]
    refused = await gateway.run(request("/v1/files", body, form, token=SHARED))
    assert (502, "upstream_credentials_rejected") == told(refused)
    assert [token("work", 1)] == scene.tokens
    accepted = await gateway.run(request("/v1/files", body, form, token=SHARED))
    assert (200, token("work", 2)) == (accepted.status, scene.tokens[-1])


async def test_a_refused_token_that_cannot_be_exchanged_leaves_the_request_to_another(
    new_scene: NewScene, expect_log: ExpectLog
) -> None:
    scene = await new_scene(refuses(token("work", 1)))
    await scene.signed_in.add("work", priority=1)
    scene.server.fault = NeedsLogin("the refresh token has been revoked")
    gateway = scene.gateway({"name": "plain", "api_key": KEY})
    with expect_log("needs a person to sign in again"):
        assert 200 == (await gateway.post(QUESTION)).status
    assert [token("work", 1), KEY] == scene.tokens
    assert ["1 real/*: upstream_credentials_rejected, delivered no: retry"] == gateway.attempts


# A token that has ended


async def test_requests_wait_for_one_exchange_of_a_token_that_has_ended(new_scene: NewScene) -> None:
    scene = await new_scene()
    await scene.signed_in.add("work")
    gateway = scene.gateway()
    scene.clock.advance(LIFE_SECONDS)
    scene.server.answers.clear()
    exchanges = [request(body=b'{"model":"real/gpt-4o"}') for _ in range(3)]
    tasks = [gateway.begin(exchange) for exchange in exchanges]
    await until(lambda: scene.server.asked)
    assert [] == scene.there.calls
    scene.server.answers.set()
    for task in tasks:
        await task
    assert [200] * 3 == [exchange.status for exchange in exchanges]
    assert (["work"], {token("work", 2)}) == (scene.server.asked, set(scene.tokens))


async def test_a_client_that_leaves_while_it_waits_ends_neither_the_exchange_nor_others(new_scene: NewScene) -> None:
    scene = await new_scene()
    await scene.signed_in.add("work", ended=True)
    gateway = scene.gateway()
    scene.server.answers.clear()
    leaver, stayer = (request(body=b'{"model":"real/gpt-4o"}') for _ in range(2))
    leaving, staying = gateway.begin(leaver), gateway.begin(stayer)
    await until(lambda: scene.server.asked)
    leaver.leave()
    await leaving
    assert ("client_closed", None) == (gateway.record.error_code, gateway.record.usage)
    scene.server.answers.set()
    await staying
    assert (200, ["work"], [token("work", 2)]) == (stayer.status, scene.server.asked, scene.tokens)


@pytest.mark.parametrize(
    ("fault", "retry_after"), [(CredentialUnavailable("down", retry_after_seconds=30), "30"), (NeedsLogin("no"), None)]
)
async def test_without_a_token_another_credential_serves_or_the_client_is_told(
    new_scene: NewScene, expect_log: ExpectLog, fault: CredentialFault, retry_after: str | None
) -> None:
    scene = await new_scene()
    await scene.signed_in.add("work", ended=True, priority=1)
    scene.server.fault = fault
    with expect_log("credential `real/work`"):
        alone = await scene.gateway().post(QUESTION)
    assert (502, "upstream_credentials_unavailable") == told(alone)
    assert (retry_after, []) == (alone.field("retry-after"), scene.there.calls)
    assert 200 == (await scene.gateway({"name": "plain", "api_key": KEY}).post(QUESTION)).status
    assert [KEY] == scene.tokens


async def test_a_token_is_waited_for_as_long_as_an_answer_and_no_longer(new_scene: NewScene) -> None:
    scene = await new_scene()
    await scene.signed_in.add("work", ended=True)
    scene.server.answers.clear()
    gateway = scene.gateway(entry={"timeouts": {"connect_seconds": 0.01, "first_byte_seconds": 0.02}})
    exchange = await gateway.post(QUESTION)
    assert (502, "upstream_credentials_unavailable") == told(exchange)
    assert "within 0.03 s" in exchange.json()["error"]["message"]
    scene.server.answers.set()
    assert [] == scene.there.calls


# Which one serves


async def test_those_that_need_a_login_are_passed_over_and_where_no_other_is_left_that_is_told(
    new_scene: NewScene,
) -> None:
    scene = await new_scene()
    for name in ("home", "work"):
        await scene.signed_in.add(name, ended=True, priority=1)
        await scene.signed_in.give_up(name)
    assert 200 == (await scene.gateway({"name": "plain", "api_key": KEY}).post(QUESTION)).status
    assert [KEY] == scene.tokens
    refused = await scene.gateway().post(QUESTION)
    assert (503, "no_target_available") == told(refused)
    message = refused.json()["error"]["message"]
    assert "the credentials of `real` need a login: the operator signs in by `./sluice login real`" in message
    assert "home" not in message
    assert [] == scene.server.asked


async def test_the_next_priority_serves_while_the_first_cools(new_scene: NewScene) -> None:
    async def limits_the_first(call: Call) -> None:
        await call.body()
        if _sent(call) == token("first", 1):
            await call.answer(error("rate_limit_exceeded"), 429, {"retry-after": "30"})
        else:
            await call.answer(completion("hi"))

    scene = await new_scene(limits_the_first)
    await scene.signed_in.add("first", priority=2)
    await scene.signed_in.add("second", priority=1)
    gateway = scene.gateway({"name": "plain", "api_key": KEY})
    for _ in range(2):
        assert 200 == (await gateway.post(QUESTION)).status
    scene.clock.advance(31)
    assert 200 == (await gateway.post(QUESTION)).status
    first, second = token("first", 1), token("second", 1)
    assert [first, second, second, first, second] == scene.tokens


async def test_a_credential_serves_the_models_that_it_is_for(new_scene: NewScene) -> None:
    scene = await new_scene()
    await scene.signed_in.add("small", models=("*-mini", "nano"), priority=2)
    await scene.signed_in.add("gpt", models=("gpt-*",), priority=1)
    gateway = scene.gateway()
    for model, status in (("gpt-4o-mini", 200), ("gpt-4o", 200), ("o1", 503)):
        assert status == (await gateway.post({"model": f"real/{model}"})).status
    assert [token("small", 1), token("gpt", 1)] == scene.tokens


async def test_a_prefix_is_served_by_its_credentials_alone_and_as_soon_as_they_have_it(new_scene: NewScene) -> None:
    scene = await new_scene()
    gateway = scene.gateway({"name": "plain", "api_key": KEY})
    asked = {"model": "team/gpt-4o"}
    assert (404, "model_not_found") == told(await gateway.post(asked))
    await scene.signed_in.add("work", prefix="team")
    exchange = await gateway.post(asked)
    assert (200, "real/gpt-4o") == (exchange.status, exchange.field("x-sluice-target"))
    assert ([token("work", 1)], b'"model":"gpt-4o"') == (scene.tokens, scene.there.calls[0].content[1:17])
    # While it rests there is no other for the prefix; without the prefix there is.
    gateway.cooldowns.cool_credential("real", "work", reason=_RATE_LIMITED, seconds=9, now=1000.0, asked=True)
    assert (429, "rate_limit_exceeded") == told(await gateway.post(asked))
    assert (200, KEY) == ((await gateway.post(QUESTION)).status, scene.tokens[-1])
    await scene.signed_in.change("work", prefix="other")
    assert (404, "model_not_found") == told(await gateway.post(asked))
    await scene.signed_in.accounts.remove("real", "work", None)
    assert (404, "model_not_found") == told(await gateway.post({"model": "other/gpt-4o"}))


async def test_a_credential_that_was_removed_since_it_was_chosen_is_not_ready(new_scene: NewScene) -> None:
    scene = await new_scene()
    await scene.signed_in.add("work")
    pools = scene.gateway().plane.pools
    assert "work" == pools.choose("real", (), 0, lambda: 0.0)
    await scene.signed_in.accounts.remove("real", "work", None)
    assert pools.choose("real", (), 0, lambda: 0.0) is None
    with pytest.raises(CredentialNotReady, match="a credential of `real` was removed while it was being used"):
        member_of(pools, "real", "work")


# How it is sent


async def test_a_token_stands_where_its_placement_says_and_is_masked_where_it_comes_back(new_scene: NewScene) -> None:
    async def echoes(call: Call) -> None:
        await call.body()
        said = call.headers["x-session"]
        status = 200 if call.number == 1 else 400
        body = completion("hi") if call.number == 1 else {"error": {"message": f"who is {said}?"}}
        await call.answer(body, status, {"x-said": said})

    scene = await new_scene(echoes)
    scene.server.placement = TokenPlacement(header="X-Session", scheme=None, headers={"X-Mode": "signed-in"})
    await scene.signed_in.add("work")
    gateway = scene.gateway()
    client_fields = [("x-session", "mine"), ("x-mode", "mine"), ("x-other", "mine")]
    exchange = await gateway.post(QUESTION, headers=client_fields)
    sent = scene.there.calls[0].headers
    assert (token("work", 1), "signed-in", "mine") == (sent["x-session"], sent["x-mode"], sent["x-other"])
    assert "authorization" not in sent
    assert (200, None) == (exchange.status, exchange.field("x-said"))
    refused = await gateway.post(QUESTION)
    assert (400, "upstream_rejected") == told(refused)


async def test_a_credential_goes_its_own_way(new_scene: NewScene) -> None:
    scene = await new_scene()
    async with connect_proxy() as way:
        await scene.signed_in.add("work", proxy_url=f"http://127.0.0.1:{way.port}", prefix="work")
        await scene.signed_in.add("home", proxy_url="direct", prefix="home")
        gateway = scene.gateway({"name": "plain", "api_key": KEY, "prefix": "plain"})
        for prefix, tunnels in (("work", 1), ("home", 1), ("plain", 1), ("work", 1)):
            assert 200 == (await gateway.post({"model": f"{prefix}/gpt-4o"})).status
            # The tunnel is kept for the next of its own requests.
            assert tunnels == len(way.heads)
    assert [token("work", 1), token("home", 1), KEY, token("work", 1)] == scene.tokens
