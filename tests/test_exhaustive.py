"""All 65,536 close codes over every transport, against the running command.

For each code: what is answered, then our FIN, and no reset.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial

import pytest
import trio

from . import wire
from .test_policy import ECHOED

pytestmark = pytest.mark.exhaustive

WORKERS = 4
OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")


def dial(address: str, context: ssl.SSLContext | None, session: ssl.SSLSession | None):
    """A blocking client's socket, connected."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(60)
        client.connect(address.removeprefix("unix:"))
        return client
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # or Nagle waits, over TLS
    if context is None:
        return client
    return context.wrap_socket(client, server_hostname="localhost", session=session)


def try_codes(address: str, context: ssl.SSLContext | None, opening: bytes, codes: range) -> int:
    """Close with each of the codes; returns how many were answered rightly, or fails."""
    session = None
    for code in codes:
        with dial(address, context, session) as client:
            client.sendall(opening + wire.close(code, b"bye"))
            received = b""
            while data := client.recv(65536):  # a reset would raise
                received += data
            session = getattr(client, "session", None)  # spares TLS most of its handshakes
        head, _, frames = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), (code, received)
        assert (OFFER[0].encode() in head) is (OFFER[0].encode() in opening)
        (close,) = wire.parse(frames)
        answer, reason = int.from_bytes(close.payload[:2], "big"), close.payload[2:]
        assert close.opcode == 0x8
        assert (answer, reason) == (code, b"bye") if code in ECHOED else answer == 1002, code
    return len(codes)


@pytest.mark.parametrize("transport", ["tcp", "compressed", "unix", "tls"])
async def test_every_close_code_is_answered_and_followed_by_our_fin(
    transport, program, certificate, authority, tmp_path
):
    options = ["--bind", f"unix:{tmp_path}/echo" if transport == "unix" else "127.0.0.1:0"]
    context = None
    if transport == "tls":
        files = certificate()
        options += ["--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"]]
        context = ssl.create_default_context()
        context.suppress_ragged_eofs = False
        authority.configure_trust(context)
    service = await program("serve", *options)
    address = (await service.url()).removeprefix("ws+").partition("://")
    address = address[2] or address[0]
    opening = wire.request("/", *([OFFER] if transport == "compressed" else []))
    answered = []

    async def work(first: int) -> None:
        codes = range(first, 65536, WORKERS)
        run = partial(try_codes, address, context, opening, codes)
        answered.append(await trio.to_thread.run_sync(run))

    async with trio.open_nursery() as reading:
        reading.start_soon(service.ends)
        async with trio.open_nursery() as working:
            for first in range(WORKERS):
                working.start_soon(work, first)
        service.process.terminate()
    assert sum(answered) == 65536
    assert sum("connection.closed" in line for line in service.lines) == 65536
    assert service.process.returncode == 0
