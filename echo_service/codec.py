"""The codec: the echo of simple frames, without wsproto.

A frame is *simple* if it is a complete, final, masked text or binary message with no
reserved bit, a minimal length within the limit and, for text, valid UTF-8; or a correct
ping or pong.  That is nearly all that a service sees, and wsproto takes 8 to 12 µs and
a dozen objects for each.  All else is left to wsproto, which remains the authority: with
the codec and without it, any bytes cut in any way give the same bytes back.

There are two codecs with the same three functions: `PYTHON`, below, and `COMPILED`, from
``_codec.c``, where it could be built.  They are pure, and keep nothing.
"""

from __future__ import annotations

import codecs
import functools
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Octets: TypeAlias = bytes | bytearray | memoryview

Echo: TypeAlias = tuple[int, bytes, tuple[int, int, int]]

MOST_FRAMES: Final = 256
"""Frames that `echo` takes at once in Python: half a millisecond's work."""

_WINDOW: Final = 65536
"""Bytes that `echo` looks at at once in Python, unless the first frame is larger."""

_SMALL: Final = 512
"""Bytes up to which masking is quicker by way of a number than by tables."""

_TEXT_STEP: Final = 65536
"""A decoded character may take four times its byte: text is checked in such steps."""


class Codec(NamedTuple):
    """The functions of a codec; each is documented where it is written in Python."""

    name: str
    echo: Callable[[Octets, int], Echo]
    append: Callable[[bytearray, Octets, bytes], bool]
    utf8: Callable[[bytearray, int], int]


INCOMPLETE: Final = (0, 0)
"""What `data_header` tells while a header has not come whole."""


def frame_header(first: int, length: int) -> bytes:
    """The header of an unmasked frame with ``length`` bytes of payload (RFC 6455 5.2).

    ``first`` is its first byte: FIN, the reserved bits, the opcode.
    """
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def data_header(
    data: Octets, limit: int, firsts: tuple[int, ...] = (0x81, 0x82)
) -> tuple[int, int] | None:
    """What a data frame that can still be simple begins with, as far as it has come.

    ``firsts`` are the first bytes that it may have.

    Returns the size of the header, masking key included, and the length of the payload;
    `INCOMPLETE` while the header has not come whole; None if the frame is not simple.
    """
    if len(data) < 2:
        return INCOMPLETE if not data or data[0] in firsts else None
    length = data[1] - 128
    if data[0] not in firsts or length < 0 or min(length, 126) > limit:
        return None
    size = {126: 8, 127: 14}.get(length, 6)
    if size > 6:
        if len(data) < size - 4:
            return INCOMPLETE
        length = int.from_bytes(data[2 : size - 4], "big")
        if length < (126 if size == 8 else 65536):
            return None
    if length > limit:
        return None
    return (size, length) if len(data) >= size else INCOMPLETE


def echo(data: Octets, limit: int) -> Echo:
    """Echo the simple frames that ``data`` begins with; ``limit`` is in bytes of payload.

    Returns how many bytes were taken, the frames to send for them, and how many text
    messages, binary messages and bytes of their payload those echo.  The rest of ``data``
    begins with a frame that is not simple, or not complete; or there was very much.
    """
    if len(data) > _WINDOW:
        data = data[: max(_WINDOW, sum(data_header(data[:14], limit) or INCOMPLETE))]
    data = bytes(data)
    out: list[bytes] = []
    at = 0
    counts = [0, 0, 0]
    for _ in range(MOST_FRAMES):
        frame = _next_frame(data, at, limit)
        if frame is None:
            break
        first, payload, at = frame
        if first == 0x8A:
            continue
        if first == 0x89:
            first = 0x8A
        else:
            counts[first - 0x81] += 1
            counts[2] += len(payload)
        out += (frame_header(first, len(payload)), payload)
    texts, binaries, octets = counts
    return at, b"".join(out), (texts, binaries, octets)


def _next_frame(data: bytes, at: int, limit: int) -> tuple[int, bytes, int] | None:
    """The simple frame at ``at``: its first byte, its payload, and where it ends."""
    if len(data) < at + 6:
        return None
    first, length = data[at], data[at + 1] - 128
    start = at + 6
    if length > 125:
        header = data_header(data[at : at + 14], limit)
        if header is None or header == INCOMPLETE:
            return None
        start, length = at + header[0], header[1]
    end = start + length
    most = {0x81: limit, 0x82: limit, 0x89: 125, 0x8A: 125}.get(first, -1)
    if not 0 <= length <= most or end > len(data):
        return None
    payload = _masked(data[start:end], data[start - 4 : start])
    return None if first == 0x81 and not _is_utf8(payload) else (first, payload, end)


def append(echo: bytearray, data: Octets, key: bytes) -> bool:
    """Append ``data`` to an echo, unmasked with the four bytes of ``key`` (RFC 6455 5.3).

    Returns whether all that is appended is ASCII.
    """
    payload = _masked(bytes(data), key)
    echo += payload
    return payload.isascii()


def utf8(echo: bytearray, start: int) -> int:
    """How far an echo is text, from ``start`` on: the end of its last whole character.

    What follows, three bytes at most, can become one; -1 as soon as nothing can make it
    UTF-8 any more (RFC 3629).
    """
    while piece := echo[start : start + _TEXT_STEP]:
        try:
            used = len(piece) if piece.isascii() else codecs.utf_8_decode(piece, "strict", False)[1]
        except UnicodeDecodeError:
            return -1
        start += used
        if not used:
            # Python waits for the third byte of a surrogate, which its second byte gives away.
            return -1 if piece[0] == 0xED and piece[1:2] >= b"\xa0" else start
    return start


def _masked(data: bytes, key: bytes) -> bytes:
    size = len(data)
    if size > _SMALL:
        out = bytearray(data)
        for place, byte in enumerate(key):
            out[place::4] = out[place::4].translate(_xor(byte))
        return bytes(out)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


@functools.cache
def _xor(byte: int) -> bytes:
    """What each of the 256 bytes becomes, masked with this one."""
    return bytes(each ^ byte for each in range(256))


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


PYTHON: Final = Codec("Python", echo, append, utf8)

COMPILED: Codec | None = None
"""The codec in C; None where it is not built."""

try:
    from echo_service import _codec
except ImportError:
    pass
else:
    COMPILED = Codec("C", _codec.echo, _codec.append, _codec.utf8)

BEST: Final = COMPILED or PYTHON
