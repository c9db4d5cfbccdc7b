"""What came → a verdict, and why.

The verdicts are those of Autobahn: what has to come, what is allowed and better not, and
what is wrong; and skipped, of what the peer does not offer.  The module is pure, and time
plays no part in it but for a peer that is silent until the deadline.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from echo_service.check.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PONG,
    TEXT,
    Came,
    Ending,
    Frame,
    least_length,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class Verdict(enum.StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 - no password
    NON_STRICT = "non-strict"
    FAIL = "fail"
    SKIPPED = "skipped"


class Judgement(NamedTuple):
    """A verdict, what was observed, and why it is not a pass."""

    verdict: Verdict
    observed: str
    why: str = ""


class Item(NamedTuple):
    """A message, put together, or a pong."""

    opcode: int
    payload: bytes


NO_CODE: Final = 1005
"""Of a Close without a code (RFC 6455 7.1.5)."""

_NAMES: Final = {0: "Continuation", 1: "Text", 2: "Binary", 8: "Close", 9: "Ping", 10: "Pong"}

_ERRORS: Final = {1002, 1003, 1007, 1008, 1009, 1010, 1011}
"""The codes that say of a connection that it was failed (RFC 6455 7.4.1)."""

_LATER: Final = {1012, 1013, 1014}
"""Registered with IANA since RFC 6455, by whom knows of them (11.7)."""

_SENDABLE: Final = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""The codes that may be in a Close (RFC 6455 7.4)."""


# What came, in words


def quoted(payload: bytes) -> str:
    """A payload, or its beginning and its size."""
    if not payload:
        return "''"
    try:
        text = repr(payload[:24].decode())
    except UnicodeDecodeError:
        text = payload[:12].hex(" ")
    return text if len(payload) <= 24 else f"{text}… of {len(payload)} bytes"


def name(opcode: int) -> str:
    """An opcode's name (RFC 6455 5.2)."""
    return _NAMES.get(opcode, f"opcode {opcode}")


def code(frame: Frame) -> int:
    """The code of a Close (RFC 6455 7.1.5)."""
    return int.from_bytes(frame.payload[:2], "big") if frame.payload else NO_CODE


def tell_close(frame: Frame) -> str:
    """A Close."""
    if not frame.payload:
        return "Close without a code"
    reason = frame.payload[2:125].decode(errors="replace")
    return f"Close {code(frame)}" + (f" {reason!r}" if reason else "")


def tell_item(item: Item) -> str:
    """A message or a pong."""
    return f"{name(item.opcode)} {quoted(item.payload)}"


def tell(came: Came) -> str:
    """All that came, in its order; many are counted."""
    told = [tell_item(item) for item in items(came.frames)]
    if len(told) > 4:
        told[2:-1] = [f"… {len(told) - 3} more"]
    told += [tell_close(frame) for frame in came.frames if frame.opcode == CLOSE]
    if came.ending is not None:
        told.append(came.ending.value)
    return ", ".join(told) or "nothing"


# What came, put together


def items(frames: Sequence[Frame]) -> list[Item]:
    """The whole messages, and the pongs between them."""
    return [
        Item(frame.opcode, frame.payload)
        for frame in whole(frames)
        if frame.opcode == PONG or not frame.is_control
    ]


def fault(frames: Sequence[Frame], rsv: int = 0) -> str:
    """How the peer has broken the protocol with any of its frames; empty where it has not.

    ``rsv`` are the bits that an extension allows in the first frame of a message.
    """
    inside = False
    for frame in frames:
        if found := _fault(frame, rsv if frame.opcode in (TEXT, BINARY) else 0, inside=inside):
            return f"{name(frame.opcode)} {found}"
        if not frame.is_control:
            inside = not frame.fin
    return ""


def _fault(frame: Frame, rsv: int, *, inside: bool) -> str:
    if frame.masked:
        return "is masked: RFC 6455 5.1"
    if frame.rsv & ~rsv:
        return "has a reserved bit set: RFC 6455 5.2"
    if frame.opcode not in _NAMES:
        return "is reserved: RFC 6455 5.2"
    if frame.length != least_length(len(frame.payload)):
        return "has a length that is not minimal: RFC 6455 5.2"
    if frame.is_control:
        return _fault_of_control(frame)
    if inside != (frame.opcode == CONTINUATION):
        return "is out of order: RFC 6455 5.4"
    return ""


def _fault_of_control(frame: Frame) -> str:
    if not frame.fin or len(frame.payload) > 125:
        return "is fragmented or over 125 bytes: RFC 6455 5.5"
    if frame.opcode != CLOSE:
        return ""
    if len(frame.payload) == 1:
        return "has a body of one byte: RFC 6455 5.5.1"
    if frame.payload and code(frame) not in _SENDABLE:
        return f"has the code {code(frame)}, which must not be sent: RFC 6455 7.4"
    try:
        frame.payload[2:].decode()
    except UnicodeDecodeError:
        return "has a reason that is not UTF-8: RFC 6455 5.5.1"
    return ""


# Verdicts


def echoed(came: Came, expected: Sequence[Item]) -> Judgement:
    """Of what has to come back: messages and pongs."""
    observed = tell(came)
    if wrong := fault(came.frames):
        return Judgement(Verdict.FAIL, observed, wrong)
    messages, pongs = _apart(items(came.frames))
    wanted, asked = _apart(expected)
    if messages == wanted and pongs == asked:
        return Judgement(Verdict.PASS, observed)
    if messages == wanted and pongs and _are_latest(pongs, asked):
        why = "RFC 6455 5.5.3: only the most recent ping need be answered"
        return Judgement(Verdict.NON_STRICT, observed, why)
    return Judgement(Verdict.FAIL, observed, "it is not what has to come back")


def _apart(found: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The messages and the pongs, which may overtake each other (RFC 6455 5.5.3)."""
    pongs = [item for item in found if item.opcode == PONG]
    return [item for item in found if item.opcode != PONG], pongs


def _are_latest(pongs: Sequence[Item], asked: Sequence[Item]) -> bool:
    """Whether some are left out, and the last one is not."""
    rest = iter(asked)
    return pongs[-1:] == asked[-1:] and all(pong in rest for pong in pongs)


def failed(came: Came, codes: Collection[int], before: Sequence[Item] = ()) -> Judgement:
    """Of a violation: the peer has to fail the connection (RFC 6455 7.1.7).

    ``before`` was sent before the violation, and is to be answered first.
    """
    observed = tell(came)
    if wrong := fault(came.frames):
        return Judgement(Verdict.FAIL, observed, wrong)
    found = items(came.frames)
    if found != list(before[: len(found)]):
        return Judgement(Verdict.FAIL, observed, "it was taken as valid")
    ended = _failed_with(came, codes)
    if ended.verdict is Verdict.PASS and len(found) < len(before):
        why = "what came whole before the violation was not answered; no clause says it must be"
        return Judgement(Verdict.NON_STRICT, observed, why)
    return ended


def _failed_with(came: Came, codes: Collection[int]) -> Judgement:
    """How the connection was failed."""
    observed = tell(came)
    if came.ending is not None and not came.ending.is_of_tcp:
        return Judgement(Verdict.FAIL, observed, "RFC 6455 7.1.7: the connection was not failed")
    if came.ending is not None:
        why = "RFC 6455 7.1.7: a Close SHOULD be sent before TCP is closed"
        return Judgement(Verdict.NON_STRICT, observed, why)
    answer = code(came.frames[-1])
    if answer in codes:
        return Judgement(Verdict.PASS, observed)
    if answer in _ERRORS or answer == NO_CODE:
        why = "RFC 6455 7.1.7: the code SHOULD be an appropriate one"
        return Judgement(Verdict.NON_STRICT, observed, why)
    why = f"RFC 6455 7.1.7: {answer} does not say that the connection failed"
    return Judgement(Verdict.FAIL, observed, why)


def closed(came: Came, sent: int) -> Judgement:
    """Of a valid Close, with the code ``sent`` or `NO_CODE` (RFC 6455 5.5.1)."""
    observed = tell(came)
    if wrong := fault(came.frames):
        return Judgement(Verdict.FAIL, observed, wrong)
    answer = code(came.frames[-1]) if came.ending is None else None
    if answer == sent or (sent == NO_CODE and answer == 1000):
        return Judgement(Verdict.PASS, observed)
    if sent in _LATER and (answer == 1002 or (came.ending and came.ending.is_of_tcp)):
        why = "RFC 6455 7.4.2: the code was registered later, and need not be known"
        return Judgement(Verdict.NON_STRICT, observed, why)
    if answer is None:
        return Judgement(Verdict.FAIL, observed, "RFC 6455 5.5.1: a Close MUST be answered")
    if answer in (1000, NO_CODE):
        why = "RFC 6455 5.5.1: the code is typically echoed"
        return Judgement(Verdict.NON_STRICT, observed, why)
    return Judgement(Verdict.FAIL, observed, "RFC 6455 5.5.1: a valid Close was answered so")


def silent(after: Came, before: str) -> Judgement:
    """Of what comes after the closing handshake: nothing more (RFC 6455 5.5.1)."""
    observed = f"{before}, then {tell(after)}"
    if after.frames or after.ending is Ending.FLOOD:
        why = "RFC 6455 5.5.1: nothing is sent after a Close"
        return Judgement(Verdict.FAIL, observed, why)
    return Judgement(Verdict.PASS, observed)


def torn_down(ending: Ending | None, before: str) -> Judgement:
    """Of TCP after the closing handshake: the server closes it (RFC 6455 7.1.1)."""
    observed = f"{before}, then {ending.value if ending else 'more'}"
    if ending is Ending.CLOSED:
        return Judgement(Verdict.PASS, observed)
    if ending is Ending.RESET:
        why = "RFC 6455 7.1.1: cleanly; a reset can destroy a Close that is under way"
        return Judgement(Verdict.NON_STRICT, observed, why)
    return Judgement(Verdict.FAIL, observed, "RFC 6455 5.5.1: the server MUST close TCP")
