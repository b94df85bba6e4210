"""The address of the client, behind however many proxies of ours.

``X-Forwarded-For`` is a list to which each proxy appends the peer that it saw. Whatever stands left of the first
hop that is not ours was written by a stranger, so the list is read from the right
(https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-For#selecting_an_ip_address).
"""

import ipaddress
from functools import lru_cache

from config.faults import ConfigFaults, Fault
from core.headers import Headers

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS = 32
"""Hops that are read at most: a chain of proxies is short, a header field need not be."""
_MAPPED_BITS = 96


class TrustedProxies:
    """The networks of `server.trusted_proxies`."""

    __slots__ = ("_networks",)

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        """
        Raises:
            config.faults.ConfigFaults: an entry is neither an address nor a network.
        """
        faults = []
        parsed: list[IPNetwork] = []
        for position, network in enumerate(networks):
            try:
                parsed.append(parse_network(network))
            except ValueError as error:
                faults.append(Fault(("server", "trusted_proxies", position), str(error)))
        if faults:
            raise ConfigFaults(faults)
        self._networks = tuple(parsed)

    def __contains__(self, address: object) -> bool:
        return any(address in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


def client_address(peer_ip: str, headers: Headers, trusted_proxies: TrustedProxies) -> str:
    """The right-most hop that is no trusted proxy: the peer itself, unless the peer is one.

    A hop that is no address ends the walk at the proxy that reported it; when every hop is a trusted proxy, the
    left-most is the client. ``peer_ip`` that is no address (a Unix socket's) is given back as it is.
    """
    if not trusted_proxies:
        return peer_ip
    client = parse_address(peer_ip)
    if client is None or client not in trusted_proxies:
        return peer_ip
    # Several fields are one list (RFC 9110 section 5.3).
    hops = ",".join(headers.get_all("x-forwarded-for")).rsplit(",", MAX_HOPS)
    for hop in reversed(hops[-MAX_HOPS:]):
        address = parse_address(_without_port(hop.strip()))
        if address is None:
            break
        client = address
        if client not in trusted_proxies:
            break
    return str(client)


@lru_cache(maxsize=1024)
def lockout_key(address: str) -> str:
    """What failures are counted by: an IPv4 address, or the /64 of an IPv6 one, which one host commonly has whole."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


def parse_network(text: str) -> IPNetwork:
    """An address or a network.

    Raises:
        ValueError: it is neither; the message says how to mend it.
    """
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError:
        raise ValueError(_mend(text)) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        # As addresses are read: see parse_address.
        return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def parse_address(text: str) -> IPAddress | None:
    """An address as :func:`client_address` gives it; None for what is none, such as a Unix socket's peer."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d; they are the same hosts.
        return address.ipv4_mapped
    return address


def _without_port(hop: str) -> str:
    """``1.2.3.4:567`` and ``[::1]:80`` as some proxies write them, without brackets and port."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    if hop.count(":") == 1:
        return hop.partition(":")[0]
    return hop


def _mend(network: str) -> str:
    try:
        whole = ipaddress.ip_network(network.strip(), strict=False)
    except ValueError:
        return f"`{network}` is neither an address nor a network: write it like 10.0.0.0/8 or fd00::/8"
    return f"`{network}` has bits set after its prefix: did you mean `{whole}`?"
