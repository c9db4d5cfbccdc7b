"""What comes in by way of wsproto: frames watched, messages put together.

An extension sees each frame's header before its payload, and the payload as it came:
wsproto's events tell neither the raw close code nor how a message grows.

The module is pure: it knows no clock, no socket and no trio.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from echo_service.policy import Violation

if TYPE_CHECKING:
    from echo_service.compression import PerMessageDeflate

MAX_FRAGMENTS: Final = 131072
"""Frames in one message: twice what Autobahn 9.3.1 and 9.4.1 send."""

_TEXT_STEP: Final = 65536
"""A decoded character may take four times its byte: text is checked in such steps."""

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")

_NO_RSV: Final = RsvBits(False, False, False)
_RSV1: Final = RsvBits(True, False, False)


class Intake(Extension):
    """What we see and hold of the incoming frames, on wsproto's `Extension` interface.

    Payload is collected here, inflated by ``deflate`` where it was compressed and
    deflated again as the echo will be, and only its boundaries go on to wsproto: a
    message is held once, however it is cut.  Text is checked as it comes.
    """

    name = "intake"
    __slots__ = (
        "_fragments",
        "_length",
        "_max_message_size",
        "_message",
        "_opcode",
        "_utf8",
        "close",
        "deflate",
        "is_text",
        "missing",
        "size",
        "taken",
        "violation",
    )

    def __init__(self, max_message_size: int, deflate: PerMessageDeflate | None) -> None:
        self.deflate = deflate
        self.missing = 0
        """Payload bytes of the present data frame that are still to come."""
        self.size = 0
        """Bytes of the present message, inflated, that have come."""
        self.taken = 0
        """Bytes of the frames that are complete, headers included."""
        self.close: bytes | None = None
        """The payload of the peer's Close, as it came."""
        self.violation: Violation | None = None
        self._max_message_size = max_message_size
        self._opcode = Opcode.CONTINUATION
        self._fragments = 0
        self._length = 0
        self.is_text = False
        self._utf8: codecs.IncrementalDecoder | None = None
        self._message = bytearray()

    def enabled(self) -> bool:
        """Always, for wsproto."""
        return True

    def offer(self) -> bool:
        """Nothing: a server makes no offers."""
        return False

    def take(self) -> tuple[bytearray, bool]:
        """The payload of the echo of the message that is complete, and whether it is deflated."""
        message, self._message = self._message, bytearray()
        return message, self._compressed

    def at_rest(self, fed: int) -> bool:
        """Whether the ``fed`` bytes end with a message, or between two."""
        return self.taken == fed and not self._fragments

    def message(self, opcode: Opcode, payload: bytes) -> Violation | None:
        """Take a whole compressed message at once, as wsproto would give it; why it fails."""
        failure = (
            isinstance(self.frame_inbound_header(None, opcode, _RSV1, len(payload)), CloseReason)
            or isinstance(self.frame_inbound_payload_data(None, payload), CloseReason)
            or self.frame_inbound_complete(None, True) is not None
        )
        return self.violation if failure else None

    @property
    def _compressed(self) -> bool:
        return self.deflate is not None and self.deflate.compressed

    def _fail(self, violation: Violation) -> CloseReason:
        self.violation = violation
        return CloseReason(violation.code)

    def _fail_deflated(self, reason: CloseReason) -> CloseReason:
        """Fail for a reason of the compression's.

        When data stops to inflate, what came right before it is lost, so of compressed
        text it is not told which of the two was wrong: that would depend on the cuts.
        """
        if reason is CloseReason.MESSAGE_TOO_BIG:
            return self._fail(Violation.TOO_BIG)
        return self._fail(Violation.DEFLATED_TEXT if self.is_text else Violation.DEFLATE)

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol | None,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Judge a header; wsproto calls this again where the masking key had not come yet."""
        self._opcode = opcode
        self._length = payload_length
        misplaced = self._misplaced(opcode)
        if misplaced is not None:
            return self._fail(misplaced)
        allowed: CloseReason | RsvBits = _NO_RSV
        if self.deflate is not None:
            allowed = self.deflate.frame_inbound_header(proto, opcode, rsv, payload_length)
            if isinstance(allowed, CloseReason):
                return self._fail_deflated(allowed)
        if opcode.iscontrol():
            return allowed
        if opcode is not Opcode.CONTINUATION:
            self._begin(opcode)
        if not self._compressed and self.size + payload_length > self._max_message_size:
            return self._fail(Violation.TOO_BIG)
        self.missing = payload_length
        return allowed

    def _misplaced(self, opcode: Opcode) -> Violation | None:
        """What is wrong with a frame here, whatever else it says (RFC 6455 5.4)."""
        if opcode.iscontrol():
            return None
        if opcode is not Opcode.CONTINUATION:
            return Violation.CONTINUATION_MISSING if self._fragments else None
        if not self._fragments:
            return Violation.CONTINUATION_STRAY
        return Violation.TOO_MANY_FRAGMENTS if self._fragments == MAX_FRAGMENTS else None

    def _begin(self, opcode: Opcode) -> None:
        self.size = 0
        self.is_text = opcode is Opcode.TEXT
        self._utf8 = None
        self._message.clear()

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol | None, data: bytes
    ) -> bytes | CloseReason:
        """Take what has come of a frame's payload, unmasked; control payload goes on to wsproto."""
        if self._opcode.iscontrol():
            if self._opcode is Opcode.CLOSE:
                self.close = data
            return data
        self.missing -= len(data)
        deflate = self.deflate if self._compressed else None
        if deflate is not None:
            inflated = deflate.frame_inbound_payload_data(proto, data)
            if isinstance(inflated, CloseReason):
                return self._fail_deflated(inflated)
            data = inflated
        if self.is_text and not self._is_utf8(data):
            return self._fail(Violation.TEXT if deflate is None else Violation.DEFLATED_TEXT)
        self.size += len(data)
        if self.size > self._max_message_size:
            return self._fail(Violation.TOO_BIG)
        self._message += data if deflate is None else deflate.deflate(data)
        return b""

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol | None, fin: bool
    ) -> CloseReason | None:
        """End a frame, and with ``fin`` a message."""
        length = self._length
        self.taken += length + (6 if length < 126 else 8 if length < 65536 else 14)
        if self._opcode.iscontrol():
            return None
        self._fragments += 1
        if not fin:
            return None
        self._fragments = 0
        if self.deflate is not None and self._compressed:
            reason = self.deflate.frame_inbound_complete(proto, fin)
            if reason is not None:
                return self._fail_deflated(reason)
            self._message += self.deflate.flush()
        if self.is_text and not self._is_utf8(b"", final=True):
            return self._fail(Violation.DEFLATED_TEXT if self._compressed else Violation.TEXT)
        return None

    def _is_utf8(self, data: bytes, *, final: bool = False) -> bool:
        """Whether the text can still become UTF-8; ``final``: whether it is (RFC 6455 8.1)."""
        if self._utf8 is None:
            if data.isascii():
                return True
            self._utf8 = _Utf8Decoder()
        try:
            for start in range(0, len(data), _TEXT_STEP):
                self._utf8.decode(data[start : start + _TEXT_STEP])
            self._utf8.decode(b"", final)
        except UnicodeDecodeError:
            return False
        pending, _ = self._utf8.getstate()
        # Python waits for the third byte of a surrogate, which its second byte gives away.
        return not (pending[:1] == b"\xed" and pending[1:2] >= b"\xa0")
