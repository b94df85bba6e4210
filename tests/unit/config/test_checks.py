"""Addresses of listeners. The other checks speak through tests/golden/config (addresses, bounds, duplicates)."""

import pytest

from config.checks import Address, check, parse_listen


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("localhost:80", Address("localhost", 80)),
        ("a-b.example.com.:80", Address("a-b.example.com.", 80)),
    ],
)
def test_a_listener_has_a_host_and_a_port(text: str, address: Address) -> None:
    assert address == parse_listen(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write `127.0.0.1:8080`"),
        ("8080", "write `127.0.0.1:8080`"),
        ("localhost", "write `127.0.0.1:8080`"),
        ("localhost:http", "write `127.0.0.1:8080`"),
        ("localhost:٣", "write `127.0.0.1:8080`"),
        ("localhost:65536", "between 0 and 65535"),
        ("localhost:" + "9" * 5000, "between 0 and 65535"),
        (":80", "write `0.0.0.0:80`"),
        ("::1:80", "in brackets: `[::1]:80`"),
        ("[nonsense]:80", "nonsense"),
        ("http://x:80", "brackets"),
        ("a b:80", "not a host name"),
        ("-a:80", "not a host name"),
        ("a..b:80", "not a host name"),
    ],
)
def test_anything_else_is_told_with_a_mend(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[").replace(".", r"\.")):
        parse_listen(text)


def test_values_of_wrong_types_are_left_to_the_schema() -> None:
    assert [] == check(
        {
            "server": {"listen": 5, "trusted_proxies": "x", "public_url": None},
            "tokens": [{"name": 1}, {"name": 1}, 5],
            "providers": {"a": 1},
            "routes": [None],
        }
    )
    assert [] == check(None)


def test_an_address_may_have_everything_that_addresses_have() -> None:
    for url in ("https://example.com/v1", "http://[::1]:8080", "http://127.0.0.1:1/v1?api-version=2", "HTTPS://x"):
        assert [] == check({"providers": [{"base_url": url}]})
    (fault,) = check({"server": {"public_url": "https://x/?q=1"}})
    assert "query" in fault.message


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://[::1]:x", "vault:8200", "https://h/?token=x", "https://h/#x"]
)
def test_an_address_of_vault_that_no_path_can_be_put_behind_is_told_without_its_text(address: str) -> None:
    (fault,) = check({"secrets": {"vault": {"address": address}}})
    assert ("secrets", "vault", "address") == fault.path
    assert address not in fault.message
