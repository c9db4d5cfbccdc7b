"""permessage-deflate: what is agreed on, and messages (RFC 7692).

A peer that declines it need not have it: those checks are skipped.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from echo_service.check import judge
from echo_service.check.agreement import EXTENSION, Deflate, agree, parameters, wrong
from echo_service.check.client import NotOpenedError
from echo_service.check.judge import Item, Judgement, Verdict
from echo_service.check.row import Check
from echo_service.check.wire import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
    octets,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from echo_service.check.client import Trial

    Build = Callable[["Deflate"], Sequence[bytes]]


def _echoes(
    name: str,
    clause: str,
    build: Build,
    back: Sequence[Item],
    autobahn: str = "",
    *,
    offer: str = EXTENSION,
) -> Check:
    """What is built for the agreement is valid, and this comes back."""

    async def steps(trial: Trial) -> Judgement:
        client, deflate, agreed = await agree(trial, offer)
        client.owed += sum(len(item.payload) for item in back)  # it may come back as it was
        await client.send(*build(deflate))
        came = deflate.read(await client.come(len(back)))
        judgement = judge.echoed(came, back)
        if judgement.verdict is not Verdict.FAIL:
            await client.leave()
        return judgement._replace(observed=f"{agreed}: {judgement.observed}")

    words = ", ".join(map(judge.tell_item, back))
    expected = words if offer == EXTENSION else f"{offer} accepted or declined; {words}"
    return Check(f"deflate.{name}", f"RFC 7692 {clause}", autobahn, expected, steps)


def _fails(name: str, clause: str, build: Build, codes: Collection[int] = (1002,)) -> Check:
    """What is built for the agreement is a violation."""

    async def steps(trial: Trial) -> Judgement:
        client, deflate, _ = await agree(trial)
        await client.send(*build(deflate))
        return judge.failed(deflate.read(await client.come(1)), codes)

    words = f"Close {' or '.join(map(str, codes))}"
    return Check(f"deflate.{name}", clause, "", words, steps)


def _declines(name: str, offered: str, clause: str = "7.1") -> Check:
    """An offer that has to be declined, by a peer that accepts a plain one."""

    async def steps(trial: Trial) -> Judgement:
        plain, _, _ = await agree(trial)
        await plain.leave()
        try:
            client, answer = await trial.negotiate(
                ("Sec-WebSocket-Extensions", f"{EXTENSION}; {offered}")
            )
        except NotOpenedError as error:
            why = "RFC 7692 7.1: the offer is declined, the handshake need not be"
            return Judgement(Verdict.NON_STRICT, str(error), why)
        await client.leave()
        if accepted := answer.all("sec-websocket-extensions"):
            return Judgement(Verdict.FAIL, ", ".join(accepted), f"RFC 7692 {clause}: MUST decline")
        return Judgement(Verdict.PASS, "101, declined")

    expected = f"{offered} declined, 101"
    return Check(f"deflate.declines-{name}", f"RFC 7692 {clause}", "", expected, steps)


async def _fallback(trial: Trial) -> Judgement:
    """The second of two offers is one that can be accepted."""
    plain, _, _ = await agree(trial)
    await plain.leave()
    offers = f"{EXTENSION}; unknown_parameter, {EXTENSION}"
    client, answer = await trial.negotiate(("Sec-WebSocket-Extensions", offers))
    await client.leave()
    accepted = ", ".join(answer.all("sec-websocket-extensions"))
    if not accepted:
        why = "RFC 7692 5: the next offer could have been accepted, but need not be"
        return Judgement(Verdict.NON_STRICT, "declined", why)
    agreed, unknown = parameters(accepted)
    if found := unknown or wrong({}, agreed):
        return Judgement(Verdict.FAIL, accepted, found)
    return Judgement(Verdict.PASS, accepted)


def _fragments(deflate: Deflate, between: bytes = b"") -> list[bytes]:
    """A message in two fragments: only the first has RSV1 (6.1)."""
    data = deflate.deflate(b"Hello, Hello")
    first = frame(TEXT, data[:4], fin=False, rsv=4)
    return [first + between + frame(CONTINUATION, data[4:])]


def _final(_: Deflate) -> list[bytes]:
    """A message that ends with a final block, and one after it (7.2.3.4)."""
    final = zlib.compressobj(wbits=-15)
    data = final.compress(b"Hello") + final.flush() + b"\x00"
    return [frame(TEXT, data, rsv=4) + frame(TEXT, _fresh(b"Hello"), rsv=4)]


def _fresh(payload: bytes) -> bytes:
    """Deflated without regard to what was before."""
    return Deflate({}).deflate(payload)


def _stored(_: Deflate) -> list[bytes]:
    """A block without compression (7.2.3.3)."""
    return [frame(TEXT, b"\x00\x05\x00\xfa\xffHello\x00", rsv=4)]


def _blocks(_: Deflate) -> list[bytes]:
    """A message in two blocks (7.2.3.5)."""
    return [frame(TEXT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", rsv=4)]


_HELLO: Final = Item(TEXT, b"Hello")
_LONG: Final = b"".join(b"%d " % (number * number) for number in range(4000)) * 2
"""Over 64 KiB, the second half like the first: it deflates well only with a large window."""

CHECKS: Final = (
    _echoes("message", "7.2.1", lambda it: [it.message(b"Hello")], [_HELLO], "13.1.1"),
    _echoes("empty", "7.2.3.6", lambda it: [it.message(b"")], [Item(TEXT, b"")]),
    _echoes(
        "binary",
        "7.2.1",
        lambda it: [it.message(b"\xfe\xff" * 99, BINARY)],
        [Item(BINARY, b"\xfe\xff" * 99)],
    ),
    _echoes("octets", "7.2.1", lambda it: octets(it.message(b"Hello")), [_HELLO]),
    _echoes("long", "7.2.1", lambda it: [it.message(_LONG)], [Item(TEXT, _LONG)], "13.1.9"),
    _echoes("not-compressed", "6", lambda _: [frame(*_HELLO)], [_HELLO]),
    _echoes("fragments", "6.1", _fragments, [Item(TEXT, b"Hello, Hello")]),
    _echoes(
        "ping-between-fragments",
        "6.1",
        lambda it: _fragments(it, frame(PING, b"between")),
        [Item(PONG, b"between"), Item(TEXT, b"Hello, Hello")],
    ),
    _echoes(
        "context-takeover",
        "7.2.3.2",
        lambda it: [it.message(b"Hello"), it.message(b"Hello")],
        [_HELLO, _HELLO],
    ),
    _echoes("stored-block", "7.2.3.3", _stored, [_HELLO]),
    _echoes("final-block", "7.2.3.4", _final, [_HELLO, _HELLO]),
    _echoes("two-blocks", "7.2.3.5", _blocks, [_HELLO]),
    _echoes(
        "server-no-context-takeover",
        "7.1.1.1",
        lambda it: [it.message(b"Hello"), it.message(b"Hello")],
        [_HELLO, _HELLO],
        "13.2.1",
        offer=f"{EXTENSION}; server_no_context_takeover",
    ),
    _echoes(
        "client-no-context-takeover",
        "7.1.1.2",
        lambda it: [it.message(b"Hello"), it.message(b"Hello")],
        [_HELLO, _HELLO],
        offer=f"{EXTENSION}; client_no_context_takeover",
    ),
    _echoes(
        "server-window-9",
        "7.1.2.1",
        lambda it: [it.message(_LONG)],
        [Item(TEXT, _LONG)],
        "13.3.9",
        offer=f"{EXTENSION}; server_max_window_bits=9",
    ),
    _echoes(
        "server-window-15",
        "7.1.2.1",
        lambda it: [it.message(_LONG)],
        [Item(TEXT, _LONG)],
        "13.4.9",
        offer=f"{EXTENSION}; server_max_window_bits=15",
    ),
    _echoes(
        "client-window",
        "7.1.2.2",
        lambda it: [it.message(b"Hello")],
        [_HELLO],
        offer=f"{EXTENSION}; client_max_window_bits",
    ),
    _echoes(
        "client-window-10",
        "7.1.2.2",
        lambda it: [it.message(b"Hello")],
        [_HELLO],
        offer=f"{EXTENSION}; client_max_window_bits=10",
    ),
    _declines("unknown", "unknown_parameter"),
    _declines("doubled", "server_no_context_takeover; server_no_context_takeover"),
    _declines("value-where-none-belongs", "server_no_context_takeover=1", "7.1.1.1"),
    _declines("window-7", "server_max_window_bits=7", "7.1.2.1"),
    _declines("window-16", "server_max_window_bits=16", "7.1.2.1"),
    _declines("window-leading-zero", "server_max_window_bits=09", "7.1.2.1"),
    _declines("window-without-value", "server_max_window_bits", "7.1.2.1"),
    Check("deflate.next-offer", "RFC 7692 5", "", "the second offer accepted", _fallback),
    _fails(
        "rsv1-continuation",
        "RFC 7692 6.1",
        lambda it: [
            frame(TEXT, it.deflate(b"Hello"), fin=False, rsv=4) + frame(CONTINUATION, rsv=4)
        ],
    ),
    _fails("rsv1-ping", "RFC 7692 6.1", lambda _: [frame(PING, b"Hello", rsv=4)]),
    _fails("rsv2", "RFC 6455 5.2", lambda it: [frame(TEXT, it.deflate(b"Hello"), rsv=6)]),
    _fails(
        "not-deflate",
        "RFC 7692 7.2.2",
        lambda _: [frame(BINARY, b"\xff" * 16, rsv=4)],
        (1007, 1002),
    ),
    _fails("not-utf8", "RFC 6455 8.1", lambda it: [it.message(b"Hello\xff")], (1007,)),
)
