"""What came whole is answered before what comes after it: messages, a Close, a violation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from echo_service.check import judge
from echo_service.check.judge import Item, Judgement, Verdict
from echo_service.check.row import Check, echoes, fails
from echo_service.check.wire import CONTINUATION, PING, PONG, TEXT, close, frame

if TYPE_CHECKING:
    from echo_service.check.client import Trial

_ITEM: Final = Item(TEXT, b"first")
_TEXT: Final = frame(*_ITEM)
_CLAUSE: Final = "RFC 6455 7.1.7"


async def _before_close(trial: Trial) -> Judgement:
    client = await trial.open()
    await client.send(_TEXT + close(1000))
    came = await client.come()
    judgement = judge.closed(came, 1000)
    found = judge.items(came.frames)
    if judgement.verdict is not Verdict.PASS or found == [_ITEM]:
        return judgement
    if found:
        return Judgement(Verdict.FAIL, judgement.observed, "it is not what was sent")
    why = "RFC 6455 5.5.1: after a Close nothing more need be sent"
    return Judgement(Verdict.NON_STRICT, judgement.observed, why)


def _before(name: str, violation: bytes, autobahn: str = "", code: int = 1002) -> Check:
    sent = [_TEXT + violation]
    return fails(
        f"order.echo-before-{name}", _CLAUSE, sent, autobahn, codes=(code,), before=[_ITEM]
    )


CHECKS: Final = (
    echoes(
        "order.messages",
        "RFC 6455 5.4",
        [b"".join(frame(TEXT, b"%d" % number) for number in range(20))],
        [Item(TEXT, b"%d" % number) for number in range(20)],
        expected="twenty messages, sent in one segment, in their order",
    ),
    echoes(
        "order.ping-after-message",
        "RFC 6455 5.5.3",
        [_TEXT + frame(PING, b"second")],
        [_ITEM, Item(PONG, b"second")],
    ),
    Check(
        "order.echo-before-close",
        "RFC 6455 5.5.1",
        "7.1.1",
        "Text 'first', Close 1000",
        _before_close,
    ),
    _before("reserved-bit", frame(TEXT, b"second", rsv=2), "3.2"),
    _before("reserved-opcode", frame(5, b"second"), "4.1.3"),
    _before("reserved-control", frame(13), "4.2.3"),
    _before("stray", frame(CONTINUATION, b"second", fin=False), "5.15"),
    _before("no-mask", frame(TEXT, b"second", key=b"")),
    _before("invalid-utf8", frame(TEXT, b"\xff"), code=1007),
)
