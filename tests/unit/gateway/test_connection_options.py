"""What a provider's entry says of the way to it, and when connections outlive a reload."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.faults import ConfigFaults
from gateway.build import Generation, load_and_build
from gateway.resources import Resources
from tests.gateway_process import ROOT
from transport.messages import ConnectionOptions


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources({}, writes=False)
    yield made
    await made.close()


def built(resources: Resources, place: Path, *entries: str, transport: str = "{}") -> Generation:
    document = place / "config.yaml"
    lines = [f"transport: {transport}", "providers:", *(f"  - {{{entry}}}" for entry in entries)]
    document.write_text("\n".join(lines))
    return load_and_build(document, resources)


def entry(name: str, extra: str = "") -> str:
    return f"name: {name}, type: openai-compatible, base_url: http://{name}.example.com/v1{extra}"


def options(generation: Generation, name: str) -> ConnectionOptions:
    return generation.plane.providers[name].options


@pytest.mark.parametrize(
    ("extra", "transport", "provider", "proxy"),
    [
        ("", "{}", True, True),
        (", allow_private: true", "{}", True, True),
        (", allow_private: false", "{}", False, True),
        # The operator's proxy for all is where the operator has it; one of the entry's own is judged like the entry.
        (", allow_private: false", "{proxy_url: 'http://10.0.0.1:3128'}", False, True),
        (
            ", allow_private: false, proxy_url: 'http://10.0.0.2:3128'",
            "{proxy_url: 'http://10.0.0.1:3128'}",
            False,
            False,
        ),
        (", allow_private: true, proxy_url: 'http://10.0.0.2:3128'", "{}", True, True),
    ],
)
async def test_an_entry_says_whether_private_addresses_are_allowed(
    resources: Resources, tmp_path: Path, extra: str, transport: str, provider: bool, proxy: bool
) -> None:
    found = options(built(resources, tmp_path, entry("a", extra), transport=transport), "a")
    assert (provider, proxy) == (found.allow_private, found.allow_private_proxy)


async def test_connections_outlive_a_reload_unless_their_options_change(resources: Resources, tmp_path: Path) -> None:
    guarded, open_ = entry("a", ", allow_private: false"), entry("a")
    first = options(built(resources, tmp_path, guarded), "a")
    assert first is options(built(resources, tmp_path, guarded), "a")
    changed = options(built(resources, tmp_path, open_), "a")
    assert first != changed
    assert first is options(built(resources, tmp_path, guarded), "a")
    by_proxy = ", allow_private: false, proxy_url: 'http://p:1'"
    own = options(built(resources, tmp_path, entry("a", by_proxy)), "a")
    inherited = options(built(resources, tmp_path, guarded, transport="{proxy_url: 'http://p:1'}"), "a")
    assert (False, True) == (own.allow_private_proxy, inherited.allow_private_proxy)
    assert own is not inherited


async def test_a_credential_may_go_by_a_proxy_of_its_own(resources: Resources, tmp_path: Path) -> None:
    ways = {"one": ", proxy_url: 'http://p:2'", "two": ", proxy_url: direct", "three": ""}
    keys = ", ".join(f"{{name: {name}, api_key: k{way}}}" for name, way in ways.items())
    more = f", allow_private: false, proxy_url: 'http://p:1', credentials: [{keys}]"
    generation = built(resources, tmp_path, entry("a", more))
    provider, pools = generation.plane.providers["a"], generation.plane.pools
    found = {}
    for name in pools.names("a"):
        way = provider.options_for(pools.member("a", name).proxy_url)
        assert (False, False) == (way.allow_private, way.allow_private_proxy)
        found[name] = None if way.proxy_url is None else way.proxy_url.reveal()
    assert {"one": "http://p:2", "two": None, "three": "http://p:1"} == found
    # Its connections outlive a reload as the provider's do.
    again = built(resources, tmp_path, entry("a", more)).plane
    assert provider.options_for(pools.member("a", "one").proxy_url) is again.providers["a"].options_for(
        again.pools.member("a", again.pools.names("a")[0]).proxy_url
    )


async def test_what_is_no_proxy_is_told_at_its_credential(resources: Resources, tmp_path: Path) -> None:
    keys = "{name: one, api_key: k}, {name: two, api_key: k, proxy_url: 'socks://p'}"
    with pytest.raises(ConfigFaults, match=r"providers\[0\]\.credentials\[1\]\.proxy_url: not the address of a proxy"):
        built(resources, tmp_path, entry("a", f", credentials: [{keys}]"))


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
def test_a_pipe_in_the_place_of_a_certificate_holds_nobody_up(resources: Resources, tmp_path: Path, key: str) -> None:
    (tmp_path / "cert.pem").write_bytes((ROOT / "tests/certificates/client.pem").read_bytes())
    os.mkfifo(tmp_path / "pipe")
    tls = json.dumps({"cert": "cert.pem", "key": "cert.pem", key: "pipe"})
    with pytest.raises(ConfigFaults, match="is not a file"):
        built(resources, tmp_path, entry("a", f", tls: {tls}"))
    (tmp_path / "config.yaml").write_text("server: {tls: {cert: pipe, key: cert.pem}}")
    with pytest.raises(ConfigFaults, match="is not a file"):
        load_and_build(tmp_path / "config.yaml", resources)
