"""One stream from accept to aclose, in memory and mostly by the virtual clock."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from echo_service import (
    Config,
    Ending,
    Outcome,
    connection,
    endpoints,
    intake,
    serve_stream,
    upgrade,
)
from echo_service.connection import Connection
from echo_service.registry import Registry
from echo_service.request import RequestReader
from echo_service.session import Session
from echo_service.transport import StreamTransport
from tests import wire
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Line, Served

pytestmark = pytest.mark.usefixtures("in_time")

UNMASKED = b"\x81\x05hello"
BIG = bytes(range(256)) * 1000
"""More than the service sends at once."""


class Whole(trio.abc.Stream):
    """A stream that can be closed as a whole only."""

    def __init__(self, below: trio.StapledStream) -> None:
        self._below = below

    async def send_all(self, data: bytes) -> None:
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._below.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._below.aclose()


class Faulty(Whole):
    """A stream that breaks within a text frame, in a way that no stream should."""

    async def send_all(self, data: bytes) -> None:
        if data[0] == 0x81:
            await super().send_all(data[:3])
            broken()
        await super().send_all(data)


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("ours")


def close_of(code: int) -> Callable[[Frame], bool]:
    return lambda got: got.opcode == CLOSE and got.payload[:2] == code.to_bytes(2, "big")


async def closed_with(client: wire.Client, code: int) -> None:
    """The server's Close comes with this code, and its end of stream right after it."""
    assert close_of(code)(await client.frame())
    assert await client.rest() == b""


# The opening handshake


async def test_handshake_and_first_frame_may_be_cut_anywhere(serving):
    for pieces in wire.cuts(wire.request() + frame(TEXT, b"tail")):
        client = serving()
        await client.send(*pieces)
        head = await client.opened()
        assert f"\r\nSec-WebSocket-Accept: {wire.ACCEPT}\r\n" in head
        assert await client.frame() == Frame(TEXT, b"tail")


@pytest.mark.parametrize(
    "sent, status", [(b"", 0), (b"G", 408), (wire.request()[:-1], 408)], ids=repr
)
async def test_handshake_timeout(serving, autojump_clock, logged, sent: bytes, status: int):
    """A client without a word is left without a word, any other hears why."""
    client: Served = serving(handshake_timeout=3)
    begun = trio.current_time()
    if sent:
        await client.send(sent)
    answer = await client.rest()
    assert trio.current_time() - begun == 3
    assert wire.status(answer) == status
    await client.stream.aclose()
    refused = Outcome(Ending.REFUSED, status)
    assert await client.ends() == (refused if status else Outcome(Ending.VANISHED))
    assert [line.event for line in logged()] == ["handshake.refused"] * bool(status)


async def test_handshake_timeout_is_for_all_of_it_however_it_drips(serving, autojump_clock):
    client = serving()
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in wire.request():
                await client.send(bytes([byte]))
                await trio.sleep(1)

        nursery.start_soon(drip)
        answer = await client.rest()
        assert trio.current_time() - begun == 10
        assert wire.status(answer) == 408
        nursery.cancel_scope.cancel()


async def test_handshake_cut_off_is_no_connection(serving, logged):
    client: Served = serving()
    await client.send(wire.request()[:50])
    await client.stream.send_eof()
    assert await client.rest() == b""
    assert await client.ends() == Outcome(Ending.VANISHED)
    assert logged() == []


async def test_request_that_is_no_handshake_is_answered(serving, logged):
    client: Served = serving()
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: echo.example\r\n\r\n")
    answer = await client.rest()
    assert wire.status(answer) == 200
    assert answer.endswith(b"\r\n\r\nok\n")
    assert b"\r\nDate: " in answer
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.ANSWERED, 200)
    assert logged() == []


async def test_connections_beyond_the_cap_get_503(serving, logged):
    registry = Registry(1)
    first = serving(registry=registry)
    await first.open()
    second: Served = serving(registry=registry)
    await second.send(wire.request())
    answer = await second.rest()
    assert wire.status(answer) == 503
    assert b"\r\nRetry-After: 5\r\n" in answer
    await first.echo()
    assert logged()[-1].fields["status"] == 503

    await first.send(wire.close(1000))
    await first.rest()
    await first.stream.aclose()
    await first.ends()
    third = serving(registry=registry)
    await third.open()


# Signs of life


async def test_silent_peer_is_pinged_then_closed(serving, autojump_clock):
    client: Served = serving(ping_interval=7, ping_timeout=3)
    await client.open()
    begun = trio.current_time()
    assert await client.frame() == Frame(PING, b"")
    assert trio.current_time() - begun == 7
    await closed_with(client, 1011)
    assert trio.current_time() - begun == 10
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.IDLE, 101, 1006, 1011)


@pytest.mark.parametrize("stuck, end", [(0, 22), (5, 19)], ids=["takes all", "stops taking"])
async def test_a_ping_behind_an_echo_that_is_being_taken_is_waited_for(
    serving, autojump_clock, monkeypatch, stuck: int, end: int
):
    """The kernel tells that it is, here a byte a second for 20 s: the peer can't have seen it."""
    client = serving(ping_interval=7, ping_timeout=3)
    await client.open()
    begun = trio.current_time()
    held = property(lambda _: max(stuck, 20 - (trio.current_time() - begun)))
    monkeypatch.setattr(StreamTransport, "untaken", held)
    assert await client.frame() == Frame(PING, b"")
    assert trio.current_time() - begun == 7
    await closed_with(client, 1011)
    assert trio.current_time() - begun == end


@pytest.mark.parametrize(
    "signs", [[frame(PONG), frame(PONG)], [b"\x81", b"\x87"]], ids=["pongs", "bytes of a frame"]
)
async def test_any_byte_is_a_sign_of_life(serving, autojump_clock, signs: list[bytes]):
    """Each puts off the ping by the interval; the one after the ping, the end too."""
    client = serving(ping_interval=20, ping_timeout=10)
    await client.open()
    begun = trio.current_time()
    seen = []
    for sign in signs:
        await trio.sleep(9)
        await client.send(sign)
        assert (await client.frame()).opcode == PING
        seen.append(trio.current_time() - begun)
    assert seen == [9 + 20, 9 + 20 + 9 + 20]
    await closed_with(client, 1011)


@pytest.mark.parametrize("delay", [0.1, 3, 9, 19])
async def test_a_ping_that_is_answered_is_followed_by_one_after_the_interval(
    serving, autojump_clock, delay: float
):
    """However much longer the timeout is: a proxy may cut what is silent for longer."""
    client = serving(ping_interval=5, ping_timeout=20)
    await client.open()
    for _ in range(4):
        begun = trio.current_time()
        assert await client.frame() == Frame(PING, b"")
        assert trio.current_time() - begun == pytest.approx(5)
        await trio.sleep(delay)
        await client.send(frame(PONG))
    begun = trio.current_time()
    assert await client.frame() == Frame(PING, b"")
    await closed_with(client, 1011)
    assert trio.current_time() - begun == pytest.approx(5 + 20)


@pytest.mark.parametrize(
    "options, pings",
    [
        ({"ping_interval": 0}, []),
        ({"ping_interval": 0, "ping_timeout": 0}, []),
        ({"ping_timeout": 0}, [20, 40, 60, 80]),
    ],
    ids=["no pings", "neither", "no end"],
)
async def test_zero_switches_off(serving, autojump_clock, options: dict, pings: list[int]):
    client = serving(**options)
    await client.open()
    begun = trio.current_time()
    seen = []
    with trio.move_on_after(99):
        while await client.frame() == Frame(PING, b""):
            seen.append(trio.current_time() - begun)
    assert seen == pings
    await client.echo()


# Back-pressure


async def test_peer_that_does_not_read_stops_being_read(serving, nursery):
    """Nothing is buffered beyond what was read at once, and nothing is lost."""
    client = serving(lockstep_stream_pair)
    messages = [frame(BINARY, number.to_bytes(4, "big") * 256) for number in range(100)]
    taken = 0

    async def send() -> None:
        nonlocal taken
        for message in messages:
            await client.send(message)
            taken += len(message)

    nursery.start_soon(client.send, wire.request())
    await client.opened()
    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert taken <= 16384
    for number in range(100):
        assert await client.frame() == Frame(BINARY, number.to_bytes(4, "big") * 256)


async def test_peer_that_stalls_is_dropped_without_another_byte(serving, autojump_clock):
    client: Served = serving(lockstep_stream_pair, stall_timeout=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request())
        await client.opened()
    begun = trio.current_time()
    await client.send(frame(BINARY, BIG))
    assert await client.ends() == Outcome(Ending.STALLED, 101, 1006)
    assert trio.current_time() - begun == 4
    echo = b"\x82\x7f" + len(BIG).to_bytes(8, "big") + BIG
    got = await client.rest()
    assert len(got) < len(echo)
    assert echo.startswith(got)


async def test_peer_that_stalls_in_the_101_is_dropped(serving, autojump_clock):
    client: Served = serving(lockstep_stream_pair)
    begun = trio.current_time()
    await client.send(wire.request())
    assert await client.ends() == Outcome(Ending.STALLED, 101, 1006)
    assert trio.current_time() - begun == 30


async def test_peer_that_stalls_before_our_close_was_not_sent_it(serving, autojump_clock):
    client: Served = serving(lockstep_stream_pair)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request())
        await client.opened()
    await client.send(frame(TEXT, b"hello") + wire.close(1000))
    ended = await client.ends()
    assert (ended.ending, ended.sent_code, ended.texts) == (Ending.STALLED, None, 0)


async def test_slow_peer_gets_all_of_it(serving, autojump_clock):
    """The stall timeout is for the next bytes to go, and not for the whole echo."""
    client = serving(lockstep_stream_pair, stall_timeout=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request())
        await client.opened()
    await client.send(frame(BINARY, BIG))
    begun = trio.current_time()
    got = b""
    while len(got) < 10 + len(BIG):
        await trio.sleep(3.9)
        got += await client.stream.receive_some(65536)
    assert trio.current_time() - begun > 4 * 3
    assert got[10:] == BIG


# The closing handshake


@pytest.mark.parametrize(
    "sent, code", [(wire.close(1000), 1000), (wire.close(3333, b"why"), 3333), (UNMASKED, 1002)]
)
async def test_end_of_stream_follows_our_close_at_once(
    serving, autojump_clock, sent: bytes, code: int
):
    """The peer need not close first; how long it may take is the close timeout."""
    client: Served = serving(close_timeout=3)
    await client.open()
    begun = trio.current_time()
    await client.send(sent)
    await closed_with(client, code)
    assert trio.current_time() == begun
    assert (await client.ends()).sent_code == code
    assert trio.current_time() - begun == 3


async def test_close_without_a_body_is_answered_by_one_without(serving):
    client: Served = serving()
    await client.open()
    await client.send(wire.close())
    assert await client.rest() == b"\x88\x00"
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.PEER_CLOSED, 101, 1005, 1005)


async def test_close_answered_and_stream_closed_ends_it_at_once(serving, autojump_clock):
    client: Served = serving()
    await client.open()
    begun = trio.current_time()
    await client.send(wire.close(1000))
    await client.rest()
    await client.stream.aclose()
    await client.ends()
    assert trio.current_time() == begun


@pytest.mark.parametrize("end", [wire.close(1000), UNMASKED], ids=["closed", "failed"])
async def test_peer_that_goes_on_sending_is_let_go_at_the_close_timeout(
    serving, autojump_clock, end: bytes
):
    client: Served = serving()
    await client.open()
    begun = trio.current_time()
    await client.send(frame(TEXT, b"before"), end)
    assert await client.frame() == Frame(TEXT, b"before")

    async def go_on() -> None:
        while True:
            await client.send(frame(TEXT, b"after"))
            await trio.sleep(0.5)

    with pytest.raises(trio.BrokenResourceError):
        await go_on()
    assert trio.current_time() - begun == pytest.approx(5, abs=0.5)
    assert [each.opcode for each in wire.parse(await client.rest())] == [CLOSE]
    assert (await client.ends()).texts == 1


# How it ends without a closing handshake


@pytest.mark.parametrize("begun", [b"", frame(TEXT, b"half a message")[:9]], ids=["idle", "within"])
async def test_end_of_stream_without_a_close_is_recorded_as_1006(serving, begun: bytes):
    client: Served = serving()
    await client.open()
    await client.send(begun)
    await client.stream.send_eof()
    assert await client.rest() == b""
    assert await client.ends() == Outcome(Ending.VANISHED, 101, 1006)


async def test_peer_gone_while_an_echo_is_due_is_recorded_as_1006(serving):
    client: Served = serving()
    await client.open()
    await client.send(frame(TEXT, b"hello"))
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.VANISHED, 101, 1006)


async def test_peer_gone_while_our_close_is_due_is_no_failure(serving, autojump_clock, logged):
    client: Served = serving(ping_timeout=1)
    await client.open()
    assert (await client.frame()).opcode == PING
    client.stream.receive_stream.close()
    assert await client.ends() == Outcome(Ending.IDLE, 101, 1006)
    assert "connection.failed" not in [line.event for line in logged()]


async def test_peer_is_given_a_moment_more_when_the_process_stood_still(serving, mock_clock):
    """What it has sent in the meantime may still be on its way to us."""
    client: Served = serving(ping_interval=20, ping_timeout=10)
    await client.open()
    await wait_all_tasks_blocked()
    mock_clock.jump(20)
    assert await client.frame() == Frame(PING, b"")
    await wait_all_tasks_blocked()
    mock_clock.jump(3600)
    await wait_all_tasks_blocked()
    assert client.outcome is None
    mock_clock.jump(0.1)
    assert wire.codes(await client.rest()) == [1011]


# Errors of our own


async def test_error_of_our_own_is_closed_with_1011_and_the_others_go_on(
    serving, monkeypatch, logged
):
    receive = Session.receive

    def receive_or_break(session: Session, data: bytes) -> bytearray:
        return broken() if bytes(data) == frame(TEXT, b"break") else receive(session, data)

    monkeypatch.setattr(Session, "receive", receive_or_break)
    other, client = serving(), serving()
    await other.open()
    await client.open()
    await client.send(frame(TEXT, b"break"))
    await closed_with(client, 1011)
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.INTERNAL_ERROR, 101, None, 1011)
    await other.echo()
    failed = [line for line in logged() if line.event == "connection.failed"]
    assert [line.level for line in failed] == ["ERROR"]


@pytest.mark.parametrize(
    "where, what",
    [(upgrade, "accept"), (connection, "switching_protocols"), (endpoints, "answer")],
)
async def test_error_of_our_own_before_the_101_is_answered_with_500(
    serving, monkeypatch, where: object, what: str
):
    monkeypatch.setattr(where, what, broken)
    client: Served = serving()
    plain = b"GET / HTTP/1.1\r\nHost: echo.example\r\n\r\n"
    await client.send(plain if what == "answer" else wire.request())
    assert wire.status(await client.rest()) == 500
    await client.stream.aclose()
    assert (await client.ends()).status == 500


@pytest.mark.parametrize(
    "also_broken", [(Session, "end"), (RequestReader, "answer"), (endpoints, "refusal")]
)
async def test_error_while_an_error_is_answered_does_not_get_out(
    serving, monkeypatch, logged, also_broken: tuple[object, str]
):
    client: Served = serving()
    if also_broken[0] is Session:
        await client.open()
        monkeypatch.setattr(Session, "receive", broken)
    else:
        monkeypatch.setattr(upgrade, "accept", broken)
    monkeypatch.setattr(*also_broken, broken)
    await client.send(wire.request())
    assert await client.rest() == b""
    await client.ends()
    failures = [line for line in logged() if line.event == "connection.failed"]
    assert len(failures) == 2


async def test_peer_gone_while_an_error_is_answered_is_no_second_failure(
    serving, monkeypatch, logged
):
    client: Served = serving()
    await client.open()
    monkeypatch.setattr(Session, "receive", broken)
    await client.send(frame(TEXT, b"hello"))
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.INTERNAL_ERROR, 101)
    assert [line.event for line in logged()].count("connection.failed") == 1


async def test_no_close_follows_an_echo_that_failed_in_mid_frame(serving):
    def streams() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        ours, theirs = memory_stream_pair()
        return ours, Faulty(theirs)

    client: Served = serving(streams)
    await client.open()
    await client.send(frame(TEXT, b"hello"))
    assert await client.rest() == b"\x81\x05h"
    assert (await client.ends()).ending is Ending.INTERNAL_ERROR


# The drain, as one connection sees it


@pytest.mark.parametrize("code", [1001, 1012])
@pytest.mark.parametrize("begun", [b"", frame(TEXT, b"half a message")[:9]], ids=["idle", "within"])
async def test_drain_closes_with_its_code(serving, autojump_clock, code: int, begun: bytes):
    client: Served = serving(registry=Registry(1), drain_code=code)
    await client.open()
    await client.send(begun)
    await wait_all_tasks_blocked()
    client.connection.drain()
    await closed_with(client, code)
    rest = frame(TEXT, b"half a message")[9:] if begun else b""
    await client.send(rest + wire.close(code))
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.DRAINING, 101, code, code)


async def test_drain_lets_the_echo_in_progress_go_out(serving, nursery):
    client: Served = serving(lockstep_stream_pair, registry=Registry(1))
    nursery.start_soon(client.send, wire.request())
    await client.opened()
    nursery.start_soon(client.send, frame(BINARY, BIG))
    await wait_all_tasks_blocked()
    client.connection.drain()
    assert await client.frame() == Frame(BINARY, BIG)
    await closed_with(client, 1001)


async def test_drain_of_a_pinged_peer_is_no_idle_close(serving, autojump_clock):
    client: Served = serving(registry=Registry(1))
    await client.open()
    assert (await client.frame()).opcode == PING
    client.connection.drain()
    await closed_with(client, 1001)


async def test_drain_of_a_peer_that_does_not_take_our_close_ends(serving, autojump_clock):
    client: Served = serving(lockstep_stream_pair, registry=Registry(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request())
        await client.opened()
    begun = trio.current_time()
    client.connection.drain()
    assert (await client.ends()).ending is Ending.DRAINING
    assert trio.current_time() - begun == 5


@pytest.mark.parametrize("sent, status", [(b"", 0), (b"GET /", 503)], ids=["silent", "begun"])
async def test_drain_ends_an_opening_handshake(serving, autojump_clock, sent: bytes, status: int):
    client: Served = serving(registry=Registry(1))
    if sent:
        await client.send(sent)
    await wait_all_tasks_blocked()
    begun = trio.current_time()
    client.connection.drain()
    answer = await client.rest()
    assert trio.current_time() == begun
    assert wire.status(answer) == status
    assert status == 0 or b"\r\nRetry-After: 5\r\n" in answer


# Streams without half a close, such as TLS


def whole_stream_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    return ours, Whole(theirs)


async def test_stream_that_can_not_be_half_closed_is_closed_after_both_closes(
    serving, autojump_clock
):
    client: Served = serving(whole_stream_pair, registry=Registry(1))
    await client.open()
    begun = trio.current_time()
    client.connection.drain()
    assert close_of(1001)(await client.frame())
    await client.send(frame(TEXT, b"too late"))
    await trio.sleep(1)
    await client.send(wire.close(1001))
    assert await client.rest() == b""
    assert trio.current_time() - begun == 1
    assert await client.ends() == Outcome(Ending.DRAINING, 101, 1001, 1001)


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "stays"])
async def test_stream_that_can_not_be_half_closed_is_closed_without_the_peers_close(
    serving, autojump_clock, leaves: bool
):
    client: Served = serving(whole_stream_pair, registry=Registry(1), close_timeout=3)
    await client.open()
    begun = trio.current_time()
    client.connection.drain()
    assert close_of(1001)(await client.frame())
    if leaves:
        await client.stream.send_eof()
    assert await client.rest() == b""
    assert trio.current_time() - begun == (0 if leaves else 3)
    assert await client.ends() == Outcome(Ending.DRAINING, 101, 1006, 1001)


# How it ended, and the log of it


def outcome(ending: Ending, *codes: object, **carried: int) -> Outcome:
    return Outcome(ending, 101, *codes, **carried)


BAD_TEXT = frame(TEXT, b"\xff")
FRAGMENTS = frame(TEXT, b"a", fin=False) + 3 * frame(CONTINUATION, b"b", fin=False)

OUTCOMES = [
    (frame(TEXT, b"one") + frame(BINARY, b"three") + wire.close(1000),
     outcome(Ending.PEER_CLOSED, 1000, 1000, texts=1, binaries=1, octets=8)),
    (wire.close(1005), outcome(Ending.PROTOCOL_ERROR, 1005, 1002, "RFC 6455 7.4.1")),
    (UNMASKED, outcome(Ending.PROTOCOL_ERROR, None, 1002, "RFC 6455 5.1")),
    (BAD_TEXT, outcome(Ending.INVALID_DATA, None, 1007, "RFC 6455 8.1")),
    (frame(TEXT, b"x" * 101), outcome(Ending.TOO_BIG, None, 1009, "RFC 6455 10.4")),
    (FRAGMENTS, outcome(Ending.TOO_MANY_FRAGMENTS, None, 1008, "RFC 6455 10.4")),
    (None, outcome(Ending.VANISHED, 1006)),
    (b"", outcome(Ending.IDLE, 1006, 1011)),
]  # fmt: skip


@pytest.mark.parametrize("sent, expected", OUTCOMES, ids=lambda each: str(each)[:40])
async def test_outcome_is_returned_and_logged(
    serving, autojump_clock, monkeypatch, logged, *, sent: bytes | None, expected: Outcome
):
    """Two lines a connection, however it ends, and no payload in them."""
    monkeypatch.setattr(intake, "MAX_FRAGMENTS", 3)
    client: Served = serving(max_message_size=100)
    await client.open("/there?a=b")
    if sent is None:
        await client.stream.send_eof()
    else:
        await client.send(sent)
    await client.rest()
    await client.stream.aclose()
    assert await client.ends() == expected

    opened, closed = logged()
    assert opened.level == closed.level == "INFO"
    number = opened.fields["connection_id"]
    assert opened == (
        "INFO",
        "connection.opened",
        {"connection_id": number, "peer": "unknown", "target": "/there?a=b", "extensions": None},
    )
    assert closed.event == "connection.closed"
    assert closed.fields == {
        "connection_id": number,
        "ending": expected.ending.value,
        "received_code": expected.received_code,
        "sent_code": expected.sent_code,
        "rule": expected.rule,
        "duration_s": 40 if expected.ending is Ending.IDLE else 0,
        "messages": expected.texts + expected.binaries,
        "bytes_in": expected.octets,
        "bytes_out": expected.octets,
    }


async def test_nothing_is_logged_of_a_message(serving, caplog, logged):
    caplog.set_level("DEBUG")
    client = serving()
    await client.open()
    before = len(logged())
    await client.echo(b"a secret")
    await client.echo(b"a secret", BINARY)
    await client.send(frame(PING, b"a secret"))
    assert await client.frame() == Frame(PONG, b"a secret")
    assert len(logged()) == before
    assert "a secret" not in str(logged())


async def test_extensions_and_peer_are_logged(serving, logged):
    client = serving(registry=Registry(1))
    await client.open("/", ("Sec-WebSocket-Extensions", "permessage-deflate"))
    opened: Line = logged()[0]
    assert str(opened.fields["extensions"]).startswith("permessage-deflate")
    assert opened.fields["peer"] == "192.0.2.1:5000"


async def test_refusal_is_logged_with_its_cause(serving, logged):
    client: Served = serving()
    await client.send(wire.request(Sec_WebSocket_Key="short"))
    answer = await client.rest()
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.REFUSED, 400)
    (refused,) = logged()
    assert refused[:2] == ("INFO", "handshake.refused")
    assert refused.fields["status"] == 400
    assert str(refused.fields["cause"]).encode() in answer


async def test_cancelled_connection_is_closed_and_logged(serving, nursery, logged):
    ours, theirs = memory_stream_pair()
    client = wire.Client(ours)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as serving_nursery:
            serving_nursery.start_soon(serve_stream, theirs, Config())
            await client.open()
            scope.cancel()
    assert await client.rest() == b""
    assert logged()[-1].event == "connection.closed"
    assert logged()[-1].fields["ending"] == "cancelled"


async def test_connection_tells_whether_it_is_open():
    ours, theirs = memory_stream_pair()
    connection = Connection(StreamTransport(theirs), Config(), Registry(1), "unknown")
    client = wire.Client(ours)
    assert not connection.is_open
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.open()
        assert connection.is_open
        assert connection.outcome() == Outcome(Ending.CANCELLED, 101, 1006)
        nursery.cancel_scope.cancel()


async def test_logging_that_fails_is_no_connections_business(serving, monkeypatch, caplog):
    """A program that embeds the service may have a filter that raises."""

    def refuse(record: logging.LogRecord) -> bool:
        raise RuntimeError("theirs")

    client: Served = serving()
    await client.open()
    caplog.set_level(logging.INFO, "echo_service")
    monkeypatch.setattr(logging.getLogger("echo_service"), "filters", [refuse])
    await client.send(wire.close(1000))
    assert await client.rest() == b"\x88\x02\x03\xe8"
    await client.stream.aclose()
    assert (await client.ends()).ending is Ending.PEER_CLOSED


# The client behind a proxy


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "event, changed",
    [
        ("connection.opened", {}),
        ("handshake.refused", {"Sec_WebSocket_Key": "short"}),
        ("request.answered", {"Upgrade": None, "Sec_WebSocket_Key": None}),
    ],
)
async def test_the_client_is_logged_beside_the_trusted_proxy_that_names_it(
    serving, caplog, event, changed, trusted
):
    caplog.set_level("DEBUG", "echo_service")
    network = "192.0.2.0/24" if trusted else "192.0.3.0/24"
    client: Served = serving(registry=Registry(1), trusted_proxy=[network])
    await client.send(wire.request("/healthz", ("X-Forwarded-For", "198.51.100.7"), **changed))
    await client.stream.send_eof()
    await client.rest()
    record = caplog.records[0]
    assert record.getMessage() == event
    named = (record.peer, getattr(record, "proxy", None))
    expected = ("198.51.100.7", "192.0.2.1:5000") if trusted else ("192.0.2.1:5000", None)
    assert named == expected
