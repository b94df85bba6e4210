"""What the gateway itself asks of providers: with what of an entry, and what it makes of the answers."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

import proxy.probe
from config.schema import Provider as Entry
from config.schema import TokenPlacement
from core.clock import Clock, ManualClock, SystemClock
from core.events import Event
from core.headers import Headers
from proxy.dataplane import BoundProvider
from proxy.probe import Probed, Prober
from proxy.providers import build_adapter
from proxy.providers.echo import Echo
from routing.cooldown import Reason
from tests import virtual_time
from tests.exchange import JSON, Plane, Provider, answer, key_of
from tests.live_credentials import OAUTH, SignedIn, token
from tests.virtual_time import VirtualClock
from transport.script import Cut, Head, Receive, Refuse, Script, Send, Stall, Step
from transport.scripted import ScriptedClient

LIST = b'{"data":[{"id":"a"},{"id":"b"}]}'
OPENAI = {"name": "up", "type": "openai", "credentials": [{"name": "main", "api_key": key_of("up")}]}


def prober(plane: Plane, clock: Clock | None = None) -> Prober:
    return Prober(lambda: plane.plane, lambda bound: bound.client, clock or SystemClock(), lambda: 0.0)


def names(probed: Probed) -> list[str]:
    return [model.id for model in probed.models]


def code(probed: Probed) -> str | None:
    return None if probed.error is None else probed.error.client_code


async def test_the_models_are_asked_for_at_the_entrys_address_with_its_credential() -> None:
    provider = Provider("up", [answer(LIST)])
    probed = await prober(Plane(provider)).models("up")
    assert (["a", "b"], 200, None) == (names(probed), probed.status, probed.error)
    assert ("GET", "http://up.test/v1/models", "main") == (probed.method, probed.url, probed.credential)
    assert ("GET", "http://up.test/v1/models", None) == (
        provider.last.method,
        provider.last.url,
        provider.last.body,
    )
    assert f"Bearer {key_of('up')}" == provider.last.headers.get("authorization")
    assert "identity" == provider.last.headers.get("accept-encoding")


async def test_a_provider_without_credentials_is_asked_without_one() -> None:
    provider = Provider("up", [answer(LIST)])
    entry = {"name": "up", "type": "openai-compatible", "base_url": "http://up.test/v1"}
    probed = await prober(Plane(provider, providers=[entry])).models("up")
    assert (["a", "b"], None) == (names(probed), probed.credential)
    assert "authorization" not in provider.last.headers


async def test_there_is_no_such_provider() -> None:
    with pytest.raises(KeyError):
        await prober(Plane(Provider("up", [answer(LIST)]))).models("down")


KEYS = [{"name": "one", "api_key": key_of("up")}, {"name": "two", "api_key": key_of("other")}]
TWO = [{"name": "up", "type": "openai-compatible", "base_url": "http://up.test/v1", "credentials": KEYS}]


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_list_is_asked_for_by_another_credential_where_one_is_refused(status: int) -> None:
    provider = Provider("up", [answer(b"{}", status=status), answer(LIST)])
    probed = await prober(Plane(provider, providers=TWO)).models("up")
    assert (["a", "b"], "two", 200) == (names(probed), probed.credential, probed.status)
    provider.scripts = [answer(b"{}", status=status)]
    provider.requests.clear()
    probed = await prober(Plane(provider, providers=TWO)).models("up")
    assert (2, "two", status) == (len(provider.requests), probed.credential, probed.status)


async def test_a_test_tells_of_the_one_credential_that_it_used() -> None:
    provider = Provider("up", [answer(b"{}", status=401), answer(LIST)])
    probed = await prober(Plane(provider, providers=TWO)).models("up", others=False)
    assert ("upstream_credentials_rejected", "one", 1) == (code(probed), probed.credential, len(provider.requests))


async def test_credentials_that_have_a_pause_are_used_when_there_is_no_other() -> None:
    provider = Provider("up", [answer(LIST)])
    plane = Plane(provider, providers=TWO)
    now = plane.clock.monotonic()
    plane.cooldowns.cool_credential("up", "one", reason=Reason.RATE_LIMITED, seconds=60, now=now)
    assert "two" == (await prober(plane).models("up")).credential
    plane.cooldowns.cool_credential("up", "two", reason=Reason.RATE_LIMITED, seconds=60, now=now)
    assert "one" == (await prober(plane).models("up")).credential


LIVE = {"name": "real", "type": "openai-compatible", "base_url": "http://real.test/v1", "oauth": OAUTH}


@pytest.fixture
async def signed_in() -> AsyncIterator[SignedIn]:
    accounts = SignedIn(ManualClock())
    accounts.follow(Entry(name="real", type="openai-compatible", oauth=OAUTH))
    yield accounts
    await accounts.close()


async def test_a_token_that_has_ended_is_exchanged_before_it_is_sent(signed_in: SignedIn) -> None:
    provider = Provider("real", [answer(LIST)])
    signed_in.server.placement = TokenPlacement(header="X-Token", scheme=None)
    await signed_in.add("work", ended=True, proxy_url="http://127.0.0.1:9")
    probed = await prober(Plane(provider, live=signed_in.accounts, providers=[LIVE])).models("real")
    assert (["a", "b"], "work", ["work"]) == (names(probed), probed.credential, signed_in.server.asked)
    assert (token("work", 2), None) == (
        provider.last.headers.get("x-token"),
        provider.last.headers.get("authorization"),
    )
    assert provider.last.options.proxy_url is not None
    # A list that repeats it is not shown.
    provider.scripts = [answer(b'{"data":[{"id":"%s"}]}' % token("work", 2).encode())]
    echoed = await prober(Plane(provider, live=signed_in.accounts, providers=[LIVE])).models("real")
    assert ("upstream_malformed", []) == (code(echoed), names(echoed))


async def test_a_provider_that_nobody_is_signed_in_to_is_not_asked(signed_in: SignedIn) -> None:
    provider = Provider("real", [answer(LIST)])
    asking = prober(Plane(provider, live=signed_in.accounts, providers=[LIVE]))
    probed = await asking.knock("real")
    assert ("upstream_credentials_unavailable", None, "http://real.test/v1/models") == (
        code(probed),
        probed.credential,
        probed.url,
    )
    assert probed.error is not None
    assert "sign in by `./sluice login real`" in probed.error.message
    # One that needs a login is told of by its name, and another asks where there is one.
    await signed_in.add("work", ended=True)
    await signed_in.give_up("work")
    probed = await asking.models("real")
    assert ("upstream_credentials_unavailable", "work", []) == (code(probed), probed.credential, provider.requests)
    await signed_in.add("home")
    assert "home" == (await asking.models("real")).credential


WRONG: dict[str, tuple[tuple[Step, ...], str, int | None, str]] = {
    "refused": ((Refuse(),), "upstream_unreachable", None, "refused the connection"),
    "cut before the head": ((Cut(),), "upstream_disconnected", None, "ended"),
    "cut": ((Head(200, Headers(JSON)), Send(LIST[:9]), Cut()), "upstream_disconnected", 200, "ended"),
    "no list": (answer(b"<html>"), "upstream_malformed", 200, "is not JSON: check `base_url`"),
    "another document": (answer(b'{"ok":true}'), "upstream_malformed", 200, "neither `data` nor `models`"),
    "moved": (answer(b"", status=301), "upstream_malformed", 301, "301: check `base_url`"),
    "missing": (answer(b"{}", status=404), "upstream_rejected", 404, "404"),
    "broken": (answer(b"{}", status=500), "upstream_unavailable", 500, "500"),
    "rejected": (answer(b"{}", status=401), "upstream_credentials_rejected", 401, "credential (401)"),
}


@pytest.mark.parametrize("how", WRONG)
async def test_what_goes_wrong_is_told_and_not_raised(how: str) -> None:
    steps, expected, status, words = WRONG[how]
    probed = await prober(Plane(Provider("up", [steps]))).models("up")
    assert (expected, status, []) == (code(probed), probed.status, names(probed))
    assert probed.error is not None
    assert words in probed.error.message


def test_a_silent_provider_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy.probe, "_LIST_SECONDS", 3.0)
    steps = (Head(200, Headers(JSON)), Send(LIST[:9]), Stall())

    async def ask() -> Probed:
        return await prober(Plane(Provider("up", [steps])), VirtualClock()).models("up")

    probed = virtual_time.run(ask())
    assert ("upstream_timeout", 200) == (code(probed), probed.status)
    assert pytest.approx(3.0) == probed.seconds


async def test_a_list_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy.probe, "MAX_LIST_BYTES", 100)
    endless: tuple[Step, ...] = (Head(200, Headers(JSON)), *[Send(b" " * 60)] * 1000)
    probed = await prober(Plane(Provider("up", [endless]))).models("up")
    assert "The provider's list of models is larger than the gateway reads." == (probed.error and probed.error.message)


async def test_no_more_models_are_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    body = msgspec.json.encode([f"m{number}" for number in range(proxy.probe.MAX_MODELS + 5)])
    probed = await prober(Plane(Provider("up", [answer(body)]))).models("up")
    assert proxy.probe.MAX_MODELS == len(probed.models)


def page(query: str, first: int, last: str | None) -> bytes:
    more = {"has_more": True, "last_id": last} if last is not None else {}
    return msgspec.json.encode({"data": [{"id": f"m{first}"}, {"id": f"m{first + 1}"}], "query": query, **more})


async def test_pages_are_read_to_the_last() -> None:
    provider = Provider("up", [answer(page("", 0, "m1")), answer(page("", 2, "m3")), answer(page("", 3, None))])
    probed = await prober(Plane(provider)).models("up")
    assert ["m0", "m1", "m2", "m3", "m4"] == names(probed)
    queries = [request.url.partition("?")[2] for request in provider.requests]
    assert ["", "after=m1", "after=m3"] == queries


async def test_pages_that_lead_back_or_on_without_end_are_left() -> None:
    provider = Provider("up", [answer(page("", 0, "m1"))])
    assert ["m0", "m1"] == names(await prober(Plane(provider)).models("up"))
    assert 2 == len(provider.requests)
    count = 0

    def another(_request: object) -> tuple[Step, ...]:
        nonlocal count
        count += 1
        return answer(page("", 2 * count, f"m{count}"))

    probed = await prober(Plane(Provider("up", [another]))).models("up")
    assert (100, 200) == (count, len(probed.models))


@pytest.mark.parametrize("headers", [{}, {"authorization": f"Basic {key_of('other')}"}, {"api-key": key_of("other")}])
async def test_a_list_that_repeats_the_credential_is_not_kept(headers: dict[str, str]) -> None:
    def echo(request: object) -> Script | Receive:
        fields = getattr(request, "headers", Headers())
        sent = fields.get("api-key") or fields.get("authorization")
        return Script(answer(msgspec.json.encode([str(sent).rpartition(" ")[2]])))

    entry = {"name": "up", "type": "openai-compatible", "base_url": "http://up.test/v1", "headers": headers}
    plane = Plane(Provider("up", [echo]), providers=[{**entry, "credentials": OPENAI["credentials"]}])
    probed = await prober(plane).models("up")
    assert ("upstream_malformed", []) == (code(probed), names(probed))
    assert key_of("up") not in str(probed.error)


@pytest.mark.parametrize(
    "written", [str, lambda text: "".join(f"\\u{ord(each):04x}" for each in text)], ids=["", "escaped"]
)
@pytest.mark.parametrize("name", ["authorization", "x-account", "query"])
async def test_a_list_that_repeats_anything_of_the_entry_is_not_kept(name: str, written: Callable[[str], str]) -> None:
    def echo(request: object) -> Script | Receive:
        sent = {
            **dict(getattr(request, "headers", Headers())),
            "query": getattr(request, "url", "").partition("key=")[2],
        }
        return Script(answer(f'["{written(sent[name])}"]'.encode()))

    entry = {
        "name": "up",
        "type": "openai-compatible",
        "base_url": f"http://up.test/v1?key={key_of('query')}",
        "headers": {"x-account": key_of("account")},
        "credentials": OPENAI["credentials"],
    }
    probed = await prober(Plane(Provider("up", [echo]), providers=[entry])).models("up")
    assert ("upstream_malformed", []) == (code(probed), names(probed))


async def test_a_list_may_name_the_organization_and_its_own_pages() -> None:
    owner = "org-0123456789abcdef"
    pages = [page("", 0, "a-model-of-many-letters"), page("a-model-of-many-letters", 2, None)]
    provider = Provider("up", [answer(each.replace(b'"id"', f'"owned_by":"{owner}","id"'.encode())) for each in pages])
    entry = {"name": "up", "type": "openai", "base_url": "http://up.test/v1", "options": {"organization": owner}}
    probed = await prober(Plane(provider, providers=[{**entry, "credentials": OPENAI["credentials"]}])).models("up")
    assert (None, True) == (probed.error, len(probed.models) > 2)


async def test_a_knock_reads_no_further_than_it_must() -> None:
    steps = (Head(200, Headers(JSON)), Send(b" \n"), Send(b'{"data":'), Stall())
    probed = await prober(Plane(Provider("up", [steps]))).knock("up")
    assert (None, 200) == (probed.error, probed.status)
    for body in (b"<html>", b"", b"  "):
        assert "upstream_malformed" == code(await prober(Plane(Provider("up", [answer(body)]))).knock("up"))


async def test_a_trial_has_the_model_say_a_word() -> None:
    provider = Provider("up", [answer(b'{"choices":[]}')])
    probed = await prober(Plane(provider)).trial("up", "gpt-9")
    assert (None, "POST", "http://up.test/v1/chat/completions") == (probed.error, probed.method, probed.url)
    sent = msgspec.json.decode(provider.body)
    assert {"model": "gpt-9", "messages": [{"role": "user", "content": "ping"}], "max_tokens": 16} == sent
    assert "application/json" == provider.last.headers.get("content-type")
    provider.scripts = [answer(b'{"error":{"code":"model_not_found"}}', status=404)]
    probed = await prober(Plane(provider)).trial("up", "gpt-9")
    assert ("upstream_rejected", 404) == (code(probed), probed.status)
    provider.scripts = [answer(b"data: x")]
    assert "upstream_malformed" == code(await prober(Plane(provider)).trial("up", "gpt-9"))


async def test_openai_bounds_an_answer_in_its_own_way() -> None:
    provider = Provider("up", [answer(b"{}")])
    await prober(Plane(provider, providers=[OPENAI])).trial("up", "o9")
    assert 16 == msgspec.json.decode(provider.body)["max_completion_tokens"]


async def test_what_is_asked_is_no_clients_request() -> None:
    plane = Plane(Provider("up", [answer(b"{}", status=500)]))
    told: list[Event] = []
    plane.events.subscribe(told.append)
    for _ in range(10):
        await prober(plane).models("up")
        await prober(plane).trial("up", "m")
    assert ([], ()) == (told, plane.cooldowns.current(plane.clock.monotonic()))


async def test_echo_has_a_list_and_takes_a_trial() -> None:
    plane = Plane(Provider("up", [answer(LIST)]))
    adapter = build_adapter(Entry(name="up", type="echo"))
    assert isinstance(adapter, Echo)
    plane.plane.providers["up"] = BoundProvider(adapter, ScriptedClient(adapter.respond))
    probed = await prober(plane).models("up")
    assert "echo" in names(probed)
    assert "echo://up/models" == probed.url
    assert None is (await prober(plane).trial("up", "echo")).error
    assert "upstream_unavailable" == code(await prober(plane).trial("up", "status-503"))
