"""Ping and pong (RFC 6455 5.5)."""

from __future__ import annotations

from typing import Final

from echo_service.check.judge import Item
from echo_service.check.row import echoes, fails
from echo_service.check.wire import PING, PONG, TEXT, frame, octets

_CLAUSE: Final = "RFC 6455 5.5.3"
_LONGEST: Final = b"\xfe" * 125
_PAYLOADS: Final = {
    "empty": (b"", "2.1"),
    "text": (b"Hello, world!", "2.2"),
    "binary": (b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", "2.3"),
    "125-bytes": (_LONGEST, "2.4"),
}
_TEN: Final = [b"payload-%d" % number for number in range(10)]
_AFTER: Final = Item(TEXT, b"after")
"""That it comes, and nothing before it, tells that a pong was ignored."""

CHECKS: Final = (
    *(
        echoes(f"control.ping-{name}", _CLAUSE, [frame(PING, payload)], [Item(PONG, payload)], case)
        for name, (payload, case) in _PAYLOADS.items()
    ),
    echoes(
        "control.ping-octets",
        _CLAUSE,
        octets(frame(PING, _LONGEST)),
        [Item(PONG, _LONGEST)],
        "2.6",
    ),
    fails("control.ping-126-bytes", "RFC 6455 5.5", [frame(PING, _LONGEST + b"\xfe")], "2.5"),
    fails("control.pong-126-bytes", "RFC 6455 5.5", [frame(PONG, _LONGEST + b"\xfe")]),
    echoes(
        "control.pong-empty",
        _CLAUSE,
        [frame(PONG) + frame(*_AFTER)],
        [_AFTER],
        "2.7",
        expected="nothing but the echo of what follows",
    ),
    echoes(
        "control.pong-unasked",
        _CLAUSE,
        [frame(PONG, b"unasked") + frame(*_AFTER)],
        [_AFTER],
        "2.8",
        expected="nothing but the echo of what follows",
    ),
    echoes(
        "control.pong-then-ping",
        _CLAUSE,
        [frame(PONG, b"unasked") + frame(PING, b"asked")],
        [Item(PONG, b"asked")],
        "2.9",
    ),
    echoes(
        "control.pings-ten",
        _CLAUSE,
        [frame(PING, payload) for payload in _TEN],
        [Item(PONG, payload) for payload in _TEN],
        "2.10",
        expected="ten pongs, in their order",
    ),
    echoes(
        "control.pings-ten-octets",
        _CLAUSE,
        octets(b"".join(frame(PING, payload) for payload in _TEN)),
        [Item(PONG, payload) for payload in _TEN],
        "2.11",
        expected="ten pongs, in their order",
    ),
)
