"""The client's side of the wire: frames and the opening handshake, byte by byte.

Anything can be built that a client could send, the forbidden too, and anything be read
that a server could send.  The module is pure: values in, bytes out, and back.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Data = bytes | bytearray | memoryview

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY: Final = b"\x37\xfa\x21\x3d"
"""The masking key of every frame, that of the examples in RFC 6455 5.7.

The same in each run, so that a check that is repeated sends the same bytes; keys that
can't be guessed (5.3) protect from scripts in a browser, and there are none here.
"""

LARGEST_HEAD: Final = 65536
"""Bytes of a response's head after which it is none."""

SPARE: Final = 1024 * 1024
"""Bytes that may come, and that messages may inflate to, whatever was sent: greetings, say."""

_VISIBLE: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 256))}

_EXTENDED: Final = {126: 2, 127: 8}
"""What announces an extended payload length, and how many bytes that takes (RFC 6455 5.2)."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Frame(NamedTuple):
    """A frame (RFC 6455 5.2); ``rsv`` is 4 for RSV1, 2 and 1 for the others.

    ``length`` is how many bytes its extended payload length takes: 0, 2 or 8.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False
    length: int = 0

    @property
    def is_control(self) -> bool:
        """Whether it is a control frame (5.5)."""
        return self.opcode >= 8


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask (RFC 6455 5.3)."""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def least_length(size: int) -> int:
    """How many bytes the extended payload length of a payload must take (RFC 6455 5.2)."""
    return 0 if size < 126 else 2 if size < 65536 else 8


def header(
    opcode: int,
    size: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """A frame's header, without the masking key; ``length`` as in `Frame`, or the least."""
    extended = least_length(size) if length is None else length
    announced = {0: size, 2: 126, 8: 127}[extended]
    first = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | announced])
    return first + (size.to_bytes(extended, "big") if extended else b"")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes = KEY,
    length: int | None = None,
) -> bytes:
    """A whole frame; without a mask where the key is empty."""
    head = header(opcode, len(payload), fin=fin, rsv=rsv, masked=bool(key), length=length)
    return head + key + (mask(payload, key) if key else payload)


def octets(data: bytes) -> list[bytes]:
    """The same bytes, each to be sent on its own."""
    return [data[i : i + 1] for i in range(len(data))]


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A Close (RFC 6455 5.5.1)."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def extent(data: Data) -> tuple[int, int] | None:
    """Where the first frame's payload begins and ends; None while its header is not whole."""
    if len(data) < 2:
        return None
    announced = data[1] & 0x7F
    length = _EXTENDED.get(announced, 0)
    start = 2 + length + (4 if data[1] & 0x80 else 0)
    if len(data) < start:
        return None
    return start, start + (int.from_bytes(data[2 : 2 + length], "big") if length else announced)


def take(data: Data) -> tuple[Frame, int] | None:
    """The first frame in ``data`` and how many bytes it takes; None while it is not whole."""
    found = extent(data)
    if found is None or len(data) < found[1]:
        return None
    start, end = found
    first, masked, length = data[0], bool(data[1] & 0x80), _EXTENDED.get(data[1] & 0x7F, 0)
    payload = bytes(data[start:end])
    if masked:
        payload = mask(payload, bytes(data[start - 4 : start]))
    return Frame(first & 0xF, payload, bool(first & 0x80), first >> 4 & 7, masked, length), end


def whole(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The whole messages, each as one frame, and the control frames between them."""
    first, parts = None, []
    for each in frames:
        if each.is_control:
            yield each
            continue
        first = first or each
        parts.append(each.payload)
        if each.fin:
            payload = b"".join(parts)
            yield Frame(first.opcode, payload, rsv=first.rsv, length=least_length(len(payload)))
            first, parts = None, []


# What came


class Ending(enum.Enum):
    """Why nothing more comes; the value says it of the peer."""

    CLOSED = "TCP closed"
    RESET = "TCP reset"
    WAITING = "nothing more in time"
    FLOOD = "far more than was sent"
    HEAD = f"more than {LARGEST_HEAD} bytes of head"

    @property
    def is_of_tcp(self) -> bool:
        """Whether the peer has ended the connection, and not we."""
        return self in (Ending.CLOSED, Ending.RESET)


class Came(NamedTuple):
    """What came: frames, with a Close at the end at most, and why nothing more did.

    ``ending`` is None where it was not waited for.
    """

    frames: Sequence[Frame]
    ending: Ending | None = None


# The opening handshake (RFC 6455 4.1)

Headers = dict[str, str | None]


def headers(authority: str, nonce: str) -> Headers:
    """The headers that an opening handshake needs, in their order."""
    return {
        "Host": authority,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": nonce,
        "Sec-WebSocket-Version": "13",
    }


def request(start: str, fields: Headers, extra: Sequence[tuple[str, str]] = ()) -> bytes:
    """A request of a start line and headers; one that is None is left out."""
    present = [(name, value) for name, value in fields.items() if value is not None]
    lines = [start, *(f"{name}: {value}" for name, value in [*present, *extra])]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def accept(nonce: str) -> str:
    """What Sec-WebSocket-Accept has to be (RFC 6455 4.2.2 5.4)."""
    return base64.b64encode(hashlib.sha1(nonce.encode() + _GUID).digest()).decode()  # noqa: S324 - the RFC's


class Answer(NamedTuple):
    """The head of an HTTP response; ``status`` is 0 where it is none of HTTP/1."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    """The names in lower case."""

    def all(self, name: str) -> list[str]:
        """The values of every header of this name."""
        return [value for each, value in self.headers if each == name]

    def elements(self, name: str) -> list[str]:
        """The elements of the header's lists (RFC 9110 5.6.1)."""
        found = ",".join(self.all(name)).split(",")
        return [element.strip() for element in found if element.strip()]


def answer(head: bytes) -> Answer:
    """Read the head of a response, up to and with its empty line.

    What is not printable ASCII comes out escaped: it will be shown in a terminal.
    """
    text = head.decode("latin-1").split("\r\n")
    start, *lines = (line.translate(_VISIBLE) for line in text)
    version, status, reason = [*start.split(" ", 2), "", ""][:3]
    if not version.startswith("HTTP/1.") or not (status.isdecimal() and len(status) == 3):
        return Answer(0, start[:80], ())
    pairs = (line.partition(":") for line in lines if line)
    return Answer(
        int(status), reason[:80], [(n.lower(), value.strip(" \t")) for n, _, value in pairs]
    )
