"""Attacks by peers that say little, take nothing, stay too long, or are many."""

from __future__ import annotations

import itertools
import resource
import socket
import ssl
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests import wire
from tests.attacks.service import (
    HASTY,
    HASTY_TLS,
    HASTY_WSPROTO,
    LANE,
    LIMIT,
    TLS,
    Service,
    Way,
    gone_is_fine,
)
from tests.attacks.siege import GROWTH, Attack, ways
from tests.conftest import PATIENCE, eventually
from tests.wire import BINARY, CLOSE, PING, TEXT, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.attacks

MANY = 1000
MANY_GROWTH = 64 << 20
"""For so many connections at once, each of 64 KiB."""
TLS_GROWTH = 192 << 20
"""For as many TLS connections, in OpenSSL's hands."""


def client_hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = client_hello()
GET = b"GET / HTTP/1.1\r\nHost: echo.example\r\nX: " + 20 * b"y"


async def together(attack: Callable[[int], Awaitable[None]], many: int = MANY) -> None:
    """So many attackers at once."""
    async with trio.open_nursery() as attackers:
        for number in range(many):
            attackers.start_soon(attack, number)


async def drip(client: wire.Client, data: bytes) -> None:
    """Send a byte at a time, three a second."""
    with gone_is_fine():
        for byte in data:
            await client.send(bytes([byte]))
            await trio.sleep(0.3)


async def slow(service: Service) -> None:
    """A third says nothing, a third begins, a third drips: all are cut, and who began is told."""

    async def attack(number: int) -> None:
        async with service.client() as client, trio.open_nursery() as dripping:
            await client.send(GET[: 20 * (number % 3)])
            if number % 3 == 2:
                dripping.start_soon(drip, client, GET[40:] + 1000 * b"x")
            assert wire.status(await client.rest()) == (408 if number % 3 else 0)
            dripping.cancel_scope.cancel()

    await together(attack)


async def slow_tls(service: Service) -> None:
    """The same in the handshake of TLS, where there is nobody yet to tell."""

    async def attack(number: int) -> None:
        async with service.client(tls=False) as client, trio.open_nursery() as dripping:
            await client.send(HELLO[: 20 * (number % 3)])
            if number % 3 == 2:
                dripping.start_soon(drip, client, HELLO[40:])
            with gone_is_fine():
                assert await client.rest() == b""
            dripping.cancel_scope.cancel()

    await together(attack)


async def slow_after_tls(service: Service) -> None:
    async def attack(number: int) -> None:
        async with service.client() as client:
            await client.stream.do_handshake()
            await client.send(b"GET /"[: number % 6])
            assert wire.status(await client.rest()) == (408 if number % 6 else 0)

    await together(attack, 200)


async def burst(service: Service) -> None:
    """A thousand that are connected all speak in the same moment, and all are answered."""
    files, said = service.files, HELLO if service.way.tls else wire.request()
    with ExitStack() as clients:
        address = ("127.0.0.1", service.port)
        attackers = [
            clients.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(MANY)
        ]
        await eventually(lambda: service.files == files + MANY)
        for attacker in attackers:
            attacker.sendall(said)
        for attacker in attackers:
            assert attacker.recv(1)


async def never_reads(service: Service, sent: bytes) -> None:
    """It sends as long as anybody takes it, and is dropped."""
    async with service.client() as client:
        await client.open()
        with gone_is_fine():
            while True:
                await client.send(sent)


async def never_leaves(service: Service, sent: bytes, after: bytes = b"") -> None:
    """Our Close, or the answer to its own, makes no impression on it."""
    files = service.files
    async with service.client() as client:
        await client.open()
        await client.send(sent)
        assert (await client.frame()).opcode == CLOSE
        with gone_is_fine():
            while after:
                await client.send(after)
        await eventually(lambda: service.files == files)


async def foreign(service: Service) -> None:
    """What belongs on another port, in one piece and byte by byte."""
    sent = [HELLO, b"\x80\x2e\x01\x03\x01", b"SSH-2.0-x\r\n", b"\r\n\r\n", bytes(range(256))]
    sent += [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(20000), b"\x16\x03\x01" + 16000 * b"\xff"]
    sent += [wire.request()] if service.way.tls else []
    for data, step in itertools.product(sent, (20000, 1)):
        async with service.client(tls=False) as client:
            with gone_is_fine():
                await client.send(*(data[at : at + step] for at in range(0, len(data), step)))
                await client.stream.send_eof()
                assert b" 101 " not in await client.rest()


OPENING = wire.request()
PHASES = {
    "before the handshake": b"",
    "within it": OPENING[:40],
    "after it": OPENING,
    "in a message": OPENING + frame(BINARY, bytes(1000))[:500],
    "in a large message": OPENING + frame(BINARY, bytes(LIMIT))[: LIMIT // 2],
    "in a fragmented one": OPENING + frame(TEXT, b"a", fin=False),
    "with an echo due": OPENING + frame(BINARY, bytes(LIMIT)),
    "in the closing handshake": OPENING + wire.close(1000),
    "after a violation": OPENING + b"\xff\xff",
    "within TLS": HELLO[:100],
    "after TLS's hello": HELLO,
}


async def resets(service: Service) -> None:
    """In each phase, twenty at once; some wait until they have been heard, some don't."""

    async def attack(number: int, sent: bytes) -> None:
        tls = service.way.tls and not sent.startswith(HELLO[:3])
        async with service.client(tls=tls) as client:
            with gone_is_fine():
                await client.send(sent)
                if sent.startswith(OPENING) and number % 2:
                    await client.head()
                if b"\x88\x82" in sent and number % 4 == 1:
                    await client.frame()
                below = getattr(client.stream, "transport_stream", client.stream)
                below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    for sent in PHASES.values():
        await together(partial(attack, sent=sent), 20)


async def storm(service: Service) -> None:
    """A thousand connect and are gone, before they are accepted or after."""
    for _ in range(MANY):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def too_many(service: Service) -> None:
    """503 below the file limit; once they go, service again."""
    statuses = []

    async def attack(_: int) -> None:
        async with service.client() as client:
            await client.send(wire.request())
            statuses.append(wire.status(await client.head()))
            if statuses[-1] == 101:
                await all_told.wait()

    all_told = trio.Event()
    async with trio.open_nursery() as attackers:
        for _ in range(300):
            attackers.start_soon(attack, 0)
        await eventually(lambda: len(statuses) == 300)
        all_told.set()
    assert (statuses.count(101), statuses.count(503)) == (63, 237)  # and the witness
    await eventually(lambda: service.files < 64)
    assert wire.status(await service.answer(wire.request() + wire.close(1000))) == 101


async def no_files_left(service: Service) -> None:
    """EMFILE: whoever connects waits, and is served when there are files again."""
    limit = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    logged = len(service.log())
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (service.files, limit[1]))
    try:
        async with service.client() as client:
            await client.send(wire.request())
            await eventually(lambda: "server.accept_failed" in service.log(logged))
            resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limit)
            await client.opened()
            await client.echo()
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limit)


BRIEF = Way("handshakes of 2 s", ("--handshake-timeout", "2"))
BRIEF_TLS = Way("handshakes of 2 s, TLS", ("--handshake-timeout", "2"), tls=True)
FULL = Way("ulimit -n 128", shell='ulimit -n 128; exec "$@"')
UNMASKED, MORE = b"\x81\x01x", 1000 * frame(TEXT, b"x")
SLOW = "7 of 14 servers wait over 32 s"
FLOODS = {
    "messages of 64 B": 1000 * frame(BINARY, bytes(64)),
    "messages of 1 MiB": frame(BINARY, bytes(1 << 20)),
    "pings": 1000 * frame(PING, bytes(125)),
}
STAYING = {
    "a Close that is never answered": (UNMASKED, b""),
    "goes on after our Close": (UNMASKED, MORE),
    "goes on after its own Close": (wire.close(1000), MORE),
}
HASTE = (HASTY, HASTY_WSPROTO, HASTY_TLS)

ATTACKS = [
    Attack("a thousand slow handshakes", SLOW, slow, (BRIEF,), MANY_GROWTH),
    Attack("a thousand slow TLS handshakes", SLOW, slow_tls, (BRIEF_TLS,), TLS_GROWTH),
    Attack("a thousand handshakes in one moment", "", burst, (LANE,), MANY_GROWTH),
    Attack("a thousand TLS handshakes in one moment", "", burst, (TLS,), TLS_GROWTH),
    Attack("slow handshakes after TLS's", SLOW, slow_after_tls, (BRIEF_TLS,), TLS_GROWTH),
    *(Attack(f"{name} and never reads", "daphne, picows, ws", partial(never_reads, sent=sent),
             HASTE)
      for name, sent in FLOODS.items()),
    *(Attack(name, "Tomcat CVE-2024-23672", partial(never_leaves, sent=sent, after=after), HASTE)
      for name, (sent, after) in STAYING.items()),
    Attack("what belongs on another port", "Trio's nurseries", foreign, (LANE, TLS)),
    Attack("resets in each phase", "trio-websocket#96, #105, #134", resets, (LANE, TLS),
           20 * GROWTH),
    Attack("a storm of resets", "", storm, (LANE, TLS), MANY_GROWTH),
    Attack("connections up to the file limit", "", too_many, (FULL,), MANY_GROWTH),
    Attack("no files left", "", no_files_left, (LANE,)),
]  # fmt: skip


@pytest.mark.parametrize("attack, way", ways(ATTACKS))
async def test_the_service_stands(attack, way, stands):
    await stands(attack, way)
