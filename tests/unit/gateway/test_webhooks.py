"""What an entry of `webhooks` comes to, and where its faults are told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.faults import ConfigFaults
from config.faults import Path as KeyPath
from gateway.build import Generation, load_and_build
from gateway.resources import Resources
from gateway.webhooks import webhook_limits
from tests.webhook_receiver import SECRET
from transport.messages import ConnectionOptions
from webhooks.delivery import Limits
from webhooks.subscriptions import Subscription

ENVIRONMENT = {"HOOK": SECRET, "SHORT": "whsec_c2hvcnQ=", "PLAIN": "no prefix"}


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources(ENVIRONMENT, writes=False)
    yield made
    await made.close()


def built(resources: Resources, place: Path, *entries: str, more: str = "") -> Generation:
    document = place / "config.yaml"
    document.write_text("\n".join(["webhooks:", *(f"  - {{{entry}}}" for entry in entries), more]))
    return load_and_build(document, resources)


def entry(
    name: str = "ops", url: str = "https://hooks.example.com/a", secret: str = "${env:HOOK}", more: str = ""
) -> str:
    return f'name: {name}, url: "{url}", secret: "{secret}"{more}'


async def test_what_an_entry_does_not_say_has_its_default(resources: Resources, tmp_path: Path) -> None:
    generation = built(resources, tmp_path, entry())
    (endpoint,) = generation.webhooks
    assert ("ops", "https://hooks.example.com/a", 15.0, 2) == (
        endpoint.name,
        endpoint.url,
        endpoint.timeout_seconds,
        endpoint.concurrency,
    )
    assert (Subscription(webhook="ops"), ConnectionOptions()) == (endpoint.subscription, endpoint.options)
    assert 1 == len(endpoint.keys())
    assert Limits() == webhook_limits(generation.config)


async def test_what_an_entry_says_counts(resources: Resources, tmp_path: Path) -> None:
    more = (
        ', events: ["config.*", "request.failed"], match: {provider: cloud, status: ["5??", "429"]}, sample: 0.5,'
        ' allow_private: false, timeout_seconds: 3, concurrency: 7, former_secrets: ["${env:HOOK}", "${env:HOOK}"]'
    )
    limits = "webhook_delivery: {retention_seconds: 60, max_delivered: 5, max_pending: 6}"
    generation = built(resources, tmp_path, entry(more=more), more=limits)
    (endpoint,) = generation.webhooks
    assert (
        Subscription(
            webhook="ops",
            events=("config.*", "request.failed"),
            match={"provider": ("cloud",), "status": ("5??", "429")},
            sample=0.5,
        )
        == endpoint.subscription
    )
    assert (3.0, 7, 3) == (endpoint.timeout_seconds, endpoint.concurrency, len(endpoint.keys()))
    assert ConnectionOptions(allow_private=False) == endpoint.options
    assert Limits(pending=6, delivered=5, kept_seconds=60.0) == webhook_limits(generation.config)


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        (', events: ["config.*", "provider.dwon"]', ("events",), "did you mean `provider.down`?"),
        (", events: ['*'], match: {provder: a}", ("match", "provder"), "did you mean `provider`?"),
        (", events: ['*'], match: {provider: '[a'}", ("match", "provider"), "[a"),
        (', former_secrets: ["${env:HOOK}", "${env:SHORT}"]', ("former_secrets", 1), "24 to 64 bytes"),
        (", tls: {ca: absent.pem}", ("tls", "ca"), "the authorities cannot be read"),
    ],
)
async def test_a_fault_is_told_at_its_place(
    resources: Resources, tmp_path: Path, more: str, path: KeyPath, said: str
) -> None:
    with pytest.raises(ConfigFaults) as refused:
        built(resources, tmp_path, entry("good"), entry(more=more))
    (fault,) = refused.value.faults
    assert (("webhooks", 1, *path), 3) == (fault.path, fault.line)
    assert said in fault.message


async def test_all_faults_of_an_entry_are_told_at_once_and_show_no_secret(resources: Resources, tmp_path: Path) -> None:
    more = ", events: [nothing], tls: {ca: config.yaml}"
    with pytest.raises(ConfigFaults) as refused:
        built(resources, tmp_path, entry(secret="${env:PLAIN}", more=more))
    assert [("webhooks", 0, "secret"), ("webhooks", 0, "events"), ("webhooks", 0, "tls", "ca")] == [
        fault.path for fault in refused.value.faults
    ]
    assert "no prefix" not in str(refused.value)


async def test_an_address_that_is_none_and_a_name_that_is_taken_are_told(resources: Resources, tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults) as refused:
        built(resources, tmp_path, entry("one"), entry("one"), entry("two", url="https://user:a-password@h/"))
    assert [("webhooks", 1, "name"), ("webhooks", 2, "url")] == [fault.path for fault in refused.value.faults]
    assert "a-password" not in str(refused.value)


async def test_a_secret_is_demanded(resources: Resources, tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults) as refused:
        built(resources, tmp_path, "name: ops, url: 'https://hooks.example.com/a'")
    assert "secret" in str(refused.value)
