"""The bytes of a connection, both ways, and what they are."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from echo_service.check import judge, wire
from echo_service.check.wire import CLOSE, Frame, least_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from echo_service.check.client import Passed

_SHOWN: Final = 16
"""Bytes of a frame that are shown."""

_END: Final = b"\r\n\r\n"


def annotated(transcript: Sequence[Passed]) -> Iterator[str]:
    """A line a header and a line a frame; ``>`` is to the peer, ``<`` from it."""
    heads = {">", "<"}
    for direction, group in groupby(transcript, key=lambda passed: passed.direction):
        data = b"".join(passed.data for passed in group)
        if direction == "=":
            yield f"= {data.decode()}"
            continue
        if direction in heads:
            heads.remove(direction)
            head, end, data = data.partition(_END)
            yield from (f"{direction} {ascii(line)[2:-1]}" for line in head.split(b"\r\n"))
            yield from [direction] if end else []
        yield from (f"{direction} {line}" for line in _frames(data))


def _frames(data: bytes) -> Iterator[str]:
    while taken := wire.take(data):
        yield _line(data[: taken[1]], _words(taken[0]))
        data = data[taken[1] :]
    if data:
        yield _line(data, f"{len(data)} bytes that are no whole frame")


def _line(data: bytes, words: str) -> str:
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
