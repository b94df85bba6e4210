import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.address import MAX_HOPS, TrustedProxies, client_address, lockout_key
from config.faults import ConfigFaults
from core.headers import Headers

PROXIES = TrustedProxies(("10.0.0.0/8", "2001:db8:1::/48", "192.0.2.9"))


def forwarded(*values: str) -> Headers:
    return Headers([("host", "gateway"), *(("x-forwarded-for", value) for value in values)])


@pytest.mark.parametrize(
    ("peer", "hops", "client"),
    [
        ("198.51.100.1", (), "198.51.100.1"),
        # A stranger's own claim is not read.
        ("198.51.100.1", ("203.0.113.5",), "198.51.100.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.5",), "203.0.113.5"),
        # Left of the first untrusted hop stands what a stranger wrote.
        ("10.0.0.1", ("127.0.0.1, 203.0.113.5, 10.2.0.1",), "203.0.113.5"),
        ("10.0.0.1", ("127.0.0.1", "203.0.113.5", "10.2.0.1"), "203.0.113.5"),
        # All of them are ours: the left-most is the client.
        ("10.0.0.1", ("10.3.0.1,10.2.0.1",), "10.3.0.1"),
        # A hop that is none ends the walk at the proxy that told it.
        ("10.0.0.1", ("203.0.113.5, unknown, 10.2.0.1",), "10.2.0.1"),
        ("10.0.0.1", ("unknown",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.5:4711",), "203.0.113.5"),
        ("10.0.0.1", ("[2001:db8::5]:4711",), "2001:db8::5"),
        ("2001:db8:1::1", ("2001:db8::5",), "2001:db8::5"),
        ("192.0.2.9", ("203.0.113.5",), "203.0.113.5"),
        # As a dual-stack socket shows an IPv4 peer.
        ("::ffff:10.0.0.1", ("::ffff:203.0.113.5",), "203.0.113.5"),
        # A Unix socket has no address.
        ("", ("203.0.113.5",), ""),
    ],
)
def test_the_client_is_the_right_most_hop_that_is_no_proxy_of_ours(
    peer: str, hops: tuple[str, ...], client: str
) -> None:
    assert client == client_address(peer, forwarded(*hops), PROXIES)


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert "10.0.0.1" == client_address("10.0.0.1", forwarded("203.0.113.5"), TrustedProxies())


def test_a_long_list_is_read_to_a_bound() -> None:
    hops = ["203.0.113.5", *(f"10.0.{number // 256}.{number % 256}" for number in range(5000))]
    assert hops[-MAX_HOPS] == client_address("10.0.0.1", forwarded(", ".join(hops)), PROXIES)


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from(["10.0.0.1", "198.51.100.1"]))
def test_no_field_of_a_stranger_makes_an_error(field: str, peer: str) -> None:
    assert client_address(peer, forwarded(field), PROXIES)


@pytest.mark.parametrize(
    ("network", "mend"),
    [
        ("10.0.0.1/8", "did you mean `10.0.0.0/8`?"),
        ("proxy.internal", "neither an address nor a network"),
        ("", "neither an address nor a network"),
        ("10.0.0.0/99", "neither an address nor a network"),
    ],
)
def test_a_network_that_is_none_is_a_fault_with_a_mend(network: str, mend: str) -> None:
    with pytest.raises(ConfigFaults) as raised:
        TrustedProxies(("127.0.0.1", network))
    (fault,) = raised.value.faults
    assert ("server", "trusted_proxies", 1) == fault.path
    assert mend in fault.message


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:7:1:2:3:4", "2001:db8:0:7::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_lock_outs_count_an_ipv6_host_by_its_network(address: str, key: str) -> None:
    assert key == lockout_key(address)
