"""The gentle forms of the known attacks: a few MiB, a few seconds, and a peer that lives on.

They are sent only where ``--stress`` is said.  Whatever the peer answers to one, its other
connections go on and it takes new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from echo_service.check import judge
from echo_service.check.agreement import agree
from echo_service.check.client import in_words
from echo_service.check.judge import Item, Judgement, Verdict
from echo_service.check.row import lives, survives
from echo_service.check.wire import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
    header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from echo_service.check.client import Trial
    from echo_service.check.row import Steps
    from echo_service.check.wire import Came

_MIB: Final = 1024 * 1024
_LIMITS: Final = {1008, 1009}
_UNREAD: Final = 1.0
"""Seconds that nothing is read, at most."""

_HELLO: Final = Item(TEXT, b"Hello")


def _within_limits(came: Came, back: Sequence[Item]) -> Judgement:
    """Of what is valid, and may be over a limit of the peer's (RFC 6455 10.4)."""
    judgement = judge.echoed(came, back)
    at_limit = not came.ending and came.frames and judge.code(came.frames[-1]) in _LIMITS
    if judgement.verdict is Verdict.FAIL and at_limit and not judge.fault(came.frames):
        return Judgement(Verdict.PASS, judgement.observed)
    return judgement


def _large(opcode: int, size: int) -> Steps:
    payload = b"*" * size

    async def attack(trial: Trial) -> Judgement:
        client = await trial.open()
        await client.send(frame(opcode, payload))
        return _within_limits(await client.come(1), [Item(opcode, payload)])

    return attack


async def _announced(trial: Trial) -> Judgement:
    client = await trial.open()
    await client.send(header(BINARY, 1 << 62) + bytes(4))
    if not await client.hears(trial.patience / 2):
        why = "RFC 6455 10.4 lets a limit be chosen; it waits for what can't come"
        return Judgement(Verdict.NON_STRICT, "nothing in half of the time", why)
    return judge.failed(await client.come(), (1009, 1002))


async def _fragments(trial: Trial) -> Judgement:
    client = await trial.open()
    middle = frame(CONTINUATION, b"*", fin=False) * 9998
    await client.send(frame(TEXT, b"*", fin=False) + middle + frame(CONTINUATION, b"*"))
    return _within_limits(await client.come(1), [Item(TEXT, b"*" * 10000)])


async def _empty_fragments(trial: Trial) -> Judgement:
    client = await trial.open()
    await client.send(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 10000)
    await client.send(frame(PING, b"still there"))
    return _within_limits(await client.come(1), [Item(PONG, b"still there")])


async def _pings(trial: Trial) -> Judgement:
    client = await trial.open()
    payloads = [b"%d" % number for number in range(10000)]
    pings = b"".join(frame(PING, payload) for payload in payloads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, pings + frame(*_HELLO))
        came = await client.come(10001)
        nursery.cancel_scope.cancel()
    return judge.echoed(came, [*(Item(PONG, payload) for payload in payloads), _HELLO])


async def _slow_reader(trial: Trial) -> Judgement:
    """Nothing is read until nothing more can be sent, or all is."""
    client = await trial.open()
    item = Item(BINARY, bytes(65536))
    async with trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await client.send(*[frame(*item)] * 64)
            sent.set()

        nursery.start_soon(send)
        with trio.move_on_after(_UNREAD):
            await sent.wait()
        came = await client.come(64)
        nursery.cancel_scope.cancel()
    return judge.echoed(came, [item] * 64)


def _bomb(cut: Callable[[bytes], Sequence[bytes]]) -> Steps:
    """4 MiB of zeros, deflated to 4 KiB."""
    payload = bytes(4 * _MIB)

    async def attack(trial: Trial) -> Judgement:
        client, deflate, _ = await agree(trial)
        client.owed += len(payload)  # it may come back as it was
        await client.send(b"".join(cut(deflate.deflate(payload))))
        return _within_limits(deflate.read(await client.come(1)), [Item(BINARY, payload)])

    return attack


def _in_one(data: bytes) -> Sequence[bytes]:
    return [frame(BINARY, data, rsv=4)]


def _in_octets(data: bytes) -> Sequence[bytes]:
    first = frame(BINARY, data[:1], fin=False, rsv=4)
    middle = (frame(CONTINUATION, data[i : i + 1], fin=False) for i in range(1, len(data)))
    return [first, *middle, frame(CONTINUATION)]


def _answers(*requests: Callable[[Trial], bytes]) -> Steps:
    """Each of these, on a connection of its own, is answered or at least ended."""

    async def attack(trial: Trial) -> Judgement:
        told = []
        for request in requests:
            client = await trial.connect()
            await client.send(request(trial))
            answer = await client.answer()
            told.append(in_words(answer, client.ending))
            if client.ending and not client.ending.is_of_tcp:
                return Judgement(Verdict.FAIL, told[-1], "it is neither answered nor ended")
        return Judgement(Verdict.PASS, ", ".join(dict.fromkeys(told)))

    return attack


def _with(name: str, value: str) -> Callable[[Trial], bytes]:
    """An opening handshake with one header changed or added."""
    return lambda trial: trial.ask(**{name.replace("-", "_"): value})[0]


async def _slow_handshake(trial: Trial) -> Judgement:
    """Half of a request, while others are served, and then the rest."""
    client = await trial.connect()
    request, _ = trial.ask()
    await client.send(request[:40])
    if not await lives(await trial.open()):
        return Judgement(Verdict.FAIL, "half of a request", "no other is served meanwhile")
    await client.send(request[40:])
    answer = await client.answer()
    observed = in_words(answer, client.ending)
    if client.ending and not client.ending.is_of_tcp:
        return Judgement(Verdict.FAIL, observed, "it is neither answered nor ended")
    return Judgement(Verdict.PASS, observed)


async def _silent(trial: Trial) -> Judgement:
    for _ in range(50):
        await trial.connect()
    return Judgement(Verdict.PASS, "50 connections without a byte")


async def _vanishing(trial: Trial) -> Judgement:
    """Connections that end in each phase, without a Close."""
    for sent in (b"", b"GET / HT"):
        client = await trial.connect()
        await client.send(sent)
        await client.aclose()
    for sent in (b"", b"\x81", frame(TEXT, b"Hello", fin=False), header(BINARY, _MIB) + bytes(99)):
        client = await trial.open()
        await client.send(sent)
        await client.aclose()
    return Judgement(Verdict.PASS, "6 connections that ended without a Close")


_ODD: Final = ("\xff", "\x80", "\x0b", "\x00", "\x7f", "é")
_HEADERS: Final = (
    *("Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Origin"),
    *("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"),
)
_OFFERS: Final = (
    *("client_max_window_bits=abc", 'client_max_window_bits="10"', "client_max_window_bits=-1"),
    *("server_max_window_bits=99999999999", '"', "=", ";" * 2000, "," * 2000, " " * 2000 + "a"),
)
_CLIENT_HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(range(200)) + b"\r\n\r\n"
"""The beginning of TLS, which a plain port can get, and the end of a head that it may wait for."""

CHECKS: Final = (
    survives(
        "stress.text-1-mib", "RFC 6455 10.4", "the echo, or Close 1009", _large(TEXT, _MIB), "9.1.3"
    ),
    survives(
        "stress.binary-4-mib",
        "RFC 6455 10.4",
        "the echo, or Close 1009",
        _large(BINARY, 4 * _MIB),
        "9.2.4",
    ),
    survives("stress.announced-2-to-62", "RFC 6455 10.4", "Close 1009 or 1002", _announced),
    survives(
        "stress.fragments-10000", "RFC 6455 10.4", "the echo, or Close 1008 or 1009", _fragments
    ),
    survives(
        "stress.fragments-empty", "RFC 6455 10.4", "a pong, or Close 1008 or 1009", _empty_fragments
    ),
    survives("stress.pings-10000", "RFC 6455 5.5.3", "pongs, and an echo", _pings),
    survives(
        "stress.slow-reader", "RFC 6455 10.4", "64 messages of 64 KiB, read late", _slow_reader
    ),
    survives("stress.bomb", "RFC 7692 8", "the echo of 4 MiB, or Close 1009", _bomb(_in_one)),
    survives(
        "stress.bomb-octets", "RFC 7692 8", "the echo of 4 MiB, or Close 1009", _bomb(_in_octets)
    ),
    survives(
        "stress.header-bytes",
        "RFC 9110 5.5",
        "an answer, or an end",
        _answers(*(_with(name, f"a{odd}b") for name in _HEADERS for odd in _ODD)),
    ),
    survives(
        "stress.offers",
        "RFC 7692 7.1",
        "an answer, or an end",
        _answers(
            *(_with("Sec-WebSocket-Extensions", f"permessage-deflate; {it}") for it in _OFFERS)
        ),
    ),
    survives(
        "stress.header-32-kib",
        "RFC 6585 5",
        "an answer, or an end",
        _answers(_with("X-Echo-Service-Check", "a" * 32768)),
    ),
    survives(
        "stress.not-http", "RFC 9112 2.2", "an answer, or an end", _answers(lambda _: _CLIENT_HELLO)
    ),
    survives("stress.slow-handshake", "RFC 6455 4.2.1", "101, or an end", _slow_handshake),
    survives("stress.silent-connections", "RFC 6455 10.4", "nothing", _silent),
    survives("stress.vanishing-connections", "RFC 6455 7.1.5", "nothing", _vanishing),
)
