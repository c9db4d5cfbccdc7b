"""Text is UTF-8, and what is not fails as soon as it is seen (RFC 6455 8.1, RFC 3629)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from echo_service.check import judge
from echo_service.check.judge import Item, Judgement, Verdict
from echo_service.check.row import Check, echoes, fails
from echo_service.check.wire import (
    BINARY,
    CONTINUATION,
    KEY,
    PING,
    TEXT,
    frame,
    header,
    mask,
    octets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from echo_service.check.client import Client, Trial

_CLAUSE: Final = "RFC 6455 8.1"
_GREEK: Final = "κόσμε".encode()
_TOO_LARGE: Final = b"\xf4\x90\x80\x80"
"""U+110000, were there one: wrong from its second byte on."""

_VALID: Final = {
    "two-bytes": (b"hello\xc2\xa2world", "6.5.2"),
    "three-bytes": (b"hello\xe2\x82\xacworld", "6.5.3"),
    "four-bytes": (b"hello\xf0\xa4\xad\xa2world", "6.5.4"),
    "nul": (b"\x00", "6.7.1"),
    "before-surrogates": (b"\xed\x9f\xbf", "6.11.1"),
    "after-surrogates": (b"\xee\x80\x80", "6.11.2"),
    "byte-order-mark": (b"\xef\xbb\xbfhello", ""),
    "replacement": (b"\xef\xbf\xbd", "6.11.3"),
    "noncharacter": (b"\xef\xbf\xbe", "6.22.1"),
    "last-codepoint": (b"\xf4\x8f\xbf\xbf", "6.11.4"),
}
_INVALID: Final = {
    "inside-text": (_GREEK + b"\xed\xa0\x80edited", "6.3.1"),
    "continuation": (b"\x80", "6.12.1"),
    "cut-two-bytes": (b"\xdf", "6.14.6"),
    "cut-three-bytes": (b"\xef\xbf", "6.14.7"),
    "cut-four-bytes": (b"\xf0\xa4\xad", ""),
    "overlong-two-bytes": (b"\xc0\xaf", "6.17.1"),
    "overlong-three-bytes": (b"\xe0\x80\xaf", "6.17.2"),
    "overlong-four-bytes": (b"\xf0\x80\x80\xaf", "6.17.3"),
    "overlong-nul": (b"\xc0\x80", "6.19.1"),
    "surrogate": (b"\xed\xa0\x80", "6.20.1"),
    "surrogate-pair": (b"\xed\xa0\x80\xed\xb0\x80", "6.21.1"),
    "over-last-codepoint": (_TOO_LARGE, "6.11.5"),
    "five-bytes": (b"\xf8\x88\x80\x80\x80", "6.8.1"),
    "fe": (b"\xfe", "6.16.1"),
    "ff": (b"\xff", "6.16.2"),
}


def _split(payload: bytes) -> Iterator[bytes]:
    """A text in fragments of one byte."""
    yield frame(TEXT, fin=False)
    for octet in octets(payload):
        yield frame(CONTINUATION, octet, fin=False)
    yield frame(CONTINUATION)


async def _at_fragment(trial: Trial) -> Judgement:
    """A ping after the wrong fragment tells, by its pong, that the peer went on."""
    client = await trial.open()
    await client.send(
        frame(TEXT, _GREEK, fin=False),
        frame(CONTINUATION, _TOO_LARGE[:2], fin=False) + frame(PING, b"still there"),
    )
    came = await client.come(1)
    if judge.items(came.frames):
        return await _late(client, frame(CONTINUATION, _TOO_LARGE[2:] + b"edited"))
    return judge.failed(came, (1007,))


async def _at_octet(trial: Trial) -> Judgement:
    """Nothing but waiting can tell here: half of the time is for the wrong byte."""
    client = await trial.open()
    payload = _GREEK + _TOO_LARGE + b"edited"
    masked = header(TEXT, len(payload)) + KEY + mask(payload, KEY)
    seen = len(masked) - 8
    await client.send(masked[:seen])
    if not await client.hears(trial.patience / 2):
        return await _late(client, masked[seen:])
    return judge.failed(await client.come(1), (1007,))


async def _late(client: Client, rest: bytes) -> Judgement:
    """Of a peer that did not mind the wrong byte: it has to at the end of the message."""
    await client.send(rest)
    judgement = judge.failed(await client.come(1), (1007,))
    if judgement.verdict is not Verdict.PASS:
        return judgement
    why = "RFC 6455 8.1 does not say when; it was not at the first wrong byte, but at the end"
    return Judgement(Verdict.NON_STRICT, judgement.observed, why)


CHECKS: Final = (
    *(
        echoes(f"utf8.{name}", _CLAUSE, [frame(TEXT, payload)], [Item(TEXT, payload)], case)
        for name, (payload, case) in _VALID.items()
    ),
    echoes("utf8.fragments", _CLAUSE, list(_split(_GREEK)), [Item(TEXT, _GREEK)], "6.2.3"),
    echoes(
        "utf8.binary-is-not-judged",
        "RFC 6455 5.6",
        [frame(BINARY, b"\xc0\x80\xff")],
        [Item(BINARY, b"\xc0\x80\xff")],
    ),
    *(
        fails(f"utf8.invalid-{name}", _CLAUSE, [frame(TEXT, payload)], case, codes=(1007,))
        for name, (payload, case) in _INVALID.items()
    ),
    fails(
        "utf8.invalid-fragments",
        _CLAUSE,
        [b"".join(_split(_INVALID["inside-text"][0]))],
        "6.3.2",
        codes=(1007,),
    ),
    fails(
        "utf8.cut-at-the-end",
        _CLAUSE,
        [frame(TEXT, b"hello\xe2", fin=False) + frame(CONTINUATION, b"\x82")],
        codes=(1007,),
    ),
    Check("utf8.at-the-fragment", _CLAUSE, "6.4.2", "Close 1007, before the end", _at_fragment),
    Check("utf8.at-the-octet", _CLAUSE, "6.4.4", "Close 1007, before the end", _at_octet),
)
