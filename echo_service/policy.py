"""Why a connection ended, and the Close that is sent for it.

Two things that are easily confused are kept apart here: an *ending* is what
happened (`Ending`), a *close code* is what goes on the wire.  The tables below
are the whole of what the service knows about close codes; every number is
written as a number, next to the clause it comes from, because a swapped
constant name is how a well-known server came to answer 1003 for years.

The module is pure: numbers and bytes in, a `Verdict` out, nothing raised.
"""

from __future__ import annotations

import enum
import functools
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple


class Ending(enum.Enum):
    """What ended a connection; the value is the word for it in logs."""

    PEER_CLOSED = "peer_closed"
    PROTOCOL_ERROR = "protocol_error"
    INVALID_DATA = "invalid_data"
    TOO_BIG = "too_big"
    TOO_MANY_FRAGMENTS = "too_many_fragments"
    IDLE = "idle"
    DRAINING = "draining"
    STALLED = "stalled"
    VANISHED = "vanished"
    INTERNAL_ERROR = "internal_error"
    CANCELLED = "cancelled"
    """The service was stopped at once, or its drain ran out of time."""
    ASKED = "asked"
    """The client had asked for it, by a query control."""
    REFUSED = "refused"
    """The opening handshake was refused: there was no WebSocket connection."""
    ANSWERED = "answered"
    """A plain HTTP request was answered: there was no WebSocket connection."""


class CloseCodes(NamedTuple):
    """One row of the table: what a Close with a code in this range earns."""

    first: int
    last: int
    valid: bool
    rule: str
    why: str


CLOSE_CODES: Final = (
    CloseCodes(0, 999, False, "RFC 6455 7.4.2", "not used"),
    CloseCodes(1000, 1003, True, "RFC 6455 7.4.1", "defined"),
    CloseCodes(1004, 1004, False, "RFC 6455 7.4.1", "reserved"),
    CloseCodes(1005, 1006, False, "RFC 6455 7.4.1", "never on the wire"),
    CloseCodes(1007, 1011, True, "RFC 6455 7.4.1", "defined"),
    CloseCodes(1012, 1014, True, "RFC 6455 11.7", "registered with IANA"),
    CloseCodes(1015, 1015, False, "RFC 6455 7.4.1", "never on the wire"),
    CloseCodes(1016, 2999, False, "RFC 6455 7.4.2", "not assigned"),
    CloseCodes(3000, 3999, True, "RFC 6455 7.4.2", "for libraries and frameworks"),
    CloseCodes(4000, 4999, True, "RFC 6455 7.4.2", "for private use"),
    CloseCodes(5000, 65535, False, "RFC 6455 7.4.2", "not defined"),
)
"""Every code that two bytes can carry, once, in order."""


class Violation(enum.Enum):
    """What a peer can do wrong: the code that fails it, the clause, the words."""

    UNMASKED = 1002, "RFC 6455 5.1", "a frame without a mask"
    OPCODE = 1002, "RFC 6455 5.2", "a reserved opcode"
    RESERVED_BIT = 1002, "RFC 6455 5.2", "a reserved bit is set"
    LENGTH_NOT_MINIMAL = 1002, "RFC 6455 5.2", "a length in more bytes than it needs"
    LENGTH_OVER_63_BITS = 1002, "RFC 6455 5.2", "a length of more than 63 bits"
    FRAME = 1002, "RFC 6455 5", "a malformed frame"
    CONTINUATION_STRAY = 1002, "RFC 6455 5.4", "a continuation of no message"
    CONTINUATION_MISSING = 1002, "RFC 6455 5.4", "a message inside another"
    CONTROL_FRAGMENTED = 1002, "RFC 6455 5.5", "a fragmented control frame"
    CONTROL_LONG = 1002, "RFC 6455 5.5", "a control frame of more than 125 bytes"
    CLOSE_BODY = 1002, "RFC 6455 5.5.1", "a Close with a body of one byte"
    CLOSE_REASON = 1007, "RFC 6455 5.5.1", "a close reason that is not UTF-8"
    TEXT = 1007, "RFC 6455 8.1", "text that is not UTF-8"
    DEFLATE = 1007, "RFC 7692 7.2.2", "data that does not inflate"
    DEFLATED_TEXT = 1007, "RFC 6455 8.1", "text that does not inflate to UTF-8"
    TOO_BIG = 1009, "RFC 6455 10.4", "a message over the limit"
    TOO_MANY_FRAGMENTS = 1008, "RFC 6455 10.4", "too many fragments in a message"

    def __init__(self, code: int, rule: str, words: str) -> None:
        self.code = code
        self.rule = rule
        self.words = words


_VIOLATION_ENDINGS: Final = {
    1002: Ending.PROTOCOL_ERROR,
    1007: Ending.INVALID_DATA,
    1008: Ending.TOO_MANY_FRAGMENTS,
    1009: Ending.TOO_BIG,
}

NO_STATUS: Final = 1005
"""Recorded for a Close without a code; never on the wire (RFC 6455 7.1.5)."""

ABNORMAL: Final = 1006
"""Recorded where no Close came; never on the wire (RFC 6455 7.1.5)."""

MAX_REASON: Final = 123
"""Bytes of a close reason: a control frame's 125, less the code (RFC 6455 5.5)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a connection ends.

    ``close`` is the payload of the Close frame to send (0 to 125 bytes), or None
    where none is to be sent.  ``received_code`` and ``sent_code`` are what the
    two Closes said: `NO_STATUS` for one without a code, and None for one that
    did not come or go; a TCP connection that ended without the peer's Close is
    `ABNORMAL`.  ``rule`` is the clause that the peer broke, if it broke one.
    """

    ending: Ending
    close: bytes | None = None
    received_code: int | None = None
    rule: str | None = None

    @property
    def sent_code(self) -> int | None:
        """The code in the Close that is sent."""
        return None if self.close is None else close_code(self.close)


def close_code(payload: bytes) -> int | None:
    """The code in a Close frame's payload; None if its body is one byte."""
    if not payload:
        return NO_STATUS
    return int.from_bytes(payload[:2], "big") if len(payload) > 1 else None


def close_payload(code: int, reason: str = "") -> bytes:
    """A Close frame's payload; the reason is ASCII, at most 123 bytes of it go out."""
    return struct.pack("!H", code) + reason.encode("ascii")[:MAX_REASON]


@functools.lru_cache(maxsize=64)  # two of each connection, and mostly the same
def row(code: int) -> CloseCodes:
    """The row of `CLOSE_CODES` for ``code``, which is from 0 to 65535."""
    return next(row for row in CLOSE_CODES if code <= row.last)


def violated(violation: Violation) -> Verdict:
    """The verdict on a peer that broke a rule: _Fail the WebSocket Connection_."""
    return Verdict(
        _VIOLATION_ENDINGS[violation.code],
        close_payload(violation.code, f"{violation.words} ({violation.rule})"),
        rule=violation.rule,
    )


def closed(payload: bytes) -> Verdict:
    """The verdict on the peer's Close frame, from its payload as it came.

    A Close without a body is answered with one without a body, a valid one with
    the same code and reason (RFC 6455 5.5.1), an invalid one with 1002 or 1007.
    """
    if not payload:
        return Verdict(Ending.PEER_CLOSED, b"", NO_STATUS)
    if len(payload) == 1:
        return violated(Violation.CLOSE_BODY)
    code = int.from_bytes(payload[:2], "big")
    entry = row(code)
    if not entry.valid:
        words = f"close code {code} is {entry.why} ({entry.rule})"
        return Verdict(Ending.PROTOCOL_ERROR, close_payload(1002, words), code, entry.rule)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        verdict = violated(Violation.CLOSE_REASON)
        return Verdict(verdict.ending, verdict.close, code, verdict.rule)
    return Verdict(Ending.PEER_CLOSED, payload, code)


def asked(payload: bytes) -> Verdict:
    """The verdict on a connection whose client asked for this Close, forbidden code or not."""
    return Verdict(Ending.ASKED, payload)


DROPPED: Final = Verdict(Ending.ASKED, received_code=ABNORMAL)
IDLE: Final = Verdict(Ending.IDLE, close_payload(1011, "no sign of life"))
INTERNAL_ERROR: Final = Verdict(Ending.INTERNAL_ERROR, close_payload(1011, "internal error"))
STALLED: Final = Verdict(Ending.STALLED, received_code=ABNORMAL)
CANCELLED: Final = Verdict(Ending.CANCELLED, received_code=ABNORMAL)
VANISHED: Final = Verdict(Ending.VANISHED, received_code=ABNORMAL)
DRAINING: Final = {
    1001: Verdict(Ending.DRAINING, close_payload(1001, "the service is going away")),
    1012: Verdict(Ending.DRAINING, close_payload(1012, "the service restarts")),
}
"""What the open connections are closed with in a drain, by the code chosen."""
