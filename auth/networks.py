"""Where a request comes from: the client behind trusted proxies, and its networks. Pure.

Whoever may choose their own address has as many budgets as they like, so X-Forwarded-For is believed
only from proxies that the operator named, and only its right-most hop that is none of them.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def client_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The client's address: the socket's peer, or what our own proxies say it is.

    `forwarded`: the X-Forwarded-For lines in the order in which they came; each proxy appends the
    address that it saw, so everything left of an untrusted hop is the client's own invention. Where a
    hop is no address the whole chain says nothing, and the peer counts.
    """
    if not forwarded:
        return peer
    address = _address(peer)
    if address is None or not _within(address, trusted):
        return peer
    for hop in reversed(",".join(forwarded).split(",")):
        address = _address(hop.strip(" \t"))
        if address is None:
            return peer
        if not _within(address, trusted):
            break
    return str(address)


@lru_cache(1024)
def networks_of(client: str) -> tuple[str, str]:
    """(/32, /24) of an IPv4 address, (/64, /48) of an IPv6 one; "" for what is no address.

    A home or a server has a whole /64 to choose from, an office a /24 or a /48.
    """
    address = _address(client)
    if address is None:
        return "", ""
    narrow, wide = (32, 24) if address.version == 4 else (64, 48)
    return str(ip_network((address, narrow), False)), str(ip_network((address, wide), False))


def address_of(client: str) -> str:
    """The address as one writes it, and nothing else that somebody may have sent; "-" for what is none."""
    return str(_address(client) or "-")


def is_within(client: str, network: str) -> bool:
    """Is a client's address, or its narrow network, within a network in CIDR form?"""
    try:
        inner, outer = ip_network(client, False), ip_network(network, False)
    except ValueError:
        return False
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def is_network(text: str) -> bool:
    """A CIDR of one organisation: of IPv4 at most a /8, of IPv6 at most a /20 and no part of a /64."""
    try:
        network = ip_network(text)
    except ValueError:
        return False
    if str(network) != text or "%" in text:
        return False
    return network.prefixlen >= 8 if network.version == 4 else 20 <= network.prefixlen <= 64


def _address(text: str) -> Address | None:
    """IPv4 inside IPv6 is IPv4; a zone id says nothing about who it is."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
