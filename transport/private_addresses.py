"""Addresses that no server on the internet has: what is behind them is our own machine, its network or its cloud.

The tables are those of IANA's special-purpose registries
(https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry),
and of multicast. They are written out here, since what :mod:`ipaddress` calls private differs among versions of Python.
Most clouds keep their metadata at a link-local address; those that do not have lines of their own.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = "the metadata of a cloud"
_PRIVATE: Final = "a private network"
_SPECIAL: Final = "a network for special purposes"
_EXAMPLES: Final = "a network for examples"
_OLD_TUNNEL: Final = "a tunnel of former times, which may lead to any address"

# The narrower stands first: it says more.
_IPV4: Final = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("169.254.169.254/32", _METADATA),  # Amazon, Google, Azure, Oracle, DigitalOcean …
        ("169.254.170.2/32", _METADATA),  # credentials of tasks on Amazon's ECS
        ("100.100.100.200/32", _METADATA),  # Alibaba
        ("192.0.0.192/32", _METADATA),  # Oracle's older one
        ("168.63.129.16/32", _METADATA),  # Azure's WireServer: a public address, answered by the machine's host
        ("0.0.0.0/8", "this machine"),
        ("10.0.0.0/8", _PRIVATE),
        ("100.64.0.0/10", "a network shared behind a carrier's NAT"),
        ("127.0.0.0/8", "this machine"),
        ("169.254.0.0/16", "the link"),
        ("172.16.0.0/12", _PRIVATE),
        ("192.0.0.0/24", _SPECIAL),
        ("192.0.2.0/24", _EXAMPLES),
        ("192.31.196.0/24", _SPECIAL),
        ("192.52.193.0/24", _SPECIAL),
        ("192.88.99.0/24", _OLD_TUNNEL),
        ("192.168.0.0/16", _PRIVATE),
        ("192.175.48.0/24", _SPECIAL),
        ("198.18.0.0/15", "a network for measurements"),
        ("198.51.100.0/24", _EXAMPLES),
        ("203.0.113.0/24", _EXAMPLES),
        ("224.0.0.0/4", "a multicast group"),
        ("240.0.0.0/4", "a reserved range"),
    )
)
_IPV6: Final = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("fd00:ec2::254/128", _METADATA),  # Amazon
        ("fd20:ce::254/128", _METADATA),  # Google
        ("::1/128", "this machine"),
        ("::/128", "this machine"),
        ("64:ff9b:1::/48", _PRIVATE),  # NAT64 within a network (RFC 8215): where the IPv4 address stands is its matter
        ("fc00::/7", _PRIVATE),
        ("fe80::/10", "the link"),
        ("fec0::/10", _PRIVATE),  # site-local, deprecated (RFC 3879)
        ("ff00::/8", "a multicast group"),
        ("2001::/32", _OLD_TUNNEL),  # Teredo
        ("2001::/23", _SPECIAL),
        ("2001:db8::/32", _EXAMPLES),
        ("2002::/16", _OLD_TUNNEL),  # 6to4
        ("2620:4f:8000::/48", _SPECIAL),
        ("3fff::/20", _EXAMPLES),
    )
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
# RFC 6761, 6762, 8375, 9476, ICANN's board on `.internal` of 2024, and what routers and offices use all the same.
_PRIVATE_NAMES: Final = ("localhost", "local", "internal", "home.arpa", "alt", "lan", "intranet", "corp", "home")


class PrivateAddress(Exception):
    """An address that may not be connected to; the text has it, and what it is."""


def require_public(addresses: Iterable[str]) -> None:
    """One that is private among several is enough: whoever named them so has nothing good in mind.

    Raises:
        PrivateAddress: one of ``addresses`` is none of the internet's.
    """
    for text in addresses:
        what = private(ipaddress.ip_address(text))
        if what is not None:
            raise PrivateAddress(f"{text} is an address of {what}")


def require_public_name(host: str) -> None:
    """As far as a host that somebody else resolves can be judged by its text alone.

    Raises:
        PrivateAddress: an address that is none of the internet's, in whatever spelling a resolver takes, or a name that
            does not exist on the internet.
    """
    host = host.removesuffix(".")
    address = literal(host)
    if address is not None:
        require_public((str(address),))
        return
    labels = host.lower()
    if _NAME.fullmatch(host) is None or _NUMBER.fullmatch(labels.rpartition(".")[2]) is not None:
        raise PrivateAddress(f"{host} is no name of the internet")
    for ending in _PRIVATE_NAMES:
        if labels.endswith(f".{ending}"):
            raise PrivateAddress(f"{host} is a name of a private network")


def literal(host: str) -> _Address | None:
    """The address that ``host`` is, as resolvers read it: ``127.1``, ``0x7f000001`` and ``017700000001`` are one; None
    for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # inet_aton(3) reads what stands before a space, which no host has.
        return None if " " in host else ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def private(address: _Address) -> str | None:
    """What ``address`` leads to that is not the internet; None: it is the internet's."""
    if isinstance(address, ipaddress.IPv6Address):
        address = ipaddress.IPv6Address(int(address))  # without its zone, which only says by which interface
        if address in _MAPPED or address in _NAT64:
            # NAT64's well-known prefix (RFC 6052) is how a network without IPv4 reaches all who have nothing else.
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _IPV4 if address in network), None)
    what = next((what for network, what in _IPV6 if address in network), None)
    return what if what is not None or address in _GLOBAL_UNICAST else "a reserved range"
