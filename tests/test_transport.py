"""A socket, and any Trio stream: sent to and received from, and closed."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from echo_service.session import Session
from echo_service.transport import AT_ONCE, PIECE, SocketTransport, StreamTransport, Transport
from tests import wire
from tests.conftest import until
from tests.wire import TEXT

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def pair():
    """Two ends of a TCP connection: ours, and the peer's, which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname(), timeout=30)
        ours, _ = listening.accept()
    with peer, ours:
        yield ours, peer


def drain(peer: socket.socket) -> bytes:
    """All that has come."""
    received = bytearray()
    peer.setblocking(False)
    try:
        while piece := peer.recv(1 << 20):
            received += piece
    except BlockingIOError:
        pass
    return bytes(received)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_a_socket_is_made_non_blocking_and_sends_without_delay(pair):
    transport = SocketTransport(pair[0])
    assert transport.fd == pair[0].fileno()
    assert not pair[0].getblocking()
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_the_kernel_takes_is_sent_and_the_rest_returned(pair):
    transport = SocketTransport(pair[0])
    transport.send_now(b"")
    transport.send_now(b"whole")
    assert not transport.rest
    data = os.urandom(1 << 20) * 32
    transport.send_now(data)
    sent = len(data) - len(transport.rest)
    assert sent < len(data)
    assert data[sent:] == transport.rest
    assert drain(pair[1]) == b"whole" + data[:sent]


def test_the_rest_of_a_large_echo_is_left_to_who_waits_however_fast_the_peer_takes_it(monkeypatch):
    taken = []

    def write(fd: int, data: bytes) -> int:
        taken.append(min(len(data), 1 << 20))
        return taken[-1]

    ours, peer = socket.socketpair()
    with ours, peer:
        monkeypatch.setattr(os, "write", write)
        transport = SocketTransport(ours)
        transport.send_now(bytes(AT_ONCE + 5))
    assert sum(taken) == AT_ONCE
    assert len(transport.rest) == 5


def test_an_error_is_left_to_whoever_sends_the_rest():
    ours, peer = socket.socketpair()
    with ours:
        transport = SocketTransport(ours)
        peer.close()
        transport.send_now(b"data")
        assert transport.rest == b"data"


async def test_bytes_are_waited_for_and_none_is_the_end(pair, nursery):
    transport = SocketTransport(pair[0])
    received = []

    async def receive() -> None:
        while data := await transport.receive():
            received.append(data)
        received.append(b"")

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    pair[1].sendall(b"hello")
    while not received:
        await wait_all_tasks_blocked(0.01)
    pair[1].shutdown(socket.SHUT_WR)
    while b"" not in received:
        await wait_all_tasks_blocked(0.01)
    assert received == [b"hello", b""]


async def test_a_peer_that_takes_little_is_waited_for(pair, nursery):
    transport = SocketTransport(pair[0])
    data = os.urandom(1 << 20) * 16
    done = trio.Event()

    async def send() -> None:
        transport.send_now(data)
        while transport.rest:
            await transport.send_some()
        done.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked(0.01)
    assert not done.is_set()
    received = bytearray()
    pair[1].setblocking(False)
    while len(received) < len(data):
        await trio.lowlevel.wait_readable(pair[1])
        received += pair[1].recv(1 << 20)
    await done.wait()
    assert received == data


@pytest.mark.parametrize("end", ["receive", "send_some", "half_close"])
async def test_a_connection_that_is_reset_is_broken_with_the_cause_told(pair, end):
    transport = SocketTransport(pair[0])
    reset(pair[1])
    await wait_all_tasks_blocked(0.01)
    transport.rest = memoryview(b"data")
    with pytest.raises(trio.BrokenResourceError) as broken:
        await getattr(transport, end)()
    assert broken.value.__cause__.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


async def test_a_socket_is_half_closed_and_can_still_be_received_from(pair):
    transport = SocketTransport(pair[0])
    assert await transport.half_close()
    assert pair[1].recv(1) == b""
    pair[1].sendall(b"late")
    assert await transport.receive() == b"late"


@pytest.mark.parametrize("way", ["aclose", "abort"])
async def test_a_socket_is_closed(pair, way):
    await getattr(SocketTransport(pair[0]), way)()
    assert pair[0].fileno() == -1
    assert pair[1].recv(1) == b""


async def send_all(transport: Transport) -> None:
    while transport.rest:
        await transport.send_some()


async def test_what_the_peer_has_not_taken_is_told(pair):
    transport = SocketTransport(pair[0])
    assert transport.untaken == 0
    transport.send_now(os.urandom(1 << 20) * 8)
    held = transport.untaken
    assert held > 0
    assert pair[1].recv(1 << 18)
    drain(pair[1])
    await until(lambda: transport.untaken < held)


async def test_a_stream_is_given_pieces_and_tells_nothing_without_waiting():
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(ours)
    data = bytes(range(256)) * 256
    transport.send_now(data)
    assert transport.rest == data
    await transport.send_some()
    assert await theirs.receive_some() == data[:PIECE]
    await send_all(transport)
    assert await theirs.receive_some() == data[PIECE:]
    assert not transport.rest
    assert transport.untaken == 0


async def test_a_stream_that_can_be_half_closed_is():
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(ours)
    assert await transport.half_close()
    assert await theirs.receive_some() == b""
    await theirs.send_all(b"late")
    assert await transport.receive() == b"late"


async def test_a_stream_that_can_be_closed_as_a_whole_only_is_left_open():
    ours, theirs = memory_stream_pair()

    class Whole(trio.abc.Stream):
        async def send_all(self, data: bytes) -> None:
            await ours.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await ours.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await ours.receive_some(max_bytes)

        async def aclose(self) -> None:
            await ours.aclose()

    transport = StreamTransport(Whole())
    assert not await transport.half_close()
    transport.send_now(b"data")
    await send_all(transport)
    assert await theirs.receive_some() == b"data"
    await transport.aclose()
    assert await theirs.receive_some() == b""


# The exchange


@pytest.fixture(params=["socket", "stream"])
async def exchanged(request, pair):
    """A transport of either kind, and a client at its other end."""
    pair[1].setblocking(False)
    theirs = trio.SocketStream(trio.socket.from_stdlib_socket(pair[1]))
    ours = pair[0]
    if request.param == "socket":
        yield SocketTransport(ours), wire.Client(theirs)
    else:
        ours.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        yield StreamTransport(stream), wire.Client(theirs)
    await trio.aclose_forcefully(theirs)


async def test_there_is_nothing_to_decide_as_long_as_all_is_echoed(pair, nursery):
    transport, session = SocketTransport(pair[0]), Session(1000)
    client = pair[1]
    results = []

    async def exchange() -> None:
        results.append(await transport.exchange(session))

    nursery.start_soon(exchange)
    client.setblocking(False)
    for number in range(3):
        client.send(wire.frame(TEXT, b"%d" % number))
        await trio.lowlevel.wait_readable(client)
        assert client.recv(100) == b"\x81\x01%d" % number
    assert results == []
    assert transport.active > 0
    client.send(wire.close(1000))
    await trio.lowlevel.wait_readable(client)
    assert client.recv(100) == b"\x88\x02\x03\xe8"
    await wait_all_tasks_blocked()
    assert results == [True]


async def test_a_stream_gives_back_each_answer(exchanged):
    transport, client = exchanged
    session = Session(1000)
    await client.send(wire.frame(TEXT, b"a") + wire.close(1000))
    assert await transport.exchange(session)
    await send_all(transport)
    while session.verdict is None:
        assert await transport.exchange(session)
        await send_all(transport)
    await transport.half_close()
    assert await client.rest() == b"\x81\x01a\x88\x02\x03\xe8"


async def test_the_end_of_the_stream_is_told(exchanged):
    transport, client = exchanged
    await client.stream.send_eof()
    assert not await transport.exchange(Session(1000))
    assert transport.active == 0
