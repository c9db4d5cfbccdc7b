"""The closing handshake, each class of close code, and the end of TCP (RFC 6455 5.5.1 and 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from echo_service.check import judge
from echo_service.check.judge import Judgement, Verdict
from echo_service.check.row import Check, closes, fails
from echo_service.check.wire import BINARY, CLOSE, PING, TEXT, Came, close, frame

if TYPE_CHECKING:
    from echo_service.check.client import Trial

_VALID: Final = {
    1000: ("7.4.1", "7.7.1"),
    1001: ("7.4.1", "7.7.2"),
    1002: ("7.4.1", "7.7.3"),
    1003: ("7.4.1", "7.7.4"),
    1007: ("7.4.1", "7.7.5"),
    1008: ("7.4.1", "7.7.6"),
    1009: ("7.4.1", "7.7.7"),
    1010: ("7.4.1", "7.7.8"),
    1011: ("7.4.1", "7.7.9"),
    1012: ("11.7", ""),
    1013: ("11.7", ""),
    1014: ("11.7", ""),
    3000: ("7.4.2", "7.7.10"),
    3999: ("7.4.2", "7.7.11"),
    4000: ("7.4.2", "7.7.12"),
    4999: ("7.4.2", "7.7.13"),
}
_INVALID: Final = {
    0: ("7.4.2", "7.9.1"),
    999: ("7.4.2", "7.9.2"),
    1004: ("7.4.1", "7.9.3"),
    1005: ("7.4.1", "7.9.4"),
    1006: ("7.4.1", "7.9.5"),
    1015: ("7.4.1", ""),
    1016: ("7.4.2", "7.9.6"),
    1100: ("7.4.2", "7.9.7"),
    2000: ("7.4.2", "7.9.8"),
    2999: ("7.4.2", "7.9.9"),
    5000: ("7.4.2", "7.13.1"),
    65535: ("7.4.2", "7.13.2"),
}
"""The clause and the Autobahn case of each code."""

_REASON: Final = "RFC 6455 5.5.1"
_NOT_UTF8: Final = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"
_MUCH: Final = frame(BINARY, bytes(65536)) * 4
"""More than a peer reads at once that is about to close."""


def _ignored(name: str, after: bytes, autobahn: str) -> Check:
    """What comes after a Close is ignored, in the same segment too."""

    async def steps(trial: Trial) -> Judgement:
        client = await trial.open()
        await client.send(close(1000) + after)
        judgement = judge.closed(came := await client.come(), 1000)
        if judgement.verdict is Verdict.FAIL:
            return judgement
        return judge.silent(await client.come(), judge.tell(came))

    return Check(f"closing.{name}", "RFC 6455 5.5.1", autobahn, "Close 1000, nothing more", steps)


async def _tcp(trial: Trial) -> Judgement:
    client = await trial.open()
    await client.send(close(1000))
    judgement = judge.closed(came := await client.come(), 1000)
    if judgement.verdict is Verdict.FAIL:
        return judgement
    rest = await client.come()
    return judge.torn_down(None if rest.frames else rest.ending, judge.tell(came))


async def _tcp_after_failure(trial: Trial) -> Judgement:
    client = await trial.open()
    await client.send(close(0))
    came = await client.come()
    judgement = judge.failed(came, (1002,))
    if judgement.verdict is Verdict.FAIL or came.ending:
        return judgement
    # What the peer waits for, if it waits, is our Close, which is code 0 and was not one.
    rest = await client.come()
    return judge.torn_down(None if rest.frames else rest.ending, judge.tell(came))


async def _no_reset(trial: Trial) -> Judgement:
    """Closed with bytes unread, a socket is reset, and the Close under way may be lost."""
    client = await trial.open()
    await client.send(frame(3) + _MUCH)
    came = await client.come()
    judgement = judge.failed(came, (1002,))
    if judgement.verdict is not Verdict.PASS:
        return judgement
    return judge.torn_down((await client.come()).ending, judge.tell(Came(came.frames)))


CHECKS: Final = (
    closes("closing.no-body", "RFC 6455 5.5.1", None, "7.3.1"),
    *(
        closes(f"closing.code-{code}", f"RFC 6455 {clause}", code, case)
        for code, (clause, case) in _VALID.items()
    ),
    *(
        fails(f"closing.code-{code}", f"RFC 6455 {clause}", [close(code)], case)
        for code, (clause, case) in _INVALID.items()
    ),
    fails("closing.one-byte", _REASON, [frame(CLOSE, b"\x03")], "7.3.2"),
    closes("closing.reason", _REASON, 1000, "7.3.4", reason=b"Hello World!"),
    closes("closing.reason-123-bytes", _REASON, 1000, "7.3.5", reason=b"*" * 123),
    closes("closing.reason-utf8", _REASON, 1000, reason="κόσμε".encode()),
    fails("closing.reason-124-bytes", "RFC 6455 5.5", [close(1000, b"*" * 124)], "7.3.6"),
    fails(
        "closing.reason-not-utf8", _REASON, [close(1000, _NOT_UTF8)], "7.5.1", codes=(1007, 1002)
    ),
    fails("closing.reason-cut", _REASON, [close(1000, b"cut \xe2\x82")], codes=(1007, 1002)),
    _ignored("twice", close(1001), "7.1.2"),
    _ignored("ping-after", frame(PING, b"after"), "7.1.3"),
    _ignored("text-after", frame(TEXT, b"after"), "7.1.4"),
    Check("closing.tcp", "RFC 6455 7.1.1", "", "Close 1000, then TCP closed", _tcp),
    Check(
        "closing.tcp-after-failure",
        "RFC 6455 7.1.7",
        "",
        "Close 1002, then TCP closed",
        _tcp_after_failure,
    ),
    Check(
        "closing.no-reset",
        "RFC 6455 7.1.1",
        "",
        "Close 1002, then TCP closed, not reset",
        _no_reset,
    ),
)
