"""What a client's frames must be answered with, by the RFCs alone and nothing of the package.

Slow and simple: it has all the bytes at once, and inflates a message when it is whole.  Where a
frame breaks several rules, any of their codes will do.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from echo_service.compression import Parameters

CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""The close codes that may stand on the wire (RFC 6455 7.4, and the registry of 11.7)."""

_ENDS = [b"", *(byte * size for byte in (b"\x80", b"\xbf") for size in (1, 2, 3))]
"""Of any beginning of UTF-8, one of these makes a whole."""


class Message(NamedTuple):
    """A message or a control frame that is sent back."""

    opcode: int
    payload: bytes
    compressed: bool = False


class Header(NamedTuple):
    """A frame's header, as far as it has come; ``start`` is where its payload begins."""

    opcode: int
    rsv: int
    fin: bool
    masked: bool
    length: int
    start: int
    is_minimal: bool


@dataclass
class Expected:
    """What is sent back, and how it ends.

    ``codes`` are those of which one must close the connection; none: it stays open.
    ``perhaps`` are those that may do so already, by a frame that has not come whole.
    ``close`` is the payload of the peer's good Close, which comes back as it is.
    """

    messages: list[Message] = field(default_factory=list)
    codes: set[int] = field(default_factory=set)
    perhaps: set[int] = field(default_factory=set)
    close: bytes | None = None


def is_utf8(data: bytes, *, whole: bool = True) -> bool:
    """Whether it is UTF-8, or may become so."""
    return any(_decodes(data + end) for end in (_ENDS[:1] if whole else _ENDS))


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def header(data: bytes) -> Header | None:
    """The header that these bytes begin with, None where its length has not come whole."""
    if len(data) < 2:
        return None
    short = data[1] & 0x7F
    size = {126: 2, 127: 8}.get(short, 0)
    if len(data) < 2 + size:
        return None
    length = int.from_bytes(data[2 : 2 + size], "big") if size else short
    is_minimal = not size or length > {2: 125, 8: 65535}[size]
    masked = data[1] > 127
    start = 2 + size + 4 * masked
    first = data[0]
    return Header(first & 15, first >> 4 & 7, first > 127, masked, length, start, is_minimal)


class _Inflater:
    """The client's compressed messages (RFC 7692 7.2.2), to one byte over the limit."""

    def __init__(self, agreed: Parameters, limit: int) -> None:
        self._bits = agreed.client_max_window_bits
        self._forgets = agreed.client_no_context_takeover
        self._limit = limit
        self._has_begun = False
        self._begin()

    def _begin(self) -> None:
        self._stream = zlib.decompressobj(-self._bits)
        self._is_fresh = True

    def inflate(self, data: bytes, room: int) -> tuple[bytes, bool]:
        """What this part of a message inflates to, no more than is too much; if it does."""
        out = b""
        self._has_begun = self._has_begun or bool(data)
        for byte in data:
            try:
                out += self._stream.decompress(bytes([byte]), self._limit + 1)
            except zlib.error:
                return out, False
            if len(out) > room:
                break
            self._is_fresh = False
            if self._stream.eof:  # a block with BFINAL (7.2.3.4)
                self._begin()
        return out, True

    def end(self) -> bool:
        """End a message; whether it may end here: one without a byte is taken for an empty one."""
        well = self._is_fresh or not self._has_begun or self._is_between_blocks()
        if self._forgets or self._stream.eof:
            self._begin()
        self._has_begun = False
        return well

    def _is_between_blocks(self) -> bool:
        """Whether the empty block that the sender cut off is all that is missing."""
        try:
            more = self._stream.decompress(b"\x00\x00\xff\xff", 1)
            last = self._stream.copy()
            more = more or self._stream.unused_data  # a block with BFINAL that lacked its end
            return not more and not last.decompress(b"\x03\x00", 1) and last.eof
        except zlib.error:
            return False


class Judge:
    """One connection's frames, judged one after the other."""

    def __init__(self, limit: int, agreed: Parameters | None) -> None:
        self._limit = limit
        self._inflater = _Inflater(agreed, limit) if agreed else None
        self._opcode = 0
        self._compressed = False
        self._payload = b""

    def judge(self, sent: bytes) -> Expected:
        """All that must come of these bytes."""
        expected = Expected()
        while sent and not expected.codes and expected.close is None:
            head = header(sent)
            if head is None:
                expected.perhaps = {1002}
                break
            faults = self._faults(head)
            end = head.start + head.length
            payload = wire.mask(sent[head.start : end], sent[head.start - 4 : head.start])
            if faults:
                (expected.codes if len(sent) >= head.start else expected.perhaps).update(faults)
                break
            is_whole = len(sent) >= end
            if head.opcode < 8:
                self._data(head, payload, expected, fin=head.fin and is_whole)
            elif is_whole:
                self._control(head.opcode, payload, expected)
            sent = sent[end:]
        return expected

    def _faults(self, head: Header) -> set[int]:
        """The codes of the rules that a header breaks."""
        may_compress = self._inflater is not None and head.opcode in (1, 2)
        compressed = may_compress and head.rsv & 4 if head.opcode else self._compressed
        length = head.length
        before = len(self._payload) if head.opcode == 0 else 0
        is_control = head.opcode > 7
        broken = {
            1002: (
                not head.masked,
                head.rsv & (3 if may_compress else 7),
                head.opcode not in (0, 1, 2, 8, 9, 10),
                not head.is_minimal or length >= 1 << 63,
                is_control and (length > 125 or not head.fin),
                head.opcode == 0 and not self._opcode,
                head.opcode in (1, 2) and self._opcode,
            ),
            1009: (
                not is_control and not compressed and before + length > self._limit,
                # Nothing that any deflater makes of a message within the limit is so long.
                not is_control and compressed and length > 2 * self._limit + 1024,
            ),
        }
        return {code for code, rules in broken.items() if any(rules)}

    def _control(self, opcode: int, payload: bytes, expected: Expected) -> None:
        if opcode == wire.CLOSE:
            self._close(payload, expected)
        elif opcode == wire.PING:
            expected.messages.append(Message(wire.PONG, payload))

    def _data(self, head: Header, payload: bytes, expected: Expected, *, fin: bool) -> None:
        """What has come of a data frame whose header is good; ``fin``: its message is whole."""
        if head.opcode:
            self._opcode, self._compressed, self._payload = head.opcode, bool(head.rsv & 4), b""
        well = True
        if self._compressed and self._inflater:
            payload, well = self._inflater.inflate(payload, self._limit - len(self._payload))
            well = well and (not fin or self._inflater.end())
        self._payload += payload
        if len(self._payload) > self._limit:
            expected.codes.add(1009)
        elif not well:
            expected.codes.add(1007)
        if self._opcode == wire.TEXT and not is_utf8(self._payload, whole=fin):
            expected.codes.add(1007)
        if fin and not expected.codes:
            expected.messages.append(Message(self._opcode, self._payload, self._compressed))
            self._opcode, self._compressed, self._payload = 0, False, b""

    def _close(self, payload: bytes, expected: Expected) -> None:
        code = int.from_bytes(payload[:2], "big")
        if payload and (len(payload) == 1 or code not in CODES):
            expected.codes.add(1002)
        if not is_utf8(payload[2:]):
            expected.codes.add(1007)
        if not expected.codes:
            expected.close = payload


def answers(data: bytes, agreed: Parameters | None) -> Iterator[Message]:
    """What a client reads in these bytes, which are whole frames in their shortest form."""
    bits = agreed.server_max_window_bits if agreed else 15
    inflater = zlib.decompressobj(-bits)
    frames = wire.parse(data)
    headers = [
        wire.header(each.opcode, len(each.payload), rsv=each.rsv, masked=False) for each in frames
    ]
    assert b"".join(h + f.payload for h, f in zip(headers, frames, strict=True)) == data
    for each in frames:
        assert each.opcode in (1, 2, 8, 10)
        assert not each.rsv or (agreed and each.rsv == 4 and each.opcode in (1, 2))
        payload = wire.inflate(each.payload, inflater) if each.rsv else each.payload
        if each.rsv and agreed and agreed.server_no_context_takeover:
            inflater = zlib.decompressobj(-bits)
        yield Message(each.opcode, payload, bool(each.rsv))
