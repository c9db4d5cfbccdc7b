"""Frames: any bytes, cut in any way, are answered as the `oracle` has it, with every codec.

An input is laid out as `fuzz.law` has it, and can be exchanged with the fuzzer in C.
"""

from __future__ import annotations

import gc
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

from echo_service import codec, policy
from echo_service.session import Session
from fuzz import oracle
from fuzz.law import AGREED, LIMITS, cut, script
from tests import wire

if TYPE_CHECKING:
    from echo_service.codec import Codec
    from echo_service.compression import Parameters

CODECS: list[Codec | None] = [codec.PYTHON, None, *filter(None, [codec.COMPILED])]

SLACK = 8192
"""Bytes that a session may keep beside its message: constants, a control frame, and what wsproto
has not taken of the step with which it failed."""


def check(data: bytes) -> None:
    """Judge an input; where its first byte says so, also by what a session keeps."""
    options, cutting, end = data[:3].ljust(3, b"\x00")
    sent = data[3:]
    if options & 0x80:
        sent = script(sent)
    limit, agreed = LIMITS[options & 7], AGREED[options >> 3 & 3]
    pieces = list(cut(sent, cutting))
    hold(limit, agreed, pieces)
    if options & 0x40:
        hold_silence(limit, agreed, pieces, end)
    if options & 0x20:
        hold_memory(limit, agreed, pieces)


def hold(limit: int, agreed: Parameters | None, pieces: list[bytes]) -> None:
    """Hold what these pieces are answered, and the same bytes whole, against the oracle."""
    sent = b"".join(pieces)
    expected = oracle.Judge(limit, agreed).judge(sent)
    verdicts = set()
    for each in CODECS:
        for way in (pieces, [sent]):
            session = Session(limit, agreed, each)
            answer = wire.feed(session, way)
            _compare(answer, session, expected, agreed)
            verdicts.add(session.verdict)
    assert len(verdicts) == 1, verdicts


def _compare(
    answer: bytes, session: Session, expected: oracle.Expected, agreed: Parameters | None
) -> None:
    messages = list(oracle.answers(answer, agreed))
    closes = [each.payload for each in messages if each.opcode == wire.CLOSE]
    carried = [each for each in messages if each.opcode != wire.CLOSE]
    assert carried == expected.messages, (carried, expected)
    assert messages[len(carried) :] == [oracle.Message(wire.CLOSE, each) for each in closes]
    assert len(closes) == (session.verdict is not None), (closes, session.verdict)
    for payload in closes:
        assert len(payload) <= 125
        assert oracle.is_utf8(payload[2:])
        code = int.from_bytes(payload[:2], "big")
        if expected.close is not None:
            assert payload == expected.close
        else:
            assert code in oracle.CODES
            assert code in expected.codes | expected.perhaps, (payload, expected)
    if expected.codes or expected.close is not None:
        assert closes, expected
    data = [each for each in carried if each.opcode in (1, 2)]
    texts = sum(each.opcode == wire.TEXT for each in data)
    octets = sum(len(each.payload) for each in data)
    assert session.carried == (texts, len(data) - texts, octets)


def hold_silence(limit: int, agreed: Parameters | None, pieces: list[bytes], end: int) -> None:
    """After a Close of ours nothing is answered, whatever comes, and the code stays."""
    for each in CODECS:
        session = Session(limit, agreed, each)
        wire.feed(session, pieces[:end])
        if session.verdict is None:
            session.end(policy.IDLE)
        verdict = session.verdict
        assert wire.feed(session, pieces[end:]) == b""
        assert session.verdict is not None
        assert verdict is not None
        assert session.verdict.close == verdict.close


def hold_memory(limit: int, agreed: Parameters | None, pieces: list[bytes]) -> None:
    """What a session keeps between two calls is one message, and a frame's header."""
    for each in CODECS:
        session = Session(limit, agreed, each)
        for piece in pieces:
            wire.take(session, piece)
            assert held(session) < limit + limit // 4 + SLACK


def held(session: Session) -> int:
    """Bytes in the buffers that a session keeps."""
    size = 0
    seen: set[int] = set()
    found: list[object] = [session]
    while found:
        each = found.pop()
        if id(each) in seen or isinstance(each, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(each))
        if isinstance(each, (bytes, bytearray)):
            size += sys.getsizeof(each)
        found += gc.get_referents(each)
    return size
