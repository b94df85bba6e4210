"""Limits of the configuration: what they come to, where their faults are told, and whether they can be kept."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from access.quotas.amounts import ONE
from access.quotas.limits import Limits, Scope, ScopeKind, limit, parse_terms
from access.quotas.memory import MemoryStore
from access.quotas.outage import Reason
from access.quotas.outcomes import Lease, Unavailable
from access.quotas.rules import Rules, Subject
from access.quotas.waiting import WaitingStore
from config.faults import ConfigFaults
from config.faults import Path as KeyPath
from core.events import Event, QuotaStoreDown, QuotaStoreRecovered
from gateway.build import load_and_build
from gateway.limits import QuotaKeeper, QuotaState, Unkept
from gateway.resources import Resources
from tests.conftest import ExpectLog
from tests.gateway_process import sha256
from tests.planted import planted

TOKEN = f"tokens: [{{name: a, sha256: {sha256('a')}, models: ['*']}}]\n"
PROVIDER = """\
providers:
  - name: up
    type: openai
    credentials: [{name: main, api_key: "${env:KEY}"}]
"""


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    url = f"redis://:{planted('redis-password')}@127.0.0.1:1/0"
    made = Resources({"KEY": planted("key"), "REDIS": url}, writes=False)
    yield made
    await made.close()


def rules(resources: Resources, place: Path, text: str) -> Rules:
    document = place / "config.yaml"
    document.write_text(text)
    generation = load_and_build(document, resources)
    resources.quotas.follow(generation.config)
    return generation.plane.rules


def faults(resources: Resources, place: Path, text: str) -> dict[KeyPath, str]:
    with pytest.raises(ConfigFaults) as caught:
        rules(resources, place, text)
    assert all(fault.line > 0 for fault in caught.value.faults)
    return {fault.path: fault.message for fault in caught.value.faults}


def keys(limits: Limits) -> list[str]:
    return [each.key for each in limits.all]


async def test_limits_are_found_where_they_stand(resources: Resources, tmp_path: Path) -> None:
    text = f"""\
{TOKEN}providers:
  - name: up
    type: openai
    limits: [{{concurrency: 8}}]
    credentials:
      - {{name: main, api_key: "${{env:KEY}}", limits: [{{usd: 20, per: month}}, {{tokens: 5, per: hour, shadow: true}}]}}
limits:
  - {{requests: 60, per: minute}}
  - {{requests: 9, per: hour, match: {{model: ["gpt-*", o1], path: /v1/chat/*}}, each: [token, owner]}}
  - {{requests: 7, per: day, each: [credential]}}
quotas: {{thresholds: [0.9, 0.5]}}
"""
    found = rules(resources, tmp_path, text)
    subject = Subject(token="a", owner="alice", model="gpt-4o", path="/v1/chat/completions")
    limits = found.for_request(subject)
    assert [
        "requests/minute/all",
        "requests/hour/model~gpt-*|o1,owner=alice,path~/v1/chat/*,token=a",
    ] == keys(limits)
    assert (0.5, 0.9) == limits.thresholds
    assert ["requests/minute/all"] == keys(found.for_request(subject._replace(model="o3")))
    assert [
        # Of each provider: credentials of several may have one name.
        "requests/day/credential=main,provider=up",
        "concurrency/held/provider=up",
        "usd/month/credential=main,provider=up",
        "tokens/hour/credential=main,provider=up",
    ] == keys(found.for_target(subject._replace(provider="up", credential="main")))


async def test_every_fault_of_a_limit_is_told_at_its_place(resources: Resources, tmp_path: Path) -> None:
    text = f"""\
{TOKEN}providers:
  - name: up
    type: openai
    limits: [{{concurrency: 8, per: day}}, {{requests: 1}}]
    credentials: [{{name: main, api_key: "${{env:KEY}}", limits: [{{requests: 1, tokens: 2, per: day}}]}}]
limits:
  - {{match: {{model: m}}}}
  - {{usd: 0.0000000001, per: day}}
  - {{requests: 1, per: day, shadow: true, max_wait_seconds: 5}}
  - {{requests: 1, per: day, match: {{model: "[", token: [a, "{{"], provider: ups, credential: [main, spare]}}}}
"""
    expected = {
        ("providers", 0, "limits", 0, "per"): "`concurrency` is what is under way at a time: leave `per` out",
        ("providers", 0, "limits", 1, "per"): "`requests` takes a `per`, one of `minute`, `hour`, `day`, `month`",
        (
            "providers",
            0,
            "credentials",
            0,
            "limits",
            0,
        ): "`requests` and `tokens` in one entry: write an entry for each",
        ("limits", 0): "nothing is limited",
        ("limits", 1, "usd"): "finer than a nano-dollar",
        ("limits", 2, "max_wait_seconds"): "`shadow` refuses nothing",
        ("limits", 3, "match", "model"): "its `[` is never closed",
        ("limits", 3, "match", "token", 1): "its `{` is no part of a list",
        ("limits", 3, "match", "provider"): "there is no provider `ups`: did you mean `up`?",
        ("limits", 3, "match", "credential", 1): "there is no credential `spare`",
    }
    told = faults(resources, tmp_path, text)
    assert expected.keys() == told.keys()
    assert [] == [path for path, words in expected.items() if words not in told[path]]


@pytest.mark.parametrize(
    ("place", "where"),
    [
        (TOKEN.replace("models", "limits: [{concurrency: 1}], models"), ("tokens", 0, "limits")),
        (TOKEN + "limits: [{concurrency: 1}]\n", ("limits",)),
        (TOKEN + PROVIDER + "    limits: [{concurrency: 1}]\n", ("providers", 0, "limits")),
        (
            TOKEN + PROVIDER.replace("}]", ", limits: [{concurrency: 1}]}]").replace('KEY}"}', 'KEY}"'),
            ("providers", 0, "credentials", 0, "limits"),
        ),
    ],
)
async def test_several_workers_without_redis_keep_no_limits(
    resources: Resources, tmp_path: Path, place: str, where: KeyPath
) -> None:
    place = place.replace('KEY, limits: [{concurrency: 1}]}"}]', 'KEY}", limits: [{concurrency: 1}]}]')
    several = place + "server: {workers: 2}\n"
    expected = "2 workers would each count for itself: set `redis.url`, or `server.workers: 1`"
    assert {where: expected} == faults(resources, tmp_path, several)
    rules(resources, tmp_path, several + "redis: {url: 'redis://127.0.0.1:1/0'}\n")


async def test_a_gateway_that_runs_with_several_workers_takes_no_limits_by_a_reload(tmp_path: Path) -> None:
    resources = Resources({"KEY": planted("key")}, workers=3, writes=False)
    limited = TOKEN + "limits: [{concurrency: 1}]\n"
    rules(resources, tmp_path, TOKEN + "server: {workers: 3}\n")
    expected = (
        "3 workers run without Redis, and each would count for itself: "
        "set `redis.url`, or `server.workers: 1`, and start the gateway again"
    )
    # Neither is in force before the next start.
    for more in ("", "redis: {url: 'redis://127.0.0.1:1/0'}\nserver: {workers: 3}\n"):
        assert {("limits",): expected} == faults(resources, tmp_path, limited + more)
    assert expected == resources.quotas.not_kept_because
    assert QuotaState(store="none", up=False) == resources.quotas.state()
    await resources.close()


async def test_limits_of_tokens_that_cannot_be_kept_refuse(expect_log: ExpectLog) -> None:
    store = WaitingStore(Unkept(MemoryStore(Resources({}, writes=False).clock), "because"))
    await store.start()
    own = Limits([limit(parse_terms({"requests": 5, "per": "day"}), Scope(((ScopeKind.TOKEN, "a"),)))])
    with expect_log("requests are refused whose tokens have limits: because"):
        assert Unavailable(60.0) == store.decide(own, ONE)
    # Said once.
    assert Unavailable(60.0) == await store.admit(own, ONE)
    shadow = Limits([limit(parse_terms({"requests": 5, "per": "day", "shadow": True}))])
    lease = store.decide(shadow, ONE)
    assert isinstance(lease, Lease)
    store.settle(lease, ONE)
    store.release(lease)
    await store.close()


async def test_the_coming_and_going_of_redis_is_told(
    resources: Resources, tmp_path: Path, expect_log: ExpectLog
) -> None:
    heard: list[Event] = []
    resources.events.subscribe(heard.append, QuotaStoreDown, QuotaStoreRecovered)
    rules(resources, tmp_path, f"{TOKEN}redis: {{url: '${{env:REDIS}}'}}\nlimits: [{{concurrency: 1}}]\n")
    keeper = resources.quotas
    with expect_log("Redis, which counts limits, cannot be used .unreachable: .*: each process counts for itself"):
        await keeper.start()
    state = keeper.state()
    assert ("redis", False, "unreachable") == (state.store, state.up, state.reason)
    keeper.up(2.5)
    assert QuotaState(store="redis", up=True) == keeper.state()
    assert [
        QuotaStoreDown(reason="unreachable", on_store_failure="local"),
        QuotaStoreRecovered(down_seconds=2.5),
    ] == heard
    with expect_log("slow: d"):
        keeper.down(Reason.SLOW, "d")
    assert "sluice_quota_store_up 0.0" in resources.metrics.render()[1].decode()


async def test_the_store_is_in_memory_where_nothing_else_is_said(resources: Resources, tmp_path: Path) -> None:
    rules(resources, tmp_path, TOKEN)
    keeper: QuotaKeeper = resources.quotas
    await keeper.start()
    assert (QuotaState(store="memory", up=True), None) == (keeper.state(), keeper.not_kept_because)
    assert isinstance(keeper.store.inner, MemoryStore)
    assert "sluice_quota_store_up" not in {
        line.partition(" ")[0] for line in resources.metrics.render()[1].decode().splitlines()
    }


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://user:p%40ss@redis.example.com", True),
        ("rediss://[::1]:6380/3?ssl_ca_certs=/etc/ca.pem", True),
        ("unix:///run/redis.sock", True),
        ("redis://h:1/0?protocol=3", False),
        ("redis://h:1/0?ssl_ca_certs=/etc/ca.pem", False),
        ("redis://h:65535", True),
        ("redis://h:65536", False),
        ("redis://h:0", False),
        ("redis://[1:2]:6379", False),
        ("redis://h:1/zero", False),
        ("http://h:1/0", False),
        ("h:6379", False),
    ],
)
async def test_an_address_of_redis_is_read_before_it_is_used(
    resources: Resources, tmp_path: Path, url: str, fits: bool
) -> None:
    text = f"{TOKEN}redis: {{url: '{url}'}}\n"
    if fits:
        rules(resources, tmp_path, text)
    else:
        assert [("redis", "url")] == [*faults(resources, tmp_path, text)]
