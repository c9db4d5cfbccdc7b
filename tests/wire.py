"""The client's side of the wire, byte by byte, written without the code under test."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import trio

    from echo_service.session import Session

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA

KEY = b"\x37\xfa\x21\x3d"
"""A masking key: the one in the examples of RFC 6455 5.7."""

HEADERS = {
    "Host": "echo.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
"""An opening handshake, with the key of RFC 6455 1.3."""

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What the key of `HEADERS` is answered with (RFC 6455 1.3)."""


class Frame(NamedTuple):
    """A frame as a client receives it."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


def mask(payload: bytes, key: bytes = KEY) -> bytes:
    """Mask or unmask (RFC 6455 5.3), quickly."""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def header(opcode: int, size: int, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame's header up to its masking key; ``rsv`` is 4 for RSV1, 2 and 1 for the others."""
    first = bytes([fin << 7 | rsv << 4 | opcode])
    bit = masked << 7
    if size < 126:
        return first + bytes([bit | size])
    if size < 65536:
        return first + bytes([bit | 126]) + size.to_bytes(2, "big")
    return first + bytes([bit | 127]) + size.to_bytes(8, "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A whole masked frame."""
    return header(opcode, len(payload), fin=fin, rsv=rsv) + KEY + mask(payload)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A masked Close."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def parse(data: bytes) -> list[Frame]:
    """The server's frames in ``data``, which are whole; fails on one that is masked."""
    frames = []
    while data:
        fin, rsv, opcode = bool(data[0] & 0x80), data[0] >> 4 & 7, data[0] & 0xF
        size, start = data[1], 2
        assert size < 128, "a server's frame is not masked"
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        assert len(data) >= start + size, "the frame is cut off"
        frames.append(Frame(opcode, data[start : start + size], fin, rsv))
        data = data[start + size :]
    return frames


def codes(data: bytes) -> list[int]:
    """The close codes in the server's frames, 1005 for a Close without one."""
    payloads = [each.payload for each in parse(data) if each.opcode == CLOSE]
    return [int.from_bytes(payload[:2], "big") if payload else 1005 for payload in payloads]


def request(
    target: str = "/",
    *extra: tuple[str, str],
    method: str = "GET",
    version: str = "HTTP/1.1",
    **changed: str | None,
) -> bytes:
    """An opening handshake; ``Sec_WebSocket_Key=None`` leaves a header out, a text replaces it.

    ``extra`` headers come last.
    """
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    headers = [(name, value) for name, value in (HEADERS | named).items() if value is not None]
    lines = [f"{method} {target} {version}", *(f"{n}: {v}" for n, v in [*headers, *extra])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes whole, byte by byte, and in two at every place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for middle in range(1, len(data)):
        yield [data[:middle], data[middle:]]


def status(answer: bytes) -> int:
    """The status of an HTTP answer; 0 where there is none."""
    if not answer:
        return 0
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


class Client:
    """A client on a Trio stream, which its owner closes; what was read ahead is kept."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._read = bytearray()

    async def send(self, *parts: bytes) -> None:
        """Send the parts, each on its own."""
        for part in parts:
            await self.stream.send_all(part)

    async def open(self, target: str = "/", *extra: tuple[str, str], **changed: str | None) -> str:
        """Do the opening handshake, see it accepted, and return the head of the 101."""
        await self.send(request(target, *extra, **changed))
        return await self.opened()

    async def opened(self) -> str:
        """The head of the 101, once the server has sent it."""
        head = await self.head()
        assert status(head) == 101
        return head.decode()

    async def head(self) -> bytes:
        """The head of the answer, whatever it says."""
        while b"\r\n\r\n" not in self._read:
            await self._read_more()
        return self._take(self._read.index(b"\r\n\r\n") + 4)

    async def frame(self) -> Frame:
        """The next frame."""
        await self._read_at_least(2)
        start, size = 2, self._read[1]
        if size > 125:
            start = 4 if size == 126 else 10
            await self._read_at_least(start)
            size = int.from_bytes(self._read[2:start], "big")
        await self._read_at_least(start + size)
        return parse(self._take(start + size))[0]

    async def echo(self, payload: bytes = b"hello", opcode: int = TEXT) -> None:
        """Send a message and see it come back as it went."""
        await self.send(frame(opcode, payload))
        assert await self.frame() == Frame(opcode, payload)

    async def rest(self) -> bytes:
        """Everything up to the server's end of stream."""
        while data := await self.stream.receive_some(65536):
            self._read += data
        return self._take(len(self._read))

    async def _read_at_least(self, size: int) -> None:
        while len(self._read) < size:
            await self._read_more()

    async def _read_more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(bytes(self._read))
        self._read += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken


def deflate(payload: bytes, compressor: zlib._Compress | None = None) -> bytes:
    """A message's payload as permessage-deflate carries it (RFC 7692 7.2.1).

    A ``compressor`` keeps its context from one message to the next.
    """
    compressor = compressor or zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(payload: bytes, inflater: zlib._Decompress | None = None) -> bytes:
    """A message's payload from what permessage-deflate carries (RFC 7692 7.2.2)."""
    return (inflater or zlib.decompressobj(-15)).decompress(payload + b"\x00\x00\xff\xff")


def read(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of the server's frames in ``data``, inflated where they are compressed."""
    inflater = zlib.decompressobj(-15)
    return [
        (each.opcode, inflate(each.payload, inflater) if each.rsv else each.payload)
        for each in parse(data)
    ]


def feed(session: Session, pieces: Iterable[bytes]) -> bytes:
    """All that a session answers to input that comes in these pieces."""
    return b"".join(take(session, piece) for piece in pieces)


def take(session: Session, data: bytes) -> bytes:
    """All that a session answers to these bytes, however many calls it needs."""
    answer = bytearray(session.receive(data))
    while session.holds:
        answer += session.receive()
    return bytes(answer)
