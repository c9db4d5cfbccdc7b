"""Who a request is from, by the proxies that passed it on: `Forwarded`, `X-Forwarded-For`.

Each proxy writes whom it has the request from at the end of the list.  So the list is
read from its end, and only as far as its writers are trusted: the first address that
isn't is the client, and what stands before it is what the client says of itself.

The module is pure, and what it returns fits in a line of a log, whatever came.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

UNIX: Final = "unix:"
"""Stands for the peers of unix sockets, who have no address: the socket's file mode says who
they are."""

Trusted: TypeAlias = IPv4Network | IPv6Network | str
"""A network whose hosts are proxies of ours, or `UNIX`."""

Address: TypeAlias = IPv4Address | IPv6Address

_NETWORK: Final = re.compile(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?")

# An element of a list, in a line that is read backwards, so that a quotation mark which a client
# leaves open does not swallow what a proxy has appended.  Empty elements don't count (RFC 9110
# 5.6.1).
_ELEMENT: Final = re.compile(r'(?:[^",]|"[^"]*"?)+')

# RFC 7239 4.  Nothing that a proxy writes needs a backslash in a quoted string; one is malformed.
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PAIR: Final = rf'({_WORD})=(?:({_WORD})|"([^"\\]*)")'
_PAIRS: Final = re.compile(rf"(?:{_PAIR})?(?:[ \t]*+;[ \t]*+(?:{_PAIR})?)*+")
_EACH: Final = re.compile(_PAIR)

# RFC 7239 6.  An IPv6 address may come without brackets, as X-Forwarded-For has it.
_HIDDEN: Final = r"_[A-Za-z0-9._\-]{1,64}"
_V6: Final = r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*"
_NODE: Final = re.compile(
    rf"(?:(?P<hidden>unknown|{_HIDDEN})|\[(?P<v6>{_V6})\]|(?P<v4>[0-9.]+))"
    rf"(?P<port>:(?:[0-9]{{1,5}}|{_HIDDEN}))?|(?P<bare>{_V6})"
)


class _Node(NamedTuple):
    """A client or a proxy as another proxy names it; one that is hidden has no address."""

    name: str
    address: Address | None


def trusted(text: str) -> Trusted:
    """What `--trusted-proxy` takes: an address, a network or `UNIX`; raises ValueError.

    A network is refused where it has host bits, and where it is IPv4 written as IPv6: no
    address would be found in it.
    """
    if text == UNIX:
        return text
    if not _NETWORK.fullmatch(text):
        raise ValueError("not a network")
    network = ip_network(text)
    if _unmapped(network.network_address) != network.network_address:
        raise ValueError("IPv4 written as IPv6")
    return network


def client(peer: str, headers: Sequence[tuple[bytes, bytes]], proxies: Collection[Trusted]) -> str:
    """The name of the client: the socket's ``peer``, or whom trusted proxies name instead.

    ``peer`` is written as `listeners.name` does, and so is the client, but that a proxy may
    leave out the port, or hide the address: ``_hidden``, ``unknown``.  ``headers`` are
    those of the request, names in lower case.  Where something is malformed, the list is
    believed up to there; where all of it is trusted, the client is the first in it.
    """
    if not _trusts_peer(proxies, peer):
        return peer
    named = peer
    for node in _nodes(headers):
        if node is None:
            break
        named = node.name
        if not _trusts(proxies, node.address):
            break
    return named


def _trusts_peer(proxies: Collection[Trusted], peer: str) -> bool:
    if peer.startswith(UNIX):
        return UNIX in proxies
    return _trusts(proxies, _address(peer.rpartition(":")[0].strip("[]")))


def _trusts(proxies: Collection[Trusted], address: Address | None) -> bool:
    networks = (each for each in proxies if not isinstance(each, str))
    return address is not None and any(address in network for network in networks)


def _nodes(headers: Sequence[tuple[bytes, bytes]]) -> Iterator[_Node | None]:
    """Who is named, the last first; None where something is malformed or names nobody.

    ``X-Forwarded-For`` counts where there is no ``Forwarded``.
    """
    lines = _lines(headers, b"forwarded")
    if lines:
        return (_node(_for(element)) for element in _elements(lines))
    return (_node(element) for element in _elements(_lines(headers, b"x-forwarded-for")))


def _lines(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in headers if each == name]


def _elements(lines: list[str]) -> Iterator[str]:
    """The elements of a list, the last first."""
    for line in reversed(lines):
        for match in _ELEMENT.finditer(line[::-1]):
            if element := match[0][::-1].strip(" \t"):
                yield element


def _for(element: str) -> str:
    """The node that an element of ``Forwarded`` names; empty where it names none, or many."""
    if not _PAIRS.fullmatch(element):
        return ""
    pairs = _EACH.findall(element)
    nodes = [token or quoted for name, token, quoted in pairs if name.lower() == "for"]
    return nodes[0] if len(nodes) == 1 else ""


def _node(text: str) -> _Node | None:
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    port = match["port"] or ""
    if match["hidden"]:
        return _Node(match["hidden"] + port, None)
    address = _address(match["v6"] or match["v4"] or match["bare"])
    if address is None:
        return None
    name = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    return _Node(name + port, address)


def _address(text: str) -> Address | None:
    try:
        return _unmapped(ip_address(text))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    """The IPv4 address that a socket for both kinds writes as IPv6 (RFC 4291 2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address
