"""Framing: lengths, masks, reserved bits and opcodes (RFC 6455 5.2 and 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from echo_service.check import judge
from echo_service.check.judge import Item, Judgement, Verdict
from echo_service.check.row import Check, echoes, fails
from echo_service.check.wire import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    frame,
    header,
    octets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from echo_service.check.client import Trial

_HELLO: Final = b"Hello"
_LENGTHS: Final = {0: 1, 1: 0, 125: 2, 126: 3, 127: 4, 128: 5, 65535: 6, 65536: 7}
"""The boundaries of the payload length, and the Autobahn case in 1.1 and 1.2 of each."""

_RESERVED: Final = {opcode: f"4.1.{opcode - 2}" for opcode in range(3, 8)} | {
    opcode: f"4.2.{opcode - 10}" for opcode in range(11, 16)
}
"""The reserved opcodes, and the Autobahn case of each."""

_BITS: Final = (
    ("rsv3-text", TEXT, _HELLO, 1, "3.1"),
    ("rsv2-text", TEXT, _HELLO, 2, "3.2"),
    ("rsv2-rsv3-text", TEXT, _HELLO, 3, "3.3"),
    ("rsv1-text", TEXT, _HELLO, 4, "3.4"),
    ("rsv1-rsv3-binary", BINARY, _HELLO, 5, "3.5"),
    ("rsv1-rsv2-ping", PING, _HELLO, 6, "3.6"),
    ("rsv1-rsv2-rsv3-close", CLOSE, b"\x03\xe8", 7, "3.7"),
)


def _length(kind: str, opcode: int, size: int) -> Check:
    payload = b"*" * size if opcode == TEXT else b"\xfe" * size
    case = f"1.{opcode}.{_LENGTHS[size]}" if _LENGTHS[size] else ""
    return echoes(
        f"framing.{kind}-{size}",
        "RFC 6455 5.2",
        [frame(opcode, payload)],
        [Item(opcode, payload)],
        case,
    )


def _lenient(name: str, sent: Sequence[bytes], size: int) -> Check:
    """A length that is not minimal, which no clause has the receiver fail for."""
    item = Item(BINARY, b"*" * size)

    async def steps(trial: Trial) -> Judgement:
        client = await trial.open()
        await client.send(*sent)
        came = await client.come(1)
        if not judge.fault(came.frames) and judge.items(came.frames) == [item]:
            why = "RFC 6455 5.2 binds the sender; no clause has the receiver fail"
            return Judgement(Verdict.NON_STRICT, judge.tell(came), why)
        return judge.failed(came, (1002,))

    return Check(name, "RFC 6455 5.2", "", "Close 1002", steps)


CHECKS: Final = (
    *(_length("text", TEXT, size) for size in _LENGTHS),
    *(_length("binary", BINARY, size) for size in _LENGTHS),
    echoes(
        "framing.chopped",
        "RFC 6455 5.2",
        [frame(TEXT, b"*" * 65536)[i : i + 997] for i in range(0, 65550, 997)],
        [Item(TEXT, b"*" * 65536)],
        "1.1.8",
    ),
    echoes("framing.octets", "RFC 6455 5.2", octets(frame(TEXT, _HELLO)), [Item(TEXT, _HELLO)]),
    echoes(
        "framing.mask-zero",
        "RFC 6455 5.3",
        [frame(TEXT, _HELLO, key=bytes(4))],
        [Item(TEXT, _HELLO)],
    ),
    echoes(
        "framing.masks-differ",
        "RFC 6455 5.3",
        [frame(TEXT, b"a" * 9, key=b"\1\2\3\4") + frame(TEXT, b"b" * 7, key=b"\xff\0\xff\0")],
        [Item(TEXT, b"a" * 9), Item(TEXT, b"b" * 7)],
    ),
    fails("framing.mask-none", "RFC 6455 5.1", [frame(TEXT, _HELLO, key=b"")]),
    *(
        fails(f"framing.{name}", "RFC 6455 5.2", [frame(opcode, payload, rsv=rsv)], case)
        for name, opcode, payload, rsv, case in _BITS
    ),
    *(
        fails(f"framing.opcode-{opcode}", "RFC 6455 5.2", [frame(opcode, _HELLO)], case)
        for opcode, case in _RESERVED.items()
    ),
    _lenient("framing.length-5-in-16-bits", [frame(BINARY, b"*" * 5, length=2)], 5),
    _lenient("framing.length-125-in-16-bits", [frame(BINARY, b"*" * 125, length=2)], 125),
    _lenient("framing.length-125-in-64-bits", [frame(BINARY, b"*" * 125, length=8)], 125),
    _lenient("framing.length-65535-in-64-bits", [frame(BINARY, b"*" * 65535, length=8)], 65535),
    fails(
        "framing.length-over-63-bits",
        "RFC 6455 5.2",
        [header(BINARY, 1 << 63) + bytes(4)],
        codes=(1002, 1009),
    ),
)
