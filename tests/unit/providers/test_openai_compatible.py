from typing import Any

import pytest

from config.faults import ConfigFaults
from config.schema import Provider
from core.headers import Headers
from core.secret import Secret
from proxy.providers import PROVIDER_TYPES, build_adapter
from proxy.providers.base import Call, LocalAdapter, ProviderAdapter
from proxy.providers.openai_compatible import VENDORS
from tests.planted import planted
from transport.messages import Clocks, UpstreamRequest

KEY = Secret.literal(planted("provider-key", "sk-"))


def adapter(
    kind: str = "openai-compatible", base_url: str | None = "http://llm.example/v1", **rest: Any
) -> ProviderAdapter:
    return build_adapter(Provider(name="p", type=kind, base_url=base_url, **rest))


def prepared(of: ProviderAdapter, *headers: tuple[str, str], key: Secret | None = KEY) -> UpstreamRequest:
    clocks = Clocks(1, 2, 3)
    return of.prepare(Call("POST", "/chat/completions", "", Headers(headers), b"{}", None, "gpt-4o", clocks), key)


def faults(provider: Provider) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(ConfigFaults) as failed:
        build_adapter(provider)
    return {fault.path: fault.message for fault in failed.value.faults}


@pytest.mark.parametrize(
    ("base_url", "path", "query", "url"),
    [
        ("http://h/v1", "/chat/completions", "", "http://h/v1/chat/completions"),
        ("http://h/v1/", "/chat/completions", "", "http://h/v1/chat/completions"),
        ("https://h:8443", "/models", "", "https://h:8443/models"),
        ("http://h/", "/models", "", "http://h/models"),
        ("http://[::1]:11434/v1", "/models", "", "http://[::1]:11434/v1/models"),
        ("http://h/v1", "/files", "limit=2&after=a%2Fb", "http://h/v1/files?limit=2&after=a%2Fb"),
        ("http://h/v1?api-version=1", "/files", "", "http://h/v1/files?api-version=1"),
        ("http://h/v1/?api-version=1", "/files", "limit=2", "http://h/v1/files?api-version=1&limit=2"),
        ("http://h/v1", "/files/a%20b/content", "", "http://h/v1/files/a%20b/content"),
    ],
)
def test_the_path_goes_below_the_base_url(base_url: str, path: str, query: str, url: str) -> None:
    assert url == adapter(base_url=base_url).url(path, query)


def test_openai_has_its_own_address_and_may_be_given_another() -> None:
    assert "https://api.openai.com/v1/models" == adapter("openai", None).url("/models")
    assert "https://eu.api.openai.com/v1/models" == adapter("openai", "https://eu.api.openai.com/v1").url("/models")


def test_the_request_is_the_call_with_the_providers_authentication() -> None:
    request = prepared(adapter(), ("content-type", "application/json"), ("authorization", "Bearer of-the-client"))
    assert ("POST", "http://llm.example/v1/chat/completions", b"{}", None, Clocks(1, 2, 3)) == (
        request.method,
        request.url,
        request.body,
        request.body_length,
        request.clocks,
    )
    assert [
        ("content-type", "application/json"),
        ("authorization", f"Bearer {KEY.reveal()}"),
    ] == list(request.headers)


def test_without_a_credential_nobody_is_authenticated() -> None:
    assert "authorization" not in prepared(adapter(), key=None).headers


def test_a_rotated_key_serves_the_next_request() -> None:
    keys = iter(["first", "second"])
    key, bound = Secret(lambda: next(keys), "rotating"), adapter()
    assert ["Bearer first", "Bearer second"] == [
        prepared(bound, key=key).headers.get("authorization") for _ in range(2)
    ]


def test_an_accept_encoding_that_the_pipeline_left_in_is_kept() -> None:
    assert ["gzip, br"] == prepared(adapter(), ("accept-encoding", "gzip, br")).headers.get_all("accept-encoding")


def test_the_entrys_own_headers_win() -> None:
    bound = adapter(headers={"X-Title": "Sluice", "Accept-Encoding": "gzip", "Authorization": "Basic eA=="})
    request = prepared(bound, ("x-title", "of the client"), ("x-other", "kept"))
    assert [
        ("x-other", "kept"),
        ("x-title", "Sluice"),
        ("accept-encoding", "gzip"),
        ("authorization", "Basic eA=="),
    ] == list(request.headers)


def test_organization_and_project_are_sent_to_openai() -> None:
    bound = adapter("openai", None, options={"organization": "org-1", "project": "proj_2"})
    headers = prepared(bound, ("openai-project", "of the client")).headers
    assert (["org-1"], ["proj_2"]) == (headers.get_all("openai-organization"), headers.get_all("openai-project"))


def test_an_address_must_be_given_where_the_type_has_none() -> None:
    assert {("base_url",): "the type `openai-compatible` needs one: add `base_url: http://host:port/v1`"} == faults(
        Provider(name="p", type="openai-compatible")
    )


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("llm.example/v1", "not an http(s) URL"),
        ("ftp://llm.example/", "not an http(s) URL"),
        ("http:///v1", "not an http(s) URL"),
        ("http://h:0/", "not an http(s) URL"),
        ("http://h:port/v1", "not a URL"),
        ("http://[::1/v1", "not a URL"),
        ("http://user:pass@h/v1", "move the user and password"),
        ("http://h/v1#x", "no fragment"),
        ("http://h/v 1", "percent-encoded"),
        ("http://b\u00fccher.example/v1", "percent-encoded"),
    ],
)
def test_an_address_that_is_none_is_refused(base_url: str, words: str) -> None:
    found = faults(Provider(name="p", type="openai-compatible", base_url=base_url))
    assert [("base_url",)] == list(found)
    assert words in found["base_url",]
    assert "pass" not in found["base_url",].replace("password", "")


def test_all_faults_of_an_entry_are_told_at_once() -> None:
    found = faults(
        Provider(
            name="p",
            type="openai",
            base_url="nowhere",
            headers={"bad name": "x", "Host": "x", "x-a": "1", "X-A": "2", "x-b": "secret\r\nx: y"},
            options={"organisation": "org-1", "project": 7, "organization": "a b", "zzz": 1},
        )
    )
    assert {
        ("base_url",),
        ("headers", "bad name"),
        ("headers", "Host"),
        ("headers", "X-A"),
        ("headers", "x-b"),
        ("options", "organisation"),
        ("options", "project"),
        ("options", "organization"),
        ("options", "zzz"),
    } == set(found)
    assert "unknown option `organisation`: did you mean `organization`?" == found["options", "organisation"]
    assert "unknown option `zzz` (one of `organization`, `project`)" == found["options", "zzz"]
    assert "secret" not in found["headers", "x-b"]


def test_a_type_without_options_says_so() -> None:
    entry = Provider(name="p", type="openai-compatible", base_url="http://h", options={"region": "eu"})
    assert {("options", "region"): "unknown option `region`: this type takes no options; remove it"} == faults(entry)


def test_an_unknown_type_names_the_nearest() -> None:
    entry = Provider(name="p", type="openai-compatable")
    assert {("type",): "unknown provider type `openai-compatable`: did you mean `openai-compatible`?"} == faults(entry)


def test_every_vendor_is_a_type_and_local_types_answer_by_themselves() -> None:
    assert VENDORS.keys() <= PROVIDER_TYPES.keys()
    for name, kind in PROVIDER_TYPES.items():
        base_url = "http://h/v1" if name == "openai-compatible" else None
        bound = build_adapter(Provider(name="p", type=name, base_url=base_url))
        assert ("local" == kind.transport) == isinstance(bound, LocalAdapter)
