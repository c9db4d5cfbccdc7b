"""Fragmentation, and control frames between the fragments (RFC 6455 5.4 and 5.5)."""

from __future__ import annotations

from typing import Final

from echo_service.check.judge import Item
from echo_service.check.row import closes, echoes, fails
from echo_service.check.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
    octets,
)

_CLAUSE: Final = "RFC 6455 5.4"
_CONTROL: Final = "RFC 6455 5.5"
_FIRST: Final = frame(TEXT, b"fragment1", fin=False)
_LAST: Final = frame(CONTINUATION, b"fragment2")
_PING: Final = frame(PING, b"between")
_WHOLE: Final = Item(TEXT, b"fragment1fragment2")
_STRAY: Final = frame(CONTINUATION, b"of nothing", fin=False)

CHECKS: Final = (
    echoes("fragmentation.two", _CLAUSE, [_FIRST, _LAST], [_WHOLE], "5.4"),
    echoes("fragmentation.segment", _CLAUSE, [_FIRST + _LAST], [_WHOLE], "5.3"),
    echoes("fragmentation.octets", _CLAUSE, octets(_FIRST + _LAST), [_WHOLE], "5.5"),
    echoes(
        "fragmentation.binary",
        _CLAUSE,
        [frame(BINARY, b"\xfe", fin=False) + frame(CONTINUATION, b"\xff")],
        [Item(BINARY, b"\xfe\xff")],
    ),
    echoes(
        "fragmentation.all-empty",
        _CLAUSE,
        [
            frame(TEXT, fin=False),
            frame(CONTINUATION, fin=False),
            frame(CONTINUATION),
        ],
        [Item(TEXT, b"")],
        "6.1.2",
    ),
    echoes(
        "fragmentation.first-and-last-empty",
        _CLAUSE,
        [
            frame(TEXT, fin=False),
            frame(CONTINUATION, b"middle", fin=False),
            frame(CONTINUATION),
        ],
        [Item(TEXT, b"middle")],
        "6.1.3",
    ),
    echoes(
        "fragmentation.many",
        _CLAUSE,
        [frame(TEXT, b"0", fin=False) + frame(CONTINUATION, b"1", fin=False) * 100 + _LAST],
        [Item(TEXT, b"0" + b"1" * 100 + b"fragment2")],
    ),
    echoes(
        "fragmentation.ping-between",
        _CONTROL,
        [_FIRST + _PING + _LAST],
        [Item(PONG, b"between"), _WHOLE],
        "5.6",
    ),
    echoes(
        "fragmentation.ping-between-octets",
        _CONTROL,
        octets(_FIRST + _PING + _LAST),
        [Item(PONG, b"between"), _WHOLE],
        "5.8",
    ),
    echoes(
        "fragmentation.ping-before-the-end",
        _CONTROL,
        [_FIRST + _PING],
        [Item(PONG, b"between")],
        "5.19",
        expected="Pong 'between', before the message is whole",
    ),
    echoes(
        "fragmentation.pong-between",
        _CONTROL,
        [_FIRST + frame(PONG, b"unasked") + _LAST],
        [_WHOLE],
    ),
    closes("fragmentation.close-between", _CLAUSE, 1000, "7.1.5", before=_FIRST),
    fails("fragmentation.ping-fragmented", _CONTROL, [frame(PING, b"a", fin=False)], "5.1"),
    fails("fragmentation.pong-fragmented", _CONTROL, [frame(PONG, b"a", fin=False)], "5.2"),
    fails("fragmentation.close-fragmented", _CONTROL, [frame(CLOSE, b"\x03\xe8", fin=False)]),
    fails("fragmentation.stray-last", _CLAUSE, [frame(CONTINUATION, b"of nothing")], "5.9"),
    fails("fragmentation.stray", _CLAUSE, [_STRAY], "5.12"),
    fails("fragmentation.stray-octets", _CLAUSE, octets(_STRAY), "5.14"),
    fails("fragmentation.text-inside", _CLAUSE, [_FIRST + frame(TEXT, b"fragment2")], "5.18"),
    fails("fragmentation.binary-inside", _CLAUSE, [_FIRST + frame(BINARY, b"", fin=False)]),
)
