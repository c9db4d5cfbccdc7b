"""Attacks on an open connection, by what is sent on it."""

from __future__ import annotations

import random
import zlib
from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests import wire
from tests.attacks.service import LANE, LIMIT, MIB, TLS, WSPROTO, Service, Way, gone_is_fine
from tests.attacks.siege import Attack, ways
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, header

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.attacks

OFFER_15 = ("Sec-WebSocket-Extensions", "permessage-deflate")
"""By this a client keeps a window of 15 bits, and we have ours of 12."""
OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
UNMASKED_KEY = bytes(4)
MILLION = 1_000_000
ALL = (LANE, WSPROTO, TLS)


async def answer(service: Service, pieces: Iterable[bytes], *offer: tuple[str, str]) -> bytes:
    """All that comes back on an open connection, which is read while the pieces are sent."""

    async def send(client: wire.Client) -> None:
        with gone_is_fine():
            await client.send(*pieces)

    async with service.client() as client:
        await client.open("/", *offer)
        async with trio.open_nursery() as sending:
            sending.start_soon(send, client)
            received = await client.rest()
            sending.cancel_scope.cancel()
        return received


async def fails(code: int, pieces: Iterable[bytes], *offer: tuple[str, str], service: Service):
    """The connection fails with this code, and nothing else comes back."""
    received = await answer(service, pieces, *offer)
    assert len(received) < 200
    assert wire.codes(received) == [code]


def announced(size: int, first: int = 0x82) -> bytes:
    """A header with its length in eight bytes, whatever it is."""
    return bytes([first, 0xFF]) + size.to_bytes(8, "big") + wire.KEY


BEGUN = frame(BINARY, bytes(LIMIT // 2), fin=False)
LENGTHS = [
    *[(1009, announced(size)) for size in (LIMIT + 1, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1)],
    *[(1002, announced(size)) for size in (1 << 63, (1 << 63) + 1, (1 << 64) - 1)],
    *[(1002, announced(size)) for size in (0, 1, 125, 126, 65535)],
    *[(1002, b"\x82\xfe" + size.to_bytes(2, "big") + wire.KEY) for size in (0, 1, 125)],
    *[(1009, BEGUN + announced(size, 0x80)) for size in (LIMIT // 2 + 1, (1 << 63) - 1)],
    (1009, BEGUN + frame(PING, b"") + header(CONTINUATION, LIMIT // 2 + 1) + wire.KEY),
    (1002, announced(126, 0x88)),
    (1002, announced(1 << 62, 0x89)),
]
DEFLATED_LENGTHS = [(1009, announced(size, 0xC2)) for size in (3 * LIMIT, 1 << 62, (1 << 63) - 1)]


async def lengths(service: Service) -> None:
    for code, sent in LENGTHS:
        received = await answer(service, [sent])
        assert wire.codes(received) == [code], sent[-14:]
    for code, sent in DEFLATED_LENGTHS:
        await fails(code, [sent], OFFER, service=service)


async def announced_and_dripped(service: Service, first: int) -> None:
    """Much is announced, little comes, a byte a segment; then the client is gone."""
    async with service.client() as client:
        await client.open("/", OFFER)
        await client.send(announced(16 * MIB, first), *(5000 * [b"\0"]))


async def fragments(service: Service, payload: bytes) -> None:
    rest = 1000 * frame(CONTINUATION, payload, fin=False)
    begun = frame(BINARY, payload, fin=False)
    await fails(1008, [begun, *((MILLION // 1000) * [rest])], service=service)


@cache
def zeros(size: int) -> bytes:
    """So many zeros, deflated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    pieces = [compressor.compress(bytes(min(MIB, size - at))) for at in range(0, size, MIB)]
    return b"".join(pieces) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


async def bomb(service: Service, step: int) -> None:
    """256 MiB of zeros, in frames of ``step`` bytes."""
    data = zeros(256 * MIB)[: 100_000 if step == 1 else None]
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    frames = [frame(BINARY, pieces[0], rsv=4, fin=len(pieces) == 1)]
    frames += [frame(CONTINUATION, piece, fin=False) for piece in pieces[1:]]
    await fails(1009, [b"".join(frames)], OFFER, service=service)


async def inflated_sizes(service: Service) -> None:
    """A byte less, the limit itself, and one and two bytes too many."""
    for size in (LIMIT - 1, LIMIT):
        sent = [frame(BINARY, zeros(size), rsv=4) + wire.close(1000)]
        (_, echo), (opcode, _) = wire.read(await answer(service, sent, OFFER))
        assert (opcode, echo == bytes(size)) == (CLOSE, True)
    for size in (LIMIT + 1, LIMIT + 2):
        await fails(1009, [frame(BINARY, zeros(size), rsv=4)], OFFER, service=service)


async def expensive_messages(service: Service) -> None:
    """Each of 4 KiB is a message of the limit, to be inflated and deflated again."""
    message = frame(BINARY, zeros(LIMIT), rsv=4)
    received = await answer(service, [*(20 * [message]), wire.close(1000)], OFFER)
    assert [opcode for opcode, _ in wire.read(received)] == [*(20 * [BINARY]), CLOSE]


async def dear_messages(service: Service) -> None:
    """4 KiB that inflate to 640 KB, whose repetitions lie beyond our window: hard to deflate."""
    pattern = bytes(random.Random(3).choices(b"abc", k=6000))
    payload = (108 * pattern)[:640_000]
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    first = frame(BINARY, wire.deflate(pattern, compressor), rsv=4)
    messages = [frame(BINARY, wire.deflate(payload, compressor), rsv=4) for _ in range(20)]
    assert max(map(len, messages)) < 4200
    received = await answer(service, [first, *messages, wire.close(1000)], OFFER_15)
    assert [opcode for opcode, _ in wire.read(received)] == [*(21 * [BINARY]), CLOSE]


def numbered(first: bytes, many: int) -> bytes:
    """Frames with four bytes of payload each: their numbers."""
    return b"".join(first + number.to_bytes(4, "big") for number in range(many))


async def pings(service: Service) -> None:
    """Each is answered, in order."""
    many = MILLION // 10 if service.way is WSPROTO else MILLION
    sent = numbered(b"\x89\x84" + UNMASKED_KEY, many) + wire.close(1000)
    received = await answer(service, [sent])
    assert received == numbered(b"\x8a\x04", many) + b"\x88\x02\x03\xe8"


async def pongs(service: Service) -> None:
    many = MILLION // 10 if service.way is WSPROTO else MILLION
    await fails(1000, [many * frame(PONG, b"\0\0\0\0"), wire.close(1000)], service=service)


async def unmasked(service: Service) -> None:
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
        for size in (0, 5, 125):
            sent = header(opcode, size, masked=False) + size * b"x"
            await fails(1002, [sent], service=service)
    sent = frame(TEXT, b"a", fin=False) + header(CONTINUATION, 1, masked=False) + b"b"
    await fails(1002, [sent], service=service)


BROKEN_UTF8 = [b"\xff", b"\xe2\x82", b"ok\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80",
               b"\xf0\x9f\x98", 121 * b"a" + b"\xe2\x82", 123 * b"\x80"]  # fmt: skip
REASONS = [*(size * b"r" for size in range(124)), 41 * "\u20ac".encode(), b"\0", b"\r\n\x1b[31m"]


async def reasons(service: Service) -> None:
    for reason in BROKEN_UTF8:
        await fails(1007, [wire.close(1000, reason)], service=service)
    for reason in REASONS:
        received = await answer(service, [wire.close(4999, reason)])
        assert wire.parse(received) == [wire.Frame(CLOSE, (4999).to_bytes(2, "big") + reason)]


LARGE = Way("limit of 16 MiB", ("--max-message-size", str(16 * MIB)))

ATTACKS = [
    Attack("lengths of up to 2^64-1", "CVE-2020-13935, CVE-2020-27813", lengths, ALL),
    *(Attack(f"a length announced, a byte a segment, {name}", "CVE-2026-54274",
             partial(announced_and_dripped, first=first), (LARGE,), growth=MIB)
      for name, first in (("plain", 0x82), ("text", 0x81), ("deflated", 0xC2))),
    *(Attack(f"a million fragments of {len(payload)} bytes", "ws 8.21; CVE-2026-42786",
             partial(fragments, payload=payload), (LANE, TLS)) for payload in (b"", b"x")),
    *(Attack(f"a bomb in {name}", "servers on wsproto; GHSA-hxp9-w8x3-p566",
             partial(bomb, step=step), ALL)
      for name, step in (("one frame", 1 << 30), ("fragments", 4096), ("fragments of a byte", 1))),
    Attack("inflated to the limit and over it", "", inflated_sizes, ALL),
    Attack("small messages that inflate to the limit", "", expensive_messages, ALL),
    Attack("small messages that are dear to deflate", "", dear_messages, ALL),
    Attack("a million pings", "Undertow CVE-2021-3690", pings, ALL),
    Attack("a million pongs", "Undertow CVE-2021-3690", pongs, ALL),
    Attack("unmasked frames", "aiohttp accepts them", unmasked, ALL),
    Attack("close reasons", "ws 8.20.1", reasons, ALL),
]  # fmt: skip


@pytest.mark.parametrize("attack, way", ways(ATTACKS))
async def test_the_service_stands(attack, way, stands):
    await stands(attack, way)
