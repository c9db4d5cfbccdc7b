"""Clients who come, echo every now and then, and go."""

from __future__ import annotations

import random
import socket
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field

import pytest
import trio

from tests import wire
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame

PAUSE = 40
"""Seconds from an echo to the next message, on average: most pauses are so long that the service
pings."""

AT_ONCE = 64
"""Clients that open or close their connection at the same time."""

HANGS = 600
"""Seconds after which an echo won't come any more, on however busy a machine."""

LARGEST = 65536
SIZES = [0, 1, 125, 126, 4096, 65535, LARGEST]
"""Some sizes that are drawn more often than others."""

OFFERS = [
    None,
    "permessage-deflate; server_max_window_bits=12; client_max_window_bits",
    None,
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
]
"""What the clients offer, in turn: half of them nothing."""

LETTERS = 'abcdefghijklmnopqrstuvwxyz     {}":,0123456789äß€漢😀'

NO_LINGER = struct.pack("ii", True, 0)


class Messages:
    """What is sent: of all sizes, text and binary; the same on each run."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._noise = self._chance.randbytes(2 * LARGEST)
        self._text = "".join(self._chance.choices(LETTERS, k=2 * LARGEST))

    def draw(self) -> tuple[int, bytes]:
        """Opcode and payload; sizes of few bytes are as likely as those of many."""
        chance = self._chance
        size = chance.choice(SIZES) if chance.random() < 0.05 else int(2 ** chance.uniform(0, 15))
        begin = chance.randrange(LARGEST)
        if chance.random() < 0.5:
            return BINARY, self._noise[begin : begin + size]
        text = self._text[begin : begin + size].encode()[:size]
        return TEXT, text.decode(errors="ignore").encode()  # without half a letter at its end


class Deflation:
    """A client's side of permessage-deflate, in little memory and little time."""

    def __init__(self, offer: str) -> None:
        self._keeps = "no_context_takeover" not in offer
        self._deflater = self._new_deflater() if self._keeps else None
        self._inflater = zlib.decompressobj(-12) if self._keeps else None

    @staticmethod
    def _new_deflater() -> zlib._Compress:
        return zlib.compressobj(level=1, wbits=-12, memLevel=4)

    def deflate(self, payload: bytes) -> bytes:
        """A message's payload as it is sent."""
        return wire.deflate(payload, self._deflater or self._new_deflater())

    def inflate(self, payload: bytes) -> bytes:
        """An echo's payload as it was before it was sent."""
        return wire.inflate(payload, self._inflater)


@dataclass
class Tally:
    """What the clients have seen."""

    opened: int = 0
    sent: int = 0
    texts: int = 0
    binaries: int = 0
    octets: int = 0
    deflated: int = 0
    fragmented: int = 0
    pings: int = 0
    endings: Counter[str] = field(default_factory=Counter)

    @property
    def echoes(self) -> int:
        """Echoes that were compared, each like its message in every byte."""
        return self.texts + self.binaries


class Visitor:
    """A client from its coming to its going; ``number`` decides what it offers and how it goes."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.number = number
        self._crowd = crowd
        self._pause = trio.CancelScope()
        self._leaves = False
        self._deflation: Deflation | None = None

    def leave(self) -> None:
        """Go, once the echo that may be due has come."""
        self._leaves = True
        self._pause.cancel()

    async def visit(self, port: int) -> None:
        """Come, echo, and go when told to; fails on any byte that is not as it has to be."""
        address = f"127.0.0.{2 + self.number % 8}"  # each has ports of its own
        async with self._crowd.door:
            stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=address)
            self._client = wire.Client(stream)
            await self._open()
            await self._echo(1)  # where it deflates, it takes from now on what that takes
            self._crowd.stay(self)
        await self._crowd.begun.wait()
        while not await self._is_to_leave():
            await self._echo()
        async with self._crowd.door:
            with trio.fail_after(HANGS):
                await self._go()

    async def _open(self) -> None:
        offer = OFFERS[self.number % len(OFFERS)]
        extra = [("Sec-WebSocket-Extensions", offer)] if offer else []
        with trio.fail_after(HANGS):
            head = await self._client.open("/", *extra)
        assert ("permessage-deflate" in head) == bool(offer), head
        self._deflation = Deflation(offer) if offer else None

    async def _echo(self, deflated: float = 0.9) -> None:
        """Send a message, ``deflated`` with this chance, and see it come back, byte by byte."""
        tally, chance = self._crowd.tally, self._crowd.chance
        opcode, payload = self._crowd.messages.draw()
        deflation = self._deflation if chance.random() < deflated else None
        rsv = 4 if deflation else 0
        body = deflation.deflate(payload) if deflation else payload
        cut = chance.randrange(len(body) + 1) if chance.random() < 0.1 else None
        tally.sent += 1
        with trio.fail_after(HANGS):
            if cut is None:
                await self._client.send(wire.frame(opcode, body, rsv=rsv))
            else:
                first = wire.frame(opcode, body[:cut], rsv=rsv, fin=False)
                await self._client.send(first, wire.frame(CONTINUATION, body[cut:]))
            echo = await self._frame()
        assert self._deflation or not echo.rsv
        got = self._deflation.inflate(echo.payload) if echo.rsv else echo.payload
        assert (echo.opcode, echo.fin) == (opcode, True)
        assert got == payload
        tally.deflated += bool(rsv)
        tally.fragmented += cut is not None
        tally.texts += opcode == TEXT
        tally.binaries += opcode == BINARY
        tally.octets += len(payload)

    async def _is_to_leave(self) -> bool:
        """Answer pings until the next message is to be sent, or until it is to leave."""
        pause = self._crowd.chance.expovariate(1 / PAUSE)
        with trio.move_on_after(pause) as self._pause:
            if not self._leaves:
                pytest.fail(f"nothing was due, and this came: {await self._frame()}")
        return self._leaves

    async def _frame(self) -> Frame:
        """The next frame that is no ping; these are answered."""
        while (frame := await self._client.frame()).opcode == PING:
            self._crowd.tally.pings += 1
            with trio.CancelScope(shield=True):
                await self._client.send(wire.frame(PONG, frame.payload))
        return frame

    async def _go(self) -> None:
        """Close, as a rule; or end the stream, or break off in the middle of a message."""
        client, stream = self._client, self._client.stream
        assert isinstance(stream, trio.SocketStream)
        way = self.number % 10
        if way == 8:
            await client.send(wire.header(BINARY, LARGEST) + wire.KEY + bytes(LARGEST // 2))
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        elif way == 7:
            await stream.send_eof()
            assert {each.opcode for each in wire.parse(await client.rest())} <= {PING}
        else:
            await client.send(wire.close(1000, b"bye"))
            assert await self._frame() == Frame(CLOSE, b"\x03\xe8bye")
            assert await client.rest() == b""
        await stream.aclose()
        self._crowd.tally.endings["vanished" if way in {7, 8} else "peer_closed"] += 1


class Crowd:
    """Clients of one service; ``tally`` is what they have seen."""

    def __init__(self, port: int, clients: trio.Nursery, seed: int = 6455) -> None:
        self.tally = Tally()
        self.chance = random.Random(seed)
        self.messages = Messages(seed)
        self.begun = trio.Event()
        """Set when those who have come are to begin to echo; until then they echo once."""
        self.door = trio.CapacityLimiter(AT_ONCE)
        self._port = port
        self._clients = clients
        self._here: list[Visitor] = []

    def __len__(self) -> int:
        """How many are here, and have not been told to go."""
        return len(self._here)

    def stay(self, visitor: Visitor) -> None:
        """Count one that has come."""
        self.tally.opened += 1
        self._here.append(visitor)

    def come(self, many: int) -> None:
        """Have so many come."""
        for number in range(many):
            self._let_in(number)

    def exchange(self) -> None:
        """Have one of those that are here go, whoever it is, and one of the same kind come."""
        self._let_in(self._send_off(self.chance.randrange(len(self._here))))

    def go(self) -> None:
        """Have all go that are here."""
        while self._here:
            self._send_off(-1)

    def _let_in(self, number: int) -> None:
        self._clients.start_soon(Visitor(self, number).visit, self._port)

    def _send_off(self, place: int) -> int:
        self._here[place], self._here[-1] = self._here[-1], self._here[place]
        visitor = self._here.pop()
        visitor.leave()
        return visitor.number
