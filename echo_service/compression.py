"""permessage-deflate (RFC 7692), as an extension of wsproto's that is our own.

wsproto's `PerMessageDeflate` inflates without bound, takes a ping between two
fragments for the end of compression, fails after a block with BFINAL, and lets
several offers leak into each other.  This one negotiates to the letter, judges
each offer on its own, and keeps the limit inside the inflater.

The module is pure: header values and frame payloads in, the same out.
"""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import (
    CloseReason,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    RsvBits,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_BITS: Final = 12
"""The window that we choose where the peer leaves it to us: with `MEMORY_LEVEL` it
keeps an idle connection under 64 KiB, where zlib's defaults take over 300 KiB, for
about a tenth more bytes on the wire."""

LEVEL: Final = 4
"""zlib's level for the deflater.  At 6, the default, 4 KiB of a hostile peer's that inflate to
640 KiB of matches that are hard to find took 53 ms to deflate again; at 4 they take 16 at the
worst, and ordinary text 2 to 6 % more bytes and a fifth less time."""

MEMORY_LEVEL: Final = 5
"""zlib's memLevel for the deflater; see `WINDOW_BITS`."""

SYNC_TAIL: Final = b"\x00\x00\xff\xff"
"""What a sender cuts off the end of a message and the receiver puts back (7.2.1)."""

_MOST_INFLATED: Final = 1032
"""Bytes that one byte can inflate to (zlib's technical details)."""

_LAST_BLOCK: Final = b"\x03\x00"
"""An empty block with BFINAL (RFC 1951 3.2.6)."""

_BITS: Final = {str(bits): bits for bits in range(9, 16)}
"""The windows we can do, as they are spelt: no sign, no leading zero.  The RFC also
allows 8, which zlib's raw deflate can't do; declining such an offer is always legal."""

_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = re.compile(
    rf';[ \t]*({_NAME})[ \t]*(?:=[ \t]*(?:({_NAME})|"((?:[^"\\]|\\.)*+)")[ \t]*)?'
)
_OFFER: Final = re.compile(rf"[ \t]*permessage-deflate[ \t]*(?:{_PARAMETER.pattern}){{0,4}}")
"""An offer that may be accepted; there are four parameters, and none may come twice."""

_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_ELEMENT: Final = re.compile(r'(?:[^",]++|"(?:[^"\\]|\\.)*+"?)++')
"""An element of a list; quotes hide a comma.  Empty ones don't count (RFC 9110 5.6.1)."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What client and server agreed on for one connection (RFC 7692 7.1).

    The windows are in bits, 9 to 15; the server's is the one we deflate with.
    ``response`` is the value of the Sec-WebSocket-Extensions header of the 101.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = WINDOW_BITS
    client_max_window_bits: int = 15
    response: str = "permessage-deflate"


def negotiate(header: str) -> Parameters | None:
    """The answer to a Sec-WebSocket-Extensions header: None to go without.

    Each offer is judged on its own, in the client's order of preference; one with
    an unknown, doubled, missing or out-of-range parameter is declined and the next
    is looked at (RFC 7692 5 and 7.1).  Takes time linear in the header's length.
    """
    return next(filter(None, map(_judge, _ELEMENT.findall(header))), None)


def _judge(element: str) -> Parameters | None:
    """The parameters agreed on by accepting this one offer, or None to decline it."""
    if not _OFFER.fullmatch(element):
        return None
    pairs = [
        (m[1], m[2] if m[3] is None else _QUOTED_PAIR.sub(r"\1", m[3]))
        for m in _PARAMETER.finditer(element)
    ]
    offer = dict(pairs)
    if len(offer) < len(pairs) or not all(_acceptable(*pair) for pair in pairs):
        return None
    response = ["permessage-deflate"]
    response += [flag for flag in _FLAGS if flag in offer]
    server_bits = _BITS.get(offer.get("server_max_window_bits") or "", WINDOW_BITS)
    server_bits = min(server_bits, WINDOW_BITS)
    if "server_max_window_bits" in offer:
        response.append(f"server_max_window_bits={server_bits}")
    client_bits = 15  # a client that does not offer the parameter can't be held to less (7.1.2.2)
    if "client_max_window_bits" in offer:
        client_bits = min(_BITS.get(offer["client_max_window_bits"] or "", 15), WINDOW_BITS)
        response.append(f"client_max_window_bits={client_bits}")
    return Parameters(
        server_no_context_takeover="server_no_context_takeover" in offer,
        client_no_context_takeover="client_no_context_takeover" in offer,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
        response="; ".join(response),
    )


_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_VALUES: Final[dict[str, Iterable[str | None]]] = {
    "server_no_context_takeover": {None},
    "client_no_context_takeover": {None},
    "server_max_window_bits": _BITS.keys(),
    "client_max_window_bits": {None, *_BITS},
}
"""The values that each parameter may have in an offer; None is for no value."""


def _acceptable(name: str, value: str | None) -> bool:
    return value in _VALUES.get(name, ())


def _before_the_error(inflater: zlib._Decompress, data: bytes, room: int) -> bytes:
    """What comes of ``data`` up to the byte that does not inflate, or to more than ``room``."""
    inflated = bytearray()
    rest = iter(data)
    with suppress(zlib.error):
        while len(inflated) <= room:
            inflated += inflater.decompress(bytes((next(rest),)), room + 1 - len(inflated))
    return bytes(inflated)


class PerMessageDeflate(Extension):
    """The compression of one connection, server's side, in both directions.

    As a `wsproto.extensions.Extension` it inflates what comes in, frame by frame as
    the bytes arrive.  A message gives one byte more than ``max_message_size`` at most,
    so that the taker sees that it is too big, and is then refused with 1009.  What
    goes out is deflated with `deflate` and `flush`.
    """

    name = "permessage-deflate"
    __slots__ = (
        "_begun",
        "_control",
        "_deflater",
        "_inflater",
        "_inflating",
        "_max_message_size",
        "_parameters",
        "_room",
    )

    def __init__(self, parameters: Parameters, max_message_size: int) -> None:
        self._parameters = parameters
        self._max_message_size = max_message_size
        self._room = 0
        self._begun = False
        self._inflating = False
        self._control = False
        self._inflater: zlib._Decompress | None = None
        self._deflater: zlib._Compress | None = None

    def enabled(self) -> bool:
        """Always: the parameters are agreed on before this object is made."""
        return True

    def offer(self) -> bool:
        """Nothing: a server makes no offers."""
        return False

    @property
    def compressed(self) -> bool:
        """Whether the message now coming in is a compressed one."""
        return self._inflating

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol | None,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Note what the frame is; RSV1 may stand on a message's first frame only (6).

        wsproto calls this again if the header was not complete: nothing is counted here.
        """
        self._control = opcode.iscontrol()
        first = opcode in (Opcode.TEXT, Opcode.BINARY)
        if first:
            self._inflating = rsv.rsv1
            self._room = self._max_message_size
            self._begun = False
        # No deflater doubles its input: a frame that announces more is refused unseen.
        too_long = payload_length > 2 * self._max_message_size + 1024
        if self._inflating and not self._control and too_long:
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(first, False, False)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol | None, data: bytes
    ) -> bytes | CloseReason:
        """Inflate what has come of a frame's payload; other payload goes through."""
        if self._control or not self._inflating:
            return data
        return self._inflate(data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol | None, fin: bool
    ) -> CloseReason | None:
        """End a message: an empty block is all that may be missing from its end (7.2.2)."""
        if self._control or not self._inflating or not fin:
            return None
        if self._room < 0:
            return CloseReason.MESSAGE_TOO_BIG
        # Without a byte of payload, and after a block with BFINAL, nothing is missing.
        if self._begun and self._inflater is not None and not self._ends_well(self._inflater):
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if self._parameters.client_no_context_takeover:
            self._inflater = None
        return None

    def _ends_well(self, inflater: zlib._Decompress) -> bool:
        """Whether the message ended between two blocks, and nothing of it is missing.

        A last block can follow there and nowhere else; a copy of the inflater is asked.  Where
        a block with BFINAL lacks its end, what is put back ends it too soon, and some is left.
        """
        try:
            if inflater.decompress(SYNC_TAIL, 1) or inflater.unused_data:
                return False
            probe = inflater.copy()
            return not probe.decompress(_LAST_BLOCK, 1) and probe.eof
        except zlib.error:
            return False

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        """Inflate, to at most one byte more than the message has room for."""
        if self._room < 0:
            return CloseReason.MESSAGE_TOO_BIG
        self._begun = self._begun or bool(data)
        pieces = []
        while data and self._room >= 0:
            inflater = self._inflater
            if inflater is None:
                inflater = zlib.decompressobj(-self._parameters.client_max_window_bits)
            # What comes right before an error is lost with it, and may have been too much.
            before = inflater.copy() if len(data) * _MOST_INFLATED > self._room else None
            try:  # a max_length of 0 would be no bound at all: hence the one byte more
                piece = inflater.decompress(data, self._room + 1)
            except zlib.error:
                piece = _before_the_error(before, data, self._room) if before else b""
                if len(piece) <= self._room:
                    return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            self._room -= len(piece)
            pieces.append(piece)
            # A block with BFINAL ends the stream, and another may follow (7.2.3.4).
            self._inflater = None if inflater.eof else inflater
            data = inflater.unused_data
        return b"".join(pieces)

    def deflate(self, data: bytes) -> bytes:
        """Deflate a part of an outgoing message; may return nothing yet."""
        if self._deflater is None:
            self._deflater = zlib.compressobj(
                LEVEL,
                zlib.DEFLATED,
                -self._parameters.server_max_window_bits,
                MEMORY_LEVEL,
            )
        return self._deflater.compress(data)

    def flush(self) -> bytes:
        """End an outgoing message: the rest of its payload (7.2.1), empty ones too (7.2.3.6)."""
        if self._deflater is None:
            return b"\x00"
        tail = self._deflater.flush(zlib.Z_SYNC_FLUSH).removesuffix(SYNC_TAIL)
        if self._parameters.server_no_context_takeover:
            self._deflater = None
        return tail or b"\x00"
