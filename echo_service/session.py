"""An open WebSocket connection without the I/O: frame bytes in, frame bytes out.

`Session.receive` takes whatever the peer sent, cut in any way, and returns what
is to be sent for it: echoes, pongs, and at the end the one Close.  The codec echoes
what is simple, which is nearly all; wsproto parses and judges the rest, watched by
an extension of our own (`Intake`).

The module is pure: it knows no clock, no socket and no trio.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import Opcode

from echo_service import policy
from echo_service.codec import BEST, INCOMPLETE, Codec, Octets, data_header, frame_header
from echo_service.compression import Parameters, PerMessageDeflate
from echo_service.intake import Intake
from echo_service.policy import Verdict, Violation

if TYPE_CHECKING:
    from wsproto.events import Event

_STEP: Final = 4096
"""Bytes of small frames, or of one compressed message, that one call takes.  They may be
680 frames, which take wsproto 6 ms, or inflate to 4 MiB."""

_LARGE_STEP: Final = 262144
"""Bytes that one call takes inside of one large frame, which is cheap."""

_DEFLATED: Final = {0xC1: Opcode.TEXT, 0xC2: Opcode.BINARY}
"""The first byte of a whole compressed message, and what it is."""

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


def _whole_close(data: Octets, codec: Codec) -> bytes | None:
    """The payload of the Close that ``data`` begins with, if it is there whole and well formed."""
    header = data_header(data, 125, (0x88,))
    if header is None or header == INCOMPLETE or sum(header) > len(data):
        return None
    start, length = header
    payload = bytearray()
    codec.append(payload, data[start : start + length], bytes(data[start - 4 : start]))
    return bytes(payload)


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_header(0x80 | opcode, len(payload)) + payload


def _joined(out: bytes | bytearray, more: bytes | bytearray) -> bytearray:
    """One after the other: what can be large, an echo, is not copied."""
    if isinstance(more, bytearray) and not isinstance(out, bytearray):
        more[:0] = out
        return more
    both = out if isinstance(out, bytearray) else bytearray(out)
    both += more
    return both


class Session:
    """One open connection, from the end of the opening handshake to its Close.

    ``verdict`` is None while the connection is open.  Once it is set, everything
    that is to be sent has been returned, its Close last, and nothing follows.

    A frame comes in by one of two ways.  The codec takes what is simple, and a Close that
    came whole.  All else is for wsproto, which is made for it and goes when its message is
    complete; without a codec it stays.
    """

    __slots__ = (
        "_codec",
        "_deaf",
        "_fed",
        "_held",
        "_intake",
        "_max_message_size",
        "_partial",
        "_wsproto",
        "before",
        "carried",
        "holds",
        "verdict",
    )

    def __init__(
        self,
        max_message_size: int,
        compression: Parameters | None = None,
        codec: Codec | None = BEST,
    ) -> None:
        """Begin a session; ``max_message_size`` is in bytes of payload, inflated."""
        self._max_message_size = max_message_size
        self._codec = codec
        self._partial: _Partial | None = None
        self._wsproto: Connection | None = None
        self._intake: Intake | None = None
        if compression is not None:
            self._intake = Intake(
                max_message_size, PerMessageDeflate(compression, max_message_size)
            )
        self._fed = 0
        self._held: Octets = b""
        self._deaf = False
        self.holds = False
        """Whether `receive` has more to do without any more bytes: one call works for a few
        milliseconds at most, so that no client holds up the others."""
        self.verdict: Verdict | None = None
        self.carried = (0, 0, 0)
        """Text messages, binary messages and their payload bytes that were echoed, whole
        messages only: as many came in as went out."""
        self.before = self.carried
        """What was `carried` before what was last returned to be sent."""

    @property
    def awaits_close(self) -> bool:
        """Whether our Close went first and the peer's will be recorded when it comes."""
        return self.verdict is not None and not self._deaf

    def receive(self, data: Octets = b"") -> bytes | bytearray:
        """Take what the peer sent, and return what is to be sent for it.

        Never raises on account of ``data``, which may lie in a buffer that is used again.
        While the session `holds` some, this is to be called again, without any.  After our
        Close nothing is returned any more, and the peer's is looked for:
        ``verdict.received_code`` tells it.
        """
        if self._deaf:
            return b""
        silent = self.verdict is not None
        self.before = self.carried
        if self._held:
            data = bytes(self._held) + bytes(data) if data else self._held
            self._held = b""
            self.holds = False
        codec = self._codec
        out: bytes | bytearray
        if codec is None or self._wsproto is not None:
            out = self._judge(data)
        elif self._partial is not None:
            out = self._go_on(self._partial, codec, data)
        elif self._intake is not None and data and data[0] in _DEFLATED:
            out = self._inflate(self._intake, codec, data)
        else:
            taken, out, counts = codec.echo(data, self._max_message_size)
            if not silent:
                texts, binaries, octets = self.carried
                self.carried = texts + counts[0], binaries + counts[1], octets + counts[2]
            if taken < len(data):
                out += self._begin(data[taken:], codec, first=not taken)
        return b"" if silent else out

    def _count(self, size: int, *, is_text: bool) -> None:
        """Count a message of ``size`` bytes, unless our Close went first."""
        if self.verdict is None:
            texts, binaries, octets = self.carried
            self.carried = texts + is_text, binaries + (not is_text), octets + size

    def _hold(self, data: Octets) -> None:
        """Keep what is left for the next call, if anything is; much of it is copied only once."""
        self.holds = bool(data)
        if data:
            is_constant = isinstance(data, memoryview) and isinstance(data.obj, bytes)
            self._held = data if is_constant else memoryview(bytes(data))

    # What is simple

    def _begin(self, data: Octets, codec: Codec, *, first: bool) -> bytes | bytearray:
        """Take what `Codec.echo` leaves; what is not simple waits until it comes ``first``."""
        header = data_header(data, self._max_message_size)
        control = data_header(data, 125, (0x88, 0x89, 0x8A))
        if INCOMPLETE in (header, control) or (control and sum(control) > len(data)):
            self._held = bytes(data)
        elif header is not None and sum(header) > len(data):
            size, length = header
            self._partial = _Partial(data[0], length, bytes(data[size - 4 : size]))
            return self._go_on(self._partial, codec, data[size:])
        elif not first:
            self._hold(data)
        elif (close := _whole_close(data, codec)) is not None:
            return self._peer_closed(close)
        else:
            return self._judge(data)
        return b""

    def _go_on(self, partial: _Partial, codec: Codec, data: Octets) -> bytes | bytearray:
        """Take more of a simple frame; returns its echo once it is whole."""
        missing = partial.missing
        if not partial.take(data[:missing], codec):
            return self._fail(Violation.TEXT)
        if len(data) < missing:
            return b""
        self._partial = None
        self._count(partial.length, is_text=partial.is_text)
        self._hold(data[missing:])
        return partial.echo

    def _inflate(self, intake: Intake, codec: Codec, data: Octets) -> bytes | bytearray:
        """Echo a compressed message that came whole, if it is small enough to do so at once."""
        header = data_header(data, _STEP, tuple(_DEFLATED))
        if header is None or header == INCOMPLETE or sum(header) > len(data):
            return self._judge(data)
        start, length = header
        end = start + length
        payload = bytearray()
        codec.append(payload, data[start:end], bytes(data[start - 4 : start]))
        failure = intake.message(_DEFLATED[data[0]], bytes(payload))
        if failure is not None:
            return self._fail(failure)
        self._hold(data[end:])
        return self._echo(intake)

    # What is not

    def _judge(self, data: Octets) -> bytes | bytearray:
        """Have wsproto take what came, and answer what it tells of it."""
        connection, intake, rest = self._feed(data)
        out: bytes | bytearray = b""
        for event in connection.events():
            if type(event) is CloseConnection:
                return _joined(out, self._peer_ended(event, intake))
            if answer := self._answer(event, intake):
                out = _joined(out, answer)
        self._hold(rest)
        if self._codec is not None and intake.at_rest(self._fed):
            self._wsproto = None
            if intake.deflate is None:
                self._intake = None
        return out

    def _feed(self, data: Octets) -> tuple[Connection, Intake, Octets]:
        """Give wsproto of what came as much as a call takes; the rest is returned with both."""
        intake = self._intake
        if intake is None:
            intake = self._intake = Intake(self._max_message_size, None)
        if self._wsproto is None:
            self._wsproto = Connection(SERVER, [intake])
            self._fed = intake.taken
        step = _STEP if intake.deflate else max(_STEP, min(intake.missing, _LARGE_STEP))
        piece = bytes(data[:step])
        self._fed += len(piece)
        self._wsproto.receive_data(piece)
        return self._wsproto, intake, data[step:]

    def _answer(self, event: Event, intake: Intake) -> bytes | bytearray:
        if type(event) is Ping:
            return frame(0xA, bytes(event.payload))
        if isinstance(event, (TextMessage, BytesMessage)) and event.message_finished:
            return self._echo(intake)
        return b""

    def _echo(self, intake: Intake) -> bytearray:
        """The echo of the message that is complete."""
        self._count(intake.size, is_text=intake.is_text)
        echo, compressed = intake.take()
        first = (0x81 if intake.is_text else 0x82) | (0x40 if compressed else 0)
        echo[:0] = frame_header(first, len(echo))
        return echo

    def _peer_ended(self, event: CloseConnection, intake: Intake) -> bytes:
        """Judge the peer's Close, or what wsproto failed it for: it reports both alike."""
        if intake.close is None:
            return self._fail(intake.violation or _violation(event.reason or ""))
        return self._peer_closed(intake.close)

    def _peer_closed(self, payload: bytes) -> bytes:
        """Answer the peer's Close, from its payload as it came."""
        self._deaf = True
        if self.verdict is None:
            return self._end(policy.closed(payload))
        code = policy.close_code(payload)  # our Close went first: the answer is recorded
        self.verdict = replace(self.verdict, received_code=code)
        return b""

    def _fail(self, violation: Violation) -> bytes:
        """Fail the connection, unless our Close went first; what comes is judged no more."""
        self._deaf = True
        return b"" if self.verdict else self._end(policy.violated(violation))

    def _end(self, verdict: Verdict) -> bytes:
        self.verdict = verdict
        return b"" if verdict.close is None else frame(0x8, verdict.close)

    def end(self, verdict: Verdict) -> bytes | bytearray:
        """End the session from outside; returns the Close to send, if there is one."""
        if verdict.close is not None:  # it goes out alone, after all that was echoed
            self.before = self.carried
        return self._end(verdict)

    def give_up(self) -> bytes | bytearray:
        """End the session after an error of ours, which may have left anything behind."""
        self._deaf = True
        self.holds = False
        return self.end(policy.INTERNAL_ERROR)

    def ping(self) -> bytes:
        """A Ping to send, where nothing has arrived for the ping interval."""
        self.before = self.carried
        return frame(0x9)


class _Partial:
    """The echo of a simple frame of which not all has come.

    It grows with what comes, never by what is announced, and is what goes out in the end.
    """

    __slots__ = ("_checked", "_key", "_size", "echo", "is_text", "length")

    def __init__(self, first: int, length: int, key: bytes) -> None:
        self.is_text = first == 0x81
        self.length = length
        self.echo = bytearray(frame_header(first, length))
        self._size = len(self.echo) + length
        self._key = key
        self._checked = len(self.echo)

    @property
    def missing(self) -> int:
        """Bytes of payload that are still to come."""
        return self._size - len(self.echo)

    def take(self, data: Octets, codec: Codec) -> bool:
        """Take the next bytes of payload; whether it can still be UTF-8, if it is text."""
        phase = (self.length - self.missing) % 4
        before = len(self.echo)
        is_ascii = codec.append(self.echo, data, self._key[phase:] + self._key[:phase])
        if not self.is_text:
            return True
        if is_ascii and self._checked == before:
            self._checked = len(self.echo)
            return True
        self._checked = codec.utf8(self.echo, self._checked)
        return self._checked == len(self.echo) or (self._checked > 0 and self.missing > 0)
