"""What a network does to connections, and what becomes of them.

Times are those of the machine: what is judged by them has a lower bound that is exact, and an
upper one that is a small part of the quarter of an hour after which TCP itself gives up.
"""

from __future__ import annotations

import random
import signal
import socket
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
import trio

from tests import wire
from tests.conftest import eventually
from tests.network.cable import Faults
from tests.test_memory import MIB, OFFER
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame

if TYPE_CHECKING:
    from tests.network.conftest import Link

pytestmark = [pytest.mark.network, pytest.mark.usefixtures("in_time")]

QUICK = ("--ping-interval", "1", "--ping-timeout", "1", "--close-timeout", "1")
"""A dead peer is found in two seconds, and one more is granted for its Close."""

MARGIN = 15
"""Seconds that a busy machine may take longer."""

LOST = 40
"""Peers that are lost at once, each in the middle of a message."""

TROUBLES = {
    # what the cable does to each packet, either way: what has to have happened
    "loss of 5 %, each way": (Faults(loss=0.05, delay=0.02), "loss"),
    "loss of 20 %, there and back": (Faults(loss=0.1), "loss"),
    "delay": (Faults(delay=0.1), None),
    "jitter": (Faults(delay=0.025, jitter=0.075), "overtaken"),
    "duplicates": (Faults(duplicate=0.3, delay=0.01), "duplicate"),
    "damage": (Faults(damage=0.05), "damage"),
    "all of it": (
        Faults(loss=0.03, damage=0.01, duplicate=0.1, delay=0.02, jitter=0.03),
        "overtaken",
    ),
}

SIZES = [0, 1, 125, 126, 1460, 5000, 65535, 65536]


async def exchange(client: wire.Client, chance: random.Random, *, compressed: bool) -> None:
    """Exchange a message of each size, see each echo come back byte for byte, and close."""
    squeeze, stretch = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)
    for size in chance.sample(SIZES, len(SIZES)):
        opcode = chance.choice([TEXT, BINARY])
        payload = ("ß" * (size // 2)).encode() if opcode == TEXT else chance.randbytes(size)
        body = wire.deflate(payload, squeeze) if compressed else payload
        await client.send(wire.frame(opcode, body, rsv=4 * compressed))
        echo = await client.frame()
        got = wire.inflate(echo.payload, stretch) if echo.rsv else echo.payload
        assert (echo.opcode, got) == (opcode, payload)
    await client.send(wire.close(1000, b"bye"))
    assert wire.parse(await client.rest()) == [Frame(CLOSE, b"\x03\xe8bye")]
    await client.stream.aclose()


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_every_echo_and_the_close_come_through(serve, cable, trouble):
    link = await serve("--ping-interval", "0")
    cable.up.faults, needed = TROUBLES[trouble]
    cable.down.faults = cable.up.faults
    async with trio.open_nursery() as clients:
        for number in range(6):
            clients.start_soon(visit, link, number)
    for _ in range(6):
        closed = await link.closed()
        assert (closed["ending"], closed["sent_code"]) == ("peer_closed", 1000)
        assert closed["messages"] == len(SIZES)
        assert closed["bytes_in"] == closed["bytes_out"]
    if needed:
        assert cable.up.counts[needed]
        assert cable.down.counts[needed]


async def visit(link, number: int) -> None:
    compressed = bool(number % 2)
    client = await link.connect(*[OFFER] * compressed)
    await exchange(client, random.Random(number), compressed=compressed)


# The cable is pulled


def unplug(cable, how: str, *, back: bool = False) -> None:
    """Lose the connection between the machines, or have it back."""
    if how == "pulled":
        (cable.put_back if back else cable.pull)()
    elif how == "cut in its middle":
        cable.cut(off=not back)
    else:
        cable.client.run("ip", "link", "set", "card", "up" if back else "down")


@pytest.mark.parametrize("how", ["pulled", "cut in its middle", "the client's card is down"])
async def test_a_cable_that_is_put_back_in_time_costs_nothing(serve, cable, how):
    link = await serve("--ping-interval", "1", "--ping-timeout", "50")
    client = await link.connect()
    await client.echo(b"before")
    unplug(cable, how)
    sending = wire.frame(BINARY, bytes(range(256)) * 40)
    await client.send(sending)
    await eventually(lambda: waits_in_vain(link))
    unplug(cable, how, back=True)
    frames = [await client.frame() for _ in range(2)]
    assert Frame(BINARY, bytes(range(256)) * 40) in frames
    assert Frame(PING, b"") in frames
    await client.send(wire.frame(PONG))
    await client.echo(b"after")


def waits_in_vain(link: Link) -> bool:
    """Whether the service has sent something again that it has had no answer to."""
    rows = link.cable.service.run("cat", "/proc/thread-self/net/tcp").splitlines()[1:]
    return any(int(row.split()[6], 16) for row in rows)


# The cable stays away


async def begin(link: Link, size: int) -> wire.Client:
    """A client that has sent half of a message of this size."""
    client = await link.connect()
    await client.send(wire.header(BINARY, size) + wire.KEY + bytes(size // 2))
    return client


async def test_peers_behind_a_pulled_cable_are_found_by_the_keepalive(serve, cable):
    """Their descriptors are given back, though no FIN has come, nor the ACK of our own."""
    link = await serve(*QUICK)
    files = link.files()
    clients = [await begin(link, 20_000) for _ in range(LOST)]
    assert link.files() == files + LOST
    cable.cut()
    for client in clients[::2]:  # these are gone, the others silent
        await trio.aclose_forcefully(client.stream)
    for _ in clients:
        closed = await link.closed()
        assert (closed["ending"], closed["sent_code"]) == ("idle", 1011)
        assert closed["received_code"] == 1006
        assert 2 <= closed["duration_s"] < 3 + MARGIN
    await eventually(lambda: link.files() == files)


async def test_a_peer_whose_machine_came_up_anew_is_gone_as_soon_as_it_is_asked(serve, cable):
    """It answers with a reset (RFC 9293 3.5.2), and the ping timeout isn't waited for."""
    link = await serve("--ping-interval", "1", "--ping-timeout", "50")
    client = await link.connect()
    await client.echo()
    cable.cut()
    no_linger = struct.pack("ii", True, 0)
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    await client.stream.aclose()
    await eventually(lambda: cable.up.counts["unheard"])
    cable.cut(off=False)
    closed = await link.closed()
    assert (closed["ending"], closed["received_code"]) == ("vanished", 1006)
    assert closed["duration_s"] < 1 + MARGIN


async def test_a_peer_that_is_lost_while_an_echo_is_due_has_stalled(serve, cable):
    link = await serve("--stall-timeout", "2")
    cable.service.set("ipv4/tcp_wmem", "4096 16384 65536")
    client = await link.connect()
    cable.down.faults = Faults(rate=1e5)
    await client.send(wire.frame(BINARY, bytes(MIB)))
    await client.stream.receive_some(1)
    cable.cut()
    closed = await link.closed()
    assert (closed["ending"], closed["sent_code"]) == ("stalled", None)
    assert 2 <= closed["duration_s"] < 4 + MARGIN


async def test_a_drain_ends_in_its_time_though_the_cable_is_pulled(serve, cable):
    link = await serve("--drain-timeout", "2", "--close-timeout", "50")
    client = await link.connect()
    await client.echo()
    cable.pull()
    begun = trio.current_time()
    link.service.process.send_signal(signal.SIGTERM)
    assert await link.service.ends() == 0
    assert 2 <= trio.current_time() - begun < 2 + MARGIN


# What does not fit


async def test_a_narrow_place_that_tells_of_itself_costs_nothing(serve, cable):
    link = await serve()
    cable.down.faults = cable.up.faults = Faults(mtu=600)
    await (await link.connect()).echo(bytes(MIB), BINARY)
    assert cable.up.counts["too big"]
    assert cable.down.counts["too big"]


async def test_a_narrow_place_that_is_silent_lets_small_echoes_pass_and_ends_the_others(
    serve, cable
):
    """A black hole (RFC 2923 2.1): to the keepalive the peer is dead, for it hears nothing."""
    link = await serve(*QUICK)
    client = await link.connect()
    cable.down.faults = Faults(mtu=600, tells=False)
    await client.echo(bytes(400), BINARY)
    await client.send(wire.frame(BINARY, bytes(5000)))
    closed = await link.closed()
    assert (closed["ending"], closed["messages"]) == ("idle", 2)
    assert cable.down.counts["too big"]


async def test_a_silent_narrow_place_is_found_where_the_kernel_probes_for_it(serve, cable):
    """RFC 4821, with Linux's net.ipv4.tcp_mtu_probing."""
    cable.service.set("ipv4/tcp_mtu_probing", "1")
    cable.service.set("ipv4/tcp_retries1", "1")  # how often something is lost before it probes
    link = await serve()
    client = await link.connect()
    cable.down.faults = Faults(mtu=600, tells=False)
    await client.echo(bytes(5000), BINARY)
    assert cable.down.counts["too big"]


# Slow, and alive


async def test_a_slow_reader_on_a_slow_line_is_not_taken_for_a_stall(serve, cable):
    """The echo takes several times as long as the stall timeout allows nothing to be taken."""
    link = await serve("--stall-timeout", "2")
    cable.service.set("ipv4/tcp_wmem", "4096 16384 65536")
    client = await link.connect(receive_buffer=8192)
    cable.down.faults = Faults(rate=1e5)
    payload = random.Random(5).randbytes(700_000)
    begun = trio.current_time()
    await client.send(wire.frame(BINARY, payload))
    assert await client.frame() == Frame(BINARY, payload)
    assert trio.current_time() - begun > 6


async def test_a_ping_that_waits_behind_an_echo_on_a_slow_line_is_not_taken_for_a_silence(
    serve, cable
):
    """The whole echo is in the kernel's buffer, and the peer takes it bit by bit."""
    cable.service.set("ipv4/tcp_wmem", "4096 4194304 4194304")
    link = await serve("--ping-interval", "1", "--ping-timeout", "2")
    client = await link.connect()
    cable.down.faults = Faults(rate=1e5)
    payload = random.Random(5).randbytes(700_000)
    begun = trio.current_time()
    await client.send(wire.frame(BINARY, payload))
    assert await client.frame() == Frame(BINARY, payload)
    assert trio.current_time() - begun > 6
    assert await client.frame() == Frame(PING, b"")
    await client.send(wire.frame(PONG))
    await client.echo()
