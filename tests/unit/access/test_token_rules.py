"""What a token may say of itself: times, networks, owners; in the file and through the API alike."""

from ipaddress import ip_network
from typing import Any

import pytest

from access.address import parse_network
from access.permissions import require_usable
from access.token_rules import parse_time, token_faults
from access.tokens import RANDOM_BYTES, TokenIndex, digest, new_token
from config.faults import ConfigFaults, render_path
from config.schema import Token
from core.errors import AddressNotAllowed, Unauthenticated
from core.identity import ApiToken

TEXT = new_token(bytes(RANDOM_BYTES))
FITTING: dict[str, Any] = {
    "scope": "scope_token_user",
    "models": (),
    "endpoints": ("inference",),
    "ip_ranges": (),
    "owner": None,
}


def found(**members: Any) -> ApiToken:
    token = TokenIndex((Token(name="team", sha256=digest(TEXT), **members),)).find(TEXT)
    assert token is not None
    return token


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t00:00:01z", 1.0),
        ("1970-01-01 00:00:01Z", 1.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1969-12-31T23:00:00.5-01:00", 0.5),
        ("2027-01-31T12:00:00Z", 1801396800.0),
        ("2027-01-31T12:00:00.123456789Z", 1801396800.123456),
    ],
)
def test_a_time_is_read_with_its_offset(text: str, seconds: float) -> None:
    assert seconds == parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2027-01-31",
        "2027-01-31T12:00:00",
        "2027-01-31T12:00Z",
        "20270131T120000Z",
        "2027-02-31T12:00:00Z",
        "2027-01-31T25:00:00Z",
        "2027-01-31T12:00:00Z\n",
        "2027-W04-7T12:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "٢027-01-31T12:00:00Z",
        "1801396800",
    ],
)
def test_what_is_no_time_with_an_offset_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write it like `2027-01-31T12:00:00Z`"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        (" fd00::/8 ", "fd00::/8"),
        ("::1", "::1/128"),
        ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/95", None),
    ],
)
def test_a_network_is_read_as_addresses_are(text: str, network: str | None) -> None:
    if network is None:
        with pytest.raises(ValueError, match="bits set after its prefix"):
            parse_network(text)
    else:
        assert ip_network(network) == parse_network(text)


@pytest.mark.parametrize(
    ("members", "path", "mend"),
    [
        ({"ip_ranges": ("10.0.0.0/8", "10.0.0.1/8")}, "ip_ranges[1]", "did you mean `10.0.0.0/8`?"),
        ({"ip_ranges": ("example.com",)}, "ip_ranges[0]", "neither an address nor a network"),
        ({"owner": ""}, "owner", "1 to 128 printable characters"),
        ({"owner": "a\nb"}, "owner", "printable"),
        ({"owner": "a" * 129}, "owner", "1 to 128"),
        ({"models": ("gpt-*", "[")}, "models[1]", "never closed"),
        ({"endpoints": ("file",)}, "endpoints[0]", "did you mean `files`?"),
        ({"scope": "scope_token_admin"}, "scope", "can be given to no token"),
        ({"scope": "scope_metrics", "models": ("*",)}, "models", "remove its models"),
    ],
)
def test_a_fault_names_its_place_and_the_mend(members: dict[str, Any], path: str, mend: str) -> None:
    (fault,) = token_faults((), **{**FITTING, **members})
    assert path == render_path(fault.path)
    assert mend in fault.message


def test_a_token_without_faults_has_none() -> None:
    full = {"models": ("gpt-*",), "ip_ranges": ("10.0.0.0/8", "::1"), "owner": "Ann Ó Hara <ann@example.com>"}
    assert [] == list(token_faults((), **{**FITTING, **full}))


def test_a_bad_time_in_the_file_is_a_fault_at_its_place() -> None:
    with pytest.raises(ConfigFaults) as raised:
        found(expires_at="2027-01-31", ip_ranges=("nowhere",))
    assert ["tokens[0].ip_ranges[0]", "tokens[0].expires_at"] == [
        render_path(fault.path) for fault in raised.value.faults
    ]


def test_a_token_of_the_file_that_has_expired_is_no_fault_of_the_file() -> None:
    token = found(expires_at="2001-01-01T00:00:00Z", owner="ann")
    assert "ann" == token.owner
    with pytest.raises(Unauthenticated, match="has expired"):
        require_usable(token, "192.0.2.1", 978307200.0)


LIMITED = found(expires_at="1970-01-01T00:16:40Z", ip_ranges=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7"))


@pytest.mark.parametrize("address", ["10.255.0.1", "::ffff:10.0.0.1", "2001:db8::1", "192.0.2.7"])
def test_a_token_may_be_used_from_its_networks_until_it_expires(address: str) -> None:
    require_usable(LIMITED, address, 999.999)
    with pytest.raises(Unauthenticated) as raised:
        require_usable(LIMITED, address, 1000.0)
    assert (401, "invalid_api_key") == (raised.value.client_status, raised.value.client_code)
    assert "has expired" in raised.value.message


@pytest.mark.parametrize("address", ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::1", "0.0.0.0", "", "@unix"])
def test_from_elsewhere_it_is_refused_with_a_code_of_its_own(address: str) -> None:
    with pytest.raises(AddressNotAllowed) as raised:
        require_usable(LIMITED, address, 0.0)
    assert (403, "address_not_allowed") == (raised.value.client_status, raised.value.client_code)
    assert "`ip_ranges`" in raised.value.message


def test_a_token_without_bounds_may_be_used_for_ever_and_from_everywhere() -> None:
    token = found()
    assert token.bounds is None
    require_usable(token, "", float("inf"))
