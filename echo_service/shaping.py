"""A session as its client has asked for: one echo at a time, and maybe an end after some.

The module is pure: it knows no clock, no socket and no trio.  Time is in `pacing`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from wsproto.events import CloseConnection

from echo_service import policy
from echo_service.codec import frame_header
from echo_service.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from echo_service.codec import Octets
    from echo_service.compression import Parameters
    from echo_service.controls import Controls
    from echo_service.intake import Intake

_PIECE: Final = 65536
"""Bytes of payload that are cut into frames at once, unless one frame is larger."""

_FRAMES: Final = 1024
"""Frames that are made at once: a millisecond's work."""


class ShapedSession(Session):
    """A session whose echoes are not returned but held, one at a time, until their `release`.

    While one is `held`, `receive` is not to be called.  After the echoes that were asked for
    the session ends by itself.  All is left to wsproto, which takes one message at a time.
    """

    __slots__ = ("_after", "_asked", "_once_sent", "held")

    def __init__(
        self, max_message_size: int, compression: Parameters | None, controls: Controls
    ) -> None:
        """Begin a session; ``max_message_size`` is in bytes of payload, inflated."""
        super().__init__(max_message_size, compression, None)
        self._after, self._asked = controls.end or (math.inf, policy.DROPPED)
        self._once_sent = self.carried
        self.held: bytearray | None = None
        """The echo that is due."""

    @property
    def _left(self) -> float:
        """Echoes that are left until the end, the part of one included."""
        texts, binaries, _ = self.carried
        return self._after - texts - binaries

    def receive(self, data: Octets = b"") -> bytes | bytearray:
        """Take what the peer sent up to the next message; returns pongs, and the Close."""
        if self.verdict is not None or self._left > 0:
            return super().receive(data)
        close = self._end_as_asked()
        super().receive(data)  # the peer's Close may be in it
        return close

    def release(self) -> bytes | bytearray:
        """The echo that is held, to be sent; of the last one maybe a part."""
        left, echo = self._left, self.let_go()
        if left >= 1:
            return echo
        self.carried = self.before
        self._end_as_asked()
        return _part(echo, left)

    def _end_as_asked(self) -> bytes | bytearray:
        self._deaf = self._asked.close is None  # where TCP is reset, no Close is looked for
        self.holds = False
        return self.end(self._asked)

    def let_go(self) -> bytearray:
        """The echo that is held, if there is one, whole: something else ends the connection."""
        if self.held is None:
            return bytearray()
        echo, self.held = self.held, None
        self.before, self.carried = self.carried, self._once_sent
        return echo

    def _judge(self, data: Octets) -> bytes | bytearray:
        """As the ordinary session's, but for one answer."""
        self.holds = False
        connection, intake, rest = self._feed(data)
        for event in connection.events():
            if type(event) is CloseConnection:
                return self._peer_ended(event, intake)
            answer = self._answer(event, intake)
            if answer or self.held is not None:
                self._hold(rest)
                self.holds = True  # there may be more in wsproto
                return answer
        self._hold(rest)
        return b""

    def _echo(self, intake: Intake) -> bytearray:
        before = self.carried
        echo = super()._echo(intake)
        if self.verdict is None:
            self._once_sent, self.carried = self.carried, before
            self.held = echo
        return bytearray()


def _length(frame: Octets) -> tuple[int, int]:
    """The size of the header of a frame of ours, and the length of the payload it tells."""
    size = {126: 4, 127: 10}.get(frame[1], 2)
    return size, int.from_bytes(frame[2:size], "big") if size > 2 else frame[1]


def _part(frame: bytearray, fraction: float) -> bytes | bytearray:
    """A part of a frame that carries something: its header, and so much of the payload."""
    size, length = _length(frame)
    return frame[: size + int(length * fraction)] if length else b""


def fragments(data: Octets, most: int) -> Iterator[Octets]:
    """Our frames in ``data``, with the data frames cut to ``most`` bytes of payload each.

    Made while they are sent, a piece at a time: of a message in frames of one byte, they take
    three times as much as the message.  The last frame may be cut off, and stays so.
    """
    data = memoryview(data)
    while data:
        size, length = _length(data)
        end = size + length
        if data[0] & 0x08 or length <= most:
            yield data[:end]
        else:
            yield from _cut(data[0], length, data[size:end], most)
        data = data[end:]


def _cut(first: int, length: int, payload: memoryview, most: int) -> Iterator[bytearray]:
    """One frame as several (RFC 6455 5.4): opcode and RSV1 are in the first, FIN in the last."""
    step = most * min(_FRAMES, max(1, _PIECE // most))
    for start in range(0, len(payload), step):
        out = bytearray()
        for at in range(start, min(start + step, len(payload)), most):
            left = length - at
            opening = 0 if at else first & 0x7F
            out += frame_header(opening if left > most else opening | 0x80, min(left, most))
            out += payload[at : at + most]
        yield out
