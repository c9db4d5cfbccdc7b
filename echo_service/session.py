"""An open WebSocket connection without the I/O: frame bytes in, frame bytes out.

`Session.receive` takes whatever the peer sent, cut in any way, and returns what
is to be sent for it: echoes, pongs, and at the end the one Close.  wsproto parses
and judges the frames; an extension of our own (`_Intake`) watches it do so, since
its events tell neither the raw close code nor how a message grows.

The module is pure: it knows no clock, no socket and no trio.
"""

from __future__ import annotations

import codecs
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, Message, Ping, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import (
    CloseReason,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    RsvBits,
)

from echo_service import policy
from echo_service.compression import Parameters, PerMessageDeflate
from echo_service.policy import Verdict, Violation

if TYPE_CHECKING:
    from wsproto.events import Event

MAX_FRAGMENTS: Final = 131072
"""Frames in one message: twice what Autobahn 9.3.1 and 9.4.1 send."""

_RECEIVE: Final = 4096
_LARGE_RECEIVE: Final = 262144

_UTF8_STEP: Final = 65536
"""A decoded character may take four times its byte: text is checked in such steps."""

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")

_NO_RSV: Final = RsvBits(False, False, False)

_WORDS: Final = {
    "Invalid opcode": Violation.OPCODE,
    "Invalid attempt to fragment control": Violation.CONTROL_FRAGMENTED,
    "Control frame with payload len": Violation.CONTROL_LONG,
    "Payload length used": Violation.LENGTH_NOT_MINIMAL,
    "8-byte payload length with non-zero": Violation.LENGTH_OVER_63_BITS,
    "Reserved bit set": Violation.RESERVED_BIT,
    "server received unexpected unmasked": Violation.UNMASKED,
}
"""wsproto tells one violation from another by its words only; these begin them."""


def _violation(words: str) -> Violation:
    return next((v for start, v in _WORDS.items() if words.startswith(start)), Violation.FRAME)


def frame_header(opcode: int, length: int, *, compressed: bool = False) -> bytes:
    """The header of a final, unmasked frame with ``length`` bytes of payload (RFC 6455 5.2)."""
    first = 0x80 | (0x40 if compressed else 0) | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A whole control frame."""
    return frame_header(opcode, len(payload)) + payload


class Session:
    """One open connection, from the end of the opening handshake to its Close.

    ``verdict`` is None while the connection is open.  Once it is set, everything
    that is to be sent has been returned, its Close last, and nothing follows.
    """

    __slots__ = (
        "_deaf",
        "_intake",
        "_wsproto",
        "binaries",
        "octets",
        "texts",
        "verdict",
    )

    def __init__(self, max_message_size: int, compression: Parameters | None = None) -> None:
        """Begin a session; ``max_message_size`` is in bytes of payload, inflated."""
        deflate = PerMessageDeflate(compression, max_message_size) if compression else None
        self._intake = _Intake(max_message_size, deflate)
        self._wsproto = Connection(SERVER, [self._intake])
        self._deaf = False
        self.verdict: Verdict | None = None
        self.texts = 0
        self.binaries = 0
        self.octets = 0
        """Payload bytes of the whole messages echoed: as many came in as went out."""

    @property
    def carried(self) -> tuple[int, int, int]:
        """Text messages, binary messages and their payload bytes that were echoed."""
        return self.texts, self.binaries, self.octets

    @property
    def receive_size(self) -> int:
        """How many bytes to receive at once without holding up other connections for long.

        A frame of 6 bytes costs as much work as one of 16 KiB, so that 4 KiB may take 6 ms;
        compressed, they can inflate to 4 MiB.  The inside of one large frame is cheap.
        """
        if self._intake.deflate:
            return _RECEIVE
        return max(_RECEIVE, min(self._intake.missing, _LARGE_RECEIVE))

    @property
    def awaits_close(self) -> bool:
        """Whether we have sent our Close and the peer's can still be told when it comes."""
        return self.verdict is not None and not self._deaf

    def receive(self, data: bytes | bytearray) -> bytearray:
        """Take what the peer sent, and return what is to be sent for it.

        Never raises on account of ``data``.  After our Close nothing more is returned,
        and the peer's is looked for: ``verdict.received_code`` tells it.
        """
        out = bytearray()
        if self._deaf:
            return out
        self._wsproto.receive_data(bytes(data))
        for event in self._wsproto.events():
            if isinstance(event, CloseConnection):
                out += self._peer_ended(event)
                self._deaf = True
                break
            if self.verdict is None:
                self._answer(event, out)
        return out

    def _answer(self, event: Event, out: bytearray) -> None:
        if isinstance(event, Ping):
            out += frame(0xA, bytes(event.payload))
        elif isinstance(event, Message) and event.message_finished:
            text = isinstance(event, TextMessage)
            self.texts += text
            self.binaries += not text
            self.octets += self._intake.size
            payload, compressed = self._intake.take()
            out += frame_header(0x1 if text else 0x2, len(payload), compressed=compressed)
            out += payload

    def _peer_ended(self, event: CloseConnection) -> bytes:
        """Judge the peer's Close, or what wsproto failed it for: it reports both alike."""
        intake = self._intake
        if self.verdict is not None:  # our Close went first: its answer is only recorded
            if intake.close is not None:
                code = policy.close_code(intake.close)
                self.verdict = replace(self.verdict, received_code=code)
            return b""
        if intake.close is not None:
            return self.end(policy.closed(intake.close))
        return self.end(policy.violated(intake.violation or _violation(event.reason or "")))

    def end(self, verdict: Verdict) -> bytes:
        """End an open session from our side; returns the Close to send, if there is one."""
        self.verdict = verdict
        return b"" if verdict.close is None else frame(0x8, verdict.close)

    def ping(self) -> bytes:
        """A Ping to send, where nothing has arrived for the ping interval."""
        return frame(0x9)


class _Intake(Extension):
    """What we see and hold of the incoming frames, on wsproto's `Extension` interface.

    Payload is collected here, inflated by ``deflate`` where it was compressed and
    deflated again as the echo will be, and only its boundaries go on to wsproto: a
    message is held once, however it is cut.  Text is checked as it comes.
    """

    name = "intake"
    __slots__ = (
        "_fragments",
        "_max_message_size",
        "_message",
        "_opcode",
        "_text",
        "_utf8",
        "close",
        "deflate",
        "missing",
        "size",
        "violation",
    )

    def __init__(self, max_message_size: int, deflate: PerMessageDeflate | None) -> None:
        self.deflate = deflate
        self.missing = 0
        """Payload bytes of the present data frame that are still to come."""
        self.size = 0
        """Bytes of the present message, inflated, that have come."""
        self.close: bytes | None = None
        """The payload of the peer's Close, as it came."""
        self.violation: Violation | None = None
        self._max_message_size = max_message_size
        self._opcode = Opcode.CONTINUATION
        self._fragments = 0
        self._text = False
        self._utf8: codecs.IncrementalDecoder | None = None
        self._message = bytearray()

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def take(self) -> tuple[bytearray, bool]:
        """The payload of the echo of the message that is complete, and whether it is deflated."""
        message, self._message = self._message, bytearray()
        return message, self._compressed

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
        return self._fail(Violation.DEFLATED_TEXT if self._text else Violation.DEFLATE)

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Judge a header; wsproto calls this again where the masking key had not come yet."""
        self._opcode = opcode
        allowed: CloseReason | RsvBits = _NO_RSV
        if self.deflate is not None:
            allowed = self.deflate.frame_inbound_header(proto, opcode, rsv, payload_length)
            if isinstance(allowed, CloseReason):
                return self._fail_deflated(allowed)
        if opcode.iscontrol():
            return allowed
        if opcode is Opcode.CONTINUATION:
            if not self._fragments:
                return self._fail(Violation.CONTINUATION_STRAY)
            if self._fragments == MAX_FRAGMENTS:
                return self._fail(Violation.TOO_MANY_FRAGMENTS)
        elif self._fragments:
            return self._fail(Violation.CONTINUATION_MISSING)
        else:
            self._begin(opcode)
        if not self._compressed and self.size + payload_length > self._max_message_size:
            return self._fail(Violation.TOO_BIG)
        self.missing = payload_length
        return allowed

    def _begin(self, opcode: Opcode) -> None:
        self.size = 0
        self._text = opcode is Opcode.TEXT
        self._utf8 = None
        self._message.clear()

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
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
        if self._text and not self._is_utf8(data):
            return self._fail(Violation.TEXT if deflate is None else Violation.DEFLATED_TEXT)
        self.size += len(data)
        if self.size > self._max_message_size:
            return self._fail(Violation.TOO_BIG)
        self._message += data if deflate is None else deflate.deflate(data)
        return b""

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> CloseReason | None:
        """End a frame, and with ``fin`` a message."""
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
        if self._text and not self._is_utf8(b"", final=True):
            return self._fail(Violation.DEFLATED_TEXT if self._compressed else Violation.TEXT)
        return None

    def _is_utf8(self, data: bytes, *, final: bool = False) -> bool:
        """Whether the text can still become UTF-8; ``final``: whether it is (RFC 6455 8.1)."""
        if self._utf8 is None:
            if data.isascii():
                return True
            self._utf8 = _Utf8Decoder()
        try:
            for start in range(0, len(data), _UTF8_STEP):
                self._utf8.decode(data[start : start + _UTF8_STEP])
            self._utf8.decode(b"", final)
        except UnicodeDecodeError:
            return False
        pending, _ = self._utf8.getstate()
        # Python waits for the third byte of a surrogate, which its second byte gives away.
        return not (pending[:1] == b"\xed" and pending[1:2] >= b"\xa0")
