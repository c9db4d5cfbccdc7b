"""Forwarded headers: whatever they hold, the client is the peer or somebody a proxy named.

An input's first byte chooses the peer and who is trusted.  Each line of the rest is a
header's value: X-Forwarded-For if its first byte is odd, else Forwarded.
"""

from __future__ import annotations

import re
import time
from ipaddress import ip_address

from echo_service import forwarded

PEERS = ("10.0.0.1:5000", "[2001:db8::1]:5000", "unix:/run/echo.sock", "192.0.2.9:80")

TRUSTED = (
    (),
    ("10.0.0.0/8", "unix:"),
    ("2001:db8::/32", "192.0.2.0/24", "unix:"),
    ("0.0.0.0/0", "::/0", "unix:"),
)

MOST = 16384
"""Bytes of header fields together."""

PATIENCE = 2.0
"""Seconds of the processor for so much, which takes a hundredth."""

_NAMES = {0: b"forwarded", 1: b"x-forwarded-for"}
_ADDRESS = re.compile(
    r"(?:\[[0-9a-f:.]+(?:%\S+)?\]|[0-9.]+|unknown|_[A-Za-z0-9._-]{1,64})"
    r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]{1,64}))?"
)


def check(data: bytes) -> None:
    """Judge an input; a choice from 128 on repeats its lines to the length of a head."""
    choice, lines = data[0] if data else 0, data[1:].split(b"\n")
    headers = [(_NAMES[line[0] & 1], line[1:]) for line in lines if line]
    peer = PEERS[choice & 3]
    proxies = [forwarded.trusted(text) for text in TRUSTED[choice >> 2 & 3]]
    if choice & 0x80:
        headers = [(name, (value * MOST)[:MOST]) for name, value in headers[:1]]
        begun = time.process_time()
        forwarded.client(peer, headers, proxies)
        assert time.process_time() - begun < PATIENCE
    else:
        hold(peer, headers, proxies)


def hold(peer: str, headers: list[tuple[bytes, bytes]], proxies: list[forwarded.Trusted]) -> None:
    """Hold whom the headers name, and that nothing before them changes it."""
    client = forwarded.client(peer, headers, proxies)
    assert client == peer or _ADDRESS.fullmatch(client), client
    assert len(client) <= 150
    if not proxies or not headers:
        assert client == peer
    if client == peer or _is_trusted(client, proxies):
        return
    for junk in (b"", b'"', b"for=10.0.0.1", b"10.0.0.1, 10.0.0.1", b"\xff\\;,=", b'for="[::1]'):
        assert forwarded.client(peer, [(headers[0][0], junk), *headers], proxies) == client
        spoilt = [(name, junk + b"," + value) for name, value in headers[:1]]
        assert forwarded.client(peer, [*spoilt, *headers[1:]], proxies) == client


def _is_trusted(client: str, proxies: list[forwarded.Trusted]) -> bool:
    host = re.match(r"\[(.+)\]|([0-9.]+)", client)
    if host is None:  # it is hidden
        return False
    address = ip_address(host[1] or host[2])
    return any(address in network for network in proxies if not isinstance(network, str))
