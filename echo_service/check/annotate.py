"""The bytes of a connection, both ways, and what they are."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from echo_service.check import judge, wire
from echo_service.check.wire import CLOSE, Frame, least_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from echo_service.check.transcript import Passed

_SHOWN: Final = 16
"""Bytes of a frame that are shown."""

_FRAMES: Final = 110
"""Frames that are shown of those that went one way in a row."""

_FIRST: Final = 256
_LAST: Final = 16
"""Lines that are shown of a connection."""

_LONGEST: Final = 256
"""Bytes of a header that are shown."""

_END: Final = b"\r\n\r\n"


def annotated(transcript: Sequence[Passed]) -> Iterator[str]:
    """A line a header and a line a frame, of many the first and the last.

    ``>`` is to the peer, ``<`` from it.
    """
    lines = _lines(transcript)
    yield from islice(lines, _FIRST)
    rest = list(lines)
    if len(rest) > _LAST:
        yield f"… {len(rest) - _LAST} lines more"
    yield from rest[-_LAST:]


def _lines(transcript: Sequence[Passed]) -> Iterator[str]:
    heads = {">", "<"}
    for passed in transcript:
        direction, at = passed.direction, 0
        if direction == "=":
            yield f"= {passed.data.decode()}"
            continue
        if direction in heads:
            heads.remove(direction)
            head, end, _ = bytes(passed.data).partition(_END)
            at = len(head) + len(end)
            yield from (f"{direction} {_header(line)}" for line in head.split(b"\r\n"))
            yield from [direction] if end else []
        frames = _frames(memoryview(passed.data)[at:], passed.size - at)
        yield from (f"{direction} {line}" for line in frames)


def _header(line: bytes) -> str:
    cut = f" … of {len(line)} bytes" if len(line) > _LONGEST else ""
    return ascii(line[:_LONGEST])[2:-1] + cut


def _frames(data: memoryview, size: int) -> Iterator[str]:
    """The first frames in ``data``, which are the first of ``size`` bytes."""
    at = count = 0
    while count < _FRAMES and (taken := wire.take(data[at:])):
        yield _line(data[at : at + taken[1]], _words(taken[0]))
        at += taken[1]
        count += 1
    if at < size:
        is_cut = count == _FRAMES or len(data) < size
        words = "more" if is_cut else "that are no whole frame"
        yield _line(data[at:], f"{size - at} bytes {words}")


def _line(data: memoryview, words: str) -> str:
    shown = data[:_SHOWN].hex(" ") + (" …" if len(data) > _SHOWN else "")
    return f"{shown:<{_SHOWN * 3 + 1}}  {words}"


def _words(frame: Frame) -> str:
    """A frame: what it is, and what is uncommon about it."""
    whole = frame.opcode == CLOSE and len(frame.payload) != 1
    what = judge.tell_close(frame) if whole else judge.tell_item(judge.Item(*frame[:2]))
    bits = [name for bit, name in ((4, "RSV1"), (2, "RSV2"), (1, "RSV3")) if frame.rsv & bit]
    uncommon = [*bits, *([] if frame.fin else ["more to come"])]
    if frame.length != least_length(len(frame.payload)):
        uncommon.append(f"length in {frame.length * 8} bits")
    return ", ".join([what, *uncommon, *(["masked"] if frame.masked else [])])
