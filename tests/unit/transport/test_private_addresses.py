"""Which addresses and names are not the internet's: the table of all kinds, and all spellings."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.private_addresses import PrivateAddress, literal, private, require_public, require_public_name


def words(text: str) -> list[str]:
    return text.split()


PUBLIC = words("""
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255 104.18.6.192 2606:4700::6812:6c0 2a00:1450:4001::64
2001:200:: 2001:4860:4860::8888 2001:db7:ffff:: 2001:db9:: 2003:: 2620:4f:7fff:: 2620:4f:8001:: 3ffe:ffff:: 3fff:1000::
::ffff:8.8.8.8 64:ff9b::8.8.8.8 2600:: 2600::1%eth0
""")

PRIVATE = {
    "this machine": "0.0.0.0 0.0.0.1 0.255.255.255 127.0.0.0 127.0.0.1 127.0.1.1 127.255.255.255 ::1 ::",
    "a private network": "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 fc00:: fd00::1 "
    "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0::1 feff:: 64:ff9b:1:: 64:ff9b:1::8.8.8.8 64:ff9b:1:ffff::1",
    "a network shared behind a carrier's NAT": "100.64.0.0 100.100.100.199 100.127.255.255",
    "the link": "169.254.0.0 169.254.1.1 169.254.255.255 fe80:: fe80::1 fe80::1%eth0 febf:ffff::",
    "the metadata of a cloud": "169.254.169.254 169.254.170.2 100.100.100.200 192.0.0.192 168.63.129.16 "
    "fd00:ec2::254 fd20:ce::254",
    "a multicast group": "224.0.0.0 224.0.0.251 239.255.255.255 ff00:: ff02::1 ff0e::1",
    "a reserved range": "240.0.0.0 255.255.255.254 255.255.255.255 ::2 ::7f00:1 ::127.0.0.1 ::8.8.8.8 100::1 200::1 "
    "::fffe:1.2.3.4 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8 64:ff9b:2:: 64:ff9a::1 400::1 1fff:: 4000:: 5f00::1 fe00::1 fbff::",
    "a network for special purposes": "192.0.0.0 192.0.0.8 192.0.0.170 192.0.0.255 192.31.196.1 192.52.193.1 192.175.48.1 "
    "2001:1::1 2001:2::1 2001:20::1 2001:1ff:: 2620:4f:8000::1",
    "a network for examples": "192.0.2.1 198.51.100.255 203.0.113.0 2001:db8::1 3fff::1 3fff:fff::",
    "a network for measurements": "198.18.0.0 198.19.255.255",
    "a tunnel of former times, which may lead to any address": "192.88.99.1 2002:: 2002:7f00:1:: 2002:a9fe:a9fe::1 "
    "2002:808:808::1 2001:: 2001:0:808:808::80ff:fffe 2001:0:4136:e378:8000:63bf:3fff:fdd2",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_let_through(address: str) -> None:
    assert private(ipaddress.ip_address(address)) is None
    require_public([address])
    require_public_name(address)


@pytest.mark.parametrize(("what", "address"), [(what, each) for what in PRIVATE for each in PRIVATE[what].split()])
def test_an_address_that_leads_elsewhere_is_told_apart(what: str, address: str) -> None:
    assert what == private(ipaddress.ip_address(address))
    with pytest.raises(PrivateAddress, match="is an address of"):
        require_public(["8.8.8.8", address])
    with pytest.raises(PrivateAddress, match="is an address of"):
        require_public_name(address)


@pytest.mark.parametrize("address", [each for each in " ".join(PRIVATE.values()).split() if ":" not in each])
@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}", "::ffff:{}%1", "::{}", "::ffff:0:{}", "64:ff9b:1::{}"])
def test_no_form_of_ipv6_hides_an_address(address: str, form: str) -> None:
    assert private(ipaddress.ip_address(form.format(address))) is not None


@pytest.mark.parametrize("address", [each for each in " ".join(PRIVATE.values()).split() if ":" not in each])
def test_no_tunnel_hides_an_address(address: str) -> None:
    number = int(ipaddress.IPv4Address(address))
    sixtofour = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))
    teredo = ipaddress.IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFFFFFF))
    assert [ipaddress.IPv4Address(address)] * 2 == [sixtofour.sixtofour, (teredo.teredo or "??")[1]]
    assert private(sixtofour) is not None
    assert private(teredo) is not None


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_let_through(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    inner = getattr(address, "ipv4_mapped", None) or address
    if inner.is_private or inner.is_multicast or inner.is_reserved or inner.is_loopback or inner.is_link_local:
        # NAT64 stands in `::/8`, which Python has as reserved.
        in_nat64 = address in ipaddress.ip_network("64:ff9b::/96") if address.version == 6 else False
        assert in_nat64 or private(address) is not None


@pytest.mark.parametrize(
    "host",
    words(
        "127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0X7F.1 0x7f.0.0.0x1 017700000001 0177.0.0.01 127.0.0.1. 0 0x0 00 "
        "169.254.43518 0xa9fea9fe 2852039166 0251.0376.0251.0376 ::1 ::ffff:7f00:1 fe80::1%25eth0 192.168.257"
    ),
)
def test_no_spelling_hides_an_address(host: str) -> None:
    with pytest.raises(PrivateAddress, match="is an address of"):
        require_public_name(host)


@pytest.mark.parametrize(
    "host",
    words(
        "localhost LOCALHOST localhost. a.localhost metadata metadata.google.internal Metadata.Google.Internal. printer.local "
        "nas.lan wiki.corp a.home.arpa intranet 1.2.3.4.5 127.0.0.0x7f.1 a.b.0x a.7 example..com .example.com example.com.. "
        "127%2e0%2e0%2e1 exa$mple.com [::1]"
    ),
)
def test_a_name_that_the_internet_does_not_have_is_refused(host: str) -> None:
    with pytest.raises(PrivateAddress):
        require_public_name(host)


@pytest.mark.parametrize(
    "host",
    words(
        "api.openai.com API.OPENAI.COM api.openai.com. xn--bcher-kva.example my_host.example.com localhost.example.com "
        "internal.example.com 10.example.com 127.0.0.1.nip.io"
    ),
)
def test_a_name_of_the_internet_may_lead_where_it_will(host: str) -> None:
    require_public_name(host)


@given(st.text(alphabet="0123456789abcdefxX.", max_size=24))
def test_what_the_system_takes_for_an_address_we_do(host: str) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return
    if host:
        assert str(literal(host)) == found[0][4][0]


def test_the_message_names_the_address_and_what_it_is() -> None:
    with pytest.raises(PrivateAddress, match=r"^10\.1\.2\.3 is an address of a private network$"):
        require_public(["1.1.1.1", "10.1.2.3"])
