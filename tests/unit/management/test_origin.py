"""Names, pages and headers as plain decisions; over a socket: test_way.py."""

from typing import Any

import pytest

from config.faults import ConfigFaults
from config.schema import Config, Management, Server
from management.handler.origin import Origins, Site, Way, host_of, parse_origin

OURS = Origins(
    names=("Gateway.Internal", "0.0.0.0"),
    globs=("*.example.com", "sluice", "api.{eu,us}.example.net"),
    pages=("https://Console.Example.com", "http://localhost:3000"),
    public_url="https://llm.example.org:8443/base",
)


@pytest.mark.parametrize(
    "authority",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "10.1.2.3:80",
        "203.0.113.7",
        "[::1]",
        "[::1]:8080",
        "[fe80::1]",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "a.localhost",
        "gateway.internal",
        "GATEWAY.internal.:80",
        "llm.example.org",
        "llm.example.org:1",
        "a.example.com",
        "A.B.Example.com:443",
        "sluice:8080",
        "api.eu.example.net",
    ],
)
def test_addresses_and_names_of_our_own_are_known(authority: str) -> None:
    assert OURS.knows(authority)


@pytest.mark.parametrize(
    "authority",
    [
        "",
        ":8080",
        "evil.test",
        "evil.test:8080",
        "example.com",
        "xexample.com",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "127.0.0.1.nip.io",
        "notlocalhost",
        "sluice.evil.test",
        "gateway.internal.evil.test",
        "llm.example.org.evil.test",
        "api.ap.example.net",
        "[evil.test]",
        "2130706433",
        "0x7f.1",
        "console.example.org",
    ],
)
def test_other_names_are_not(authority: str) -> None:
    assert not OURS.knows(authority)
    assert not Origins().knows("sluice")


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("https://a.example.com", Site("https", "a.example.com", 443)),
        ("http://a:8080", Site("http", "a", 8080)),
        ("HTTP://A.", Site("http", "a", 80)),
        ("http://[::1]:1", Site("http", "::1", 1)),
        ("null", None),
        ("", None),
        ("*", None),
        ("a.example.com", None),
        ("https://", None),
        ("https://a/", None),
        ("https://a?b", None),
        ("https://a#", None),
        ("https://u@a", None),
        ("https://a:0", None),
        ("https://a:99999", None),
        ("https://[::1", None),
        ("file://a", None),
        ("chrome-extension://abc", None),
    ],
)
def test_an_origin_is_scheme_host_and_port(text: str, site: Site | None) -> None:
    assert site == parse_origin(text)


@pytest.mark.parametrize(
    ("origin", "authority", "own"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://localhost", "localhost", True),
        ("https://localhost", "localhost:443", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://LOCALHOST:8080", "localhost:8080", True),
        ("https://llm.example.org:8443", "backend", True),
        ("http://llm.example.org:8443", "backend", False),
        ("https://llm.example.org", "backend", False),
        ("http://localhost:8081", "localhost:8080", False),
        ("http://localhost", "localhost:8080", False),
        ("http://evil.test:8080", "localhost:8080", False),
        ("null", "localhost:8080", False),
        ("null", "null", False),
        ("", "", False),
    ],
)
def test_a_page_is_the_gateways_own_where_its_origin_is_the_one_that_was_called(
    origin: str, authority: str, own: bool
) -> None:
    assert own == OURS.is_own(origin, authority)


def way(method: str = "POST", pages: tuple[str, ...] = (), *authorities: str, https: bool = False) -> Way:
    return Way(
        origins=OURS,
        method=method,
        authorities=authorities or ("localhost",),
        pages=pages,
        preflight=method == "OPTIONS",
        https=https,
    )


@pytest.mark.parametrize("page", ["https://console.example.com", "http://localhost:3000"])
def test_pages_that_are_listed_may_call_and_read(page: str) -> None:
    listed = way("POST", (page,))
    listed.require_own_page()
    assert page == dict(listed.headers)["Access-Control-Allow-Origin"]
    assert way("OPTIONS", (page,)).is_admitted_preflight


@pytest.mark.parametrize(
    "pages",
    [
        ("https://console.example.com.evil.test",),
        ("http://console.example.com",),
        ("https://console.example.com:444",),
        ("https://console.example.com/",),
        ("https://CONSOLE.example.com",),
        ("null",),
        ("*",),
        ("https://console.example.com", "https://console.example.com"),
        ("https://console.example.com, https://evil.test",),
    ],
)
def test_no_other_page_may(pages: tuple[str, ...]) -> None:
    assert [("Vary", "Origin")] == way("POST", pages).headers
    assert not way("OPTIONS", pages).is_admitted_preflight
    for method in ("POST", "PUT", "PATCH", "DELETE", "BREW"):
        with pytest.raises(Exception, match="may not change anything"):
            way(method, pages).require_own_page()
    for method in ("GET", "HEAD"):
        way(method, pages).require_own_page()


def test_the_browser_is_told_to_stay_with_https_where_it_came_by_it() -> None:
    assert ("Strict-Transport-Security", "max-age=31536000") in way("GET", (), "a.example.com", https=True).headers
    for told in (way("GET", (), "a.example.com"), way("GET", (), "localhost:1", https=True)):
        assert [("Vary", "Origin")] == told.headers


@pytest.mark.parametrize(
    ("authority", "host"),
    [("A.b:80", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("a.", "a"), ("", ""), (":80", ""), ("a:b:c", "a")],
)
def test_a_host_is_read_without_its_port(authority: str, host: str) -> None:
    assert host == host_of(authority)


def test_what_a_configuration_names_is_known() -> None:
    origins = Origins.of(
        Config(
            server=Server(listen="gateway.internal:8080", public_url="https://llm.example.org"),
            management=Management(
                listen="admin.internal:9090", allowed_hosts=("ops",), cors_origins=("https://a.test",)
            ),
        )
    )
    for name in ("gateway.internal", "admin.internal", "llm.example.org", "ops", "127.0.0.1"):
        assert origins.knows(name)
    assert origins.admits("https://a.test")
    assert not Origins.of(Config()).knows("gateway.internal")


@pytest.mark.parametrize(
    ("given", "path", "words"),
    [
        ({"pages": ("https://a.test", "*")}, ("management", "cors_origins", 1), "every page of the internet"),
        ({"pages": ("https://a.test/",)}, ("management", "cors_origins", 0), "not an origin"),
        ({"pages": ("null",)}, ("management", "cors_origins", 0), "not an origin"),
        ({"pages": ("a.test",)}, ("management", "cors_origins", 0), "not an origin"),
        ({"globs": ("[",)}, ("management", "allowed_hosts", 0), "never closed"),
        ({"globs": ("https://a.test",)}, ("management", "allowed_hosts", 0), "without scheme and port"),
        ({"globs": ("a.test:80",)}, ("management", "allowed_hosts", 0), "without scheme and port"),
    ],
)
def test_what_is_no_name_and_no_origin_is_a_fault_of_the_configuration(
    given: dict[str, Any], path: tuple[str | int, ...], words: str
) -> None:
    with pytest.raises(ConfigFaults) as refused:
        Origins(**given)
    [fault] = refused.value.faults
    assert path == fault.path
    assert words in fault.message
